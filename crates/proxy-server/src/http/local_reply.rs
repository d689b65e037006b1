//! Responses that the proxy makes itself: statuses, bodies, flags and details are Envoy's.

use std::borrow::Cow;

use proxy_core::ResponseFlag;
use proxy_http::{HeaderId, ParseError, RequestHead, ResponseHead, Version, grpc_status_of, reason_phrase};

/// A response of our own.
#[derive(Clone, Debug)]
pub(crate) struct LocalReply {
    pub(crate) status: u16,
    pub(crate) body: Cow<'static, [u8]>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: Cow<'static, str>,
    pub(crate) flag: Option<ResponseFlag>,
    /// The connection ends with this reply.
    pub(crate) close: bool,
    /// The `location` of a redirect.
    pub(crate) location: Option<Vec<u8>>,
    /// What a gRPC client is told, where that does not follow from the HTTP status.
    pub(crate) grpc_status: Option<u8>,
}

impl LocalReply {
    /// A reply without body, flag or location, after which the connection goes on.
    pub(crate) fn new(status: u16, details: &'static str) -> Self {
        LocalReply {
            status,
            body: Cow::Borrowed(b""),
            details: Cow::Borrowed(details),
            flag: None,
            close: false,
            location: None,
            grpc_status: None,
        }
    }

    pub(crate) fn body(mut self, body: &'static str) -> Self {
        self.body = Cow::Borrowed(body.as_bytes());
        self
    }

    pub(crate) fn flag(mut self, flag: ResponseFlag) -> Self {
        self.flag = Some(flag);
        self
    }

    pub(crate) fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The reply to bytes that are not HTTP/1.
    pub(crate) fn protocol_error(error: ParseError) -> Self {
        Self::bad_request(error.status(), error.details())
    }

    /// A refusal by the codec: the reason phrase as body, flag DPE, and the connection closes.
    pub(crate) fn bad_request(status: u16, details: &'static str) -> Self {
        Self::new(status, details)
            .body(reason_phrase(status))
            .flag(ResponseFlag::DownstreamProtocolError)
            .close()
    }

    /// Fills a response head, and takes the body along. A gRPC client (`as_grpc`) gets a gRPC status instead of an HTTP
    /// one.
    pub(crate) fn fill(&self, request: &RequestHead, as_grpc: bool, head: &mut ResponseHead) -> &[u8] {
        head.clear();
        // HTTP/2 tells by itself that there is no body.
        let says_empty = request.version != Version::Http2;
        if as_grpc && self.location.is_none() {
            self.fill_grpc(head, says_empty);
            return b"";
        }
        head.set_status(self.status);
        if let Some(location) = &self.location {
            head.headers.append(&HeaderId::Location, location);
        }
        // A 204 has neither a body nor its length (RFC 9110 section 8.6).
        if self.status == 204 {
            return b"";
        }
        if says_empty || !self.body.is_empty() {
            head.headers.append(
                &HeaderId::ContentLength,
                itoa::Buffer::new().format(self.body.len()).as_bytes(),
            );
        }
        if !self.body.is_empty() {
            head.headers.append(&HeaderId::ContentType, b"text/plain");
        }
        &self.body
    }

    fn fill_grpc(&self, head: &mut ResponseHead, says_empty: bool) {
        head.set_status(200);
        head.headers.append(&HeaderId::ContentType, b"application/grpc");
        let status = self.grpc_status.unwrap_or(grpc_status_of(self.status));
        head.headers.append(
            &HeaderId::GrpcStatus,
            itoa::Buffer::new().format(status).as_bytes(),
        );
        if !self.body.is_empty() {
            head.headers
                .append(&HeaderId::GrpcMessage, &percent_encode(&self.body));
        }
        if says_empty {
            head.headers.append(&HeaderId::ContentLength, b"0");
        }
    }
}

/// `grpc-message` carries visible ASCII but the percent sign; the rest is percent-encoded.
pub(crate) fn percent_encode(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend([
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 0xf)],
            ]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_client_gets_a_grpc_status_and_others_a_text() {
        let reply = LocalReply::new(503, "no_healthy_upstream").body("no healthy upstream");
        let mut request = RequestHead::with("POST", "http", "a", "/s/m");
        let mut head = ResponseHead::new();
        assert_eq!(reply.fill(&request, false, &mut head), b"no healthy upstream");
        assert_eq!(
            (head.status(), head.headers.get("content-length")),
            (503, Some(&b"19"[..]))
        );
        request
            .headers
            .set(&HeaderId::ContentType, b"application/grpc+proto");
        assert_eq!(reply.fill(&request, true, &mut head), b"");
        assert_eq!(
            (head.status(), head.headers.get("grpc-status")),
            (200, Some(&b"14"[..]))
        );
    }

    /// Envoy sends the body of a direct response with status 204; whoever reads it takes it for the next response.
    #[test]
    fn a_204_has_neither_a_body_nor_its_length() {
        let reply = LocalReply::new(204, "direct_response").body("hello");
        let mut head = ResponseHead::new();
        assert_eq!(
            reply.fill(&RequestHead::with("GET", "http", "a", "/"), false, &mut head),
            b""
        );
        assert_eq!((head.status(), head.headers.is_empty()), (204, true));
    }
}
