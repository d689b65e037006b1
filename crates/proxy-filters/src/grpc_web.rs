//! `envoy.filters.http.grpc_web`: gRPC for browsers, whose bodies carry the trailers and may be text
//! (`envoy.extensions.filters.http.grpc_web.v3.GrpcWeb`; gRPC-Web's protocol, "PROTOCOL-WEB.md" of gRPC).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proxy_http::{HeaderId, Headers, RequestHead};

use crate::grpc_frames::Frames;

/// Content types of requests: bodies as they are, and in base64.
const BINARY: [&[u8]; 2] = [b"application/grpc-web", b"application/grpc-web+proto"];
const TEXT: [&[u8]; 2] = [b"application/grpc-web-text", b"application/grpc-web-text+proto"];

/// The flag of the frame that carries the trailers.
const TRAILERS_FLAG: u8 = 0x80;

/// Bytes of base64 that stand for three.
const GROUP: usize = 4;

/// How the two bodies of a call are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcWebCall {
    /// The request comes in base64.
    pub request_is_text: bool,
    /// The answer is wanted in base64.
    pub answer_is_text: bool,
}

impl GrpcWebCall {
    /// Makes a gRPC request of one for gRPC-Web; others are left as they are.
    pub fn begin(request: &mut RequestHead) -> Option<Self> {
        let content_type = request.headers.get_id(HeaderId::ContentType)?;
        let request_is_text = TEXT.contains(&content_type);
        if !request_is_text && !BINARY.contains(&content_type) {
            return None;
        }
        let accepted = request.headers.get("accept").unwrap_or_default();
        let answer_is_text = TEXT.contains(&accepted);
        let headers = &mut request.headers;
        headers.remove(&HeaderId::ContentLength);
        headers.set(&HeaderId::ContentType, b"application/grpc");
        headers.set(&HeaderId::Te, b"trailers");
        headers.set("grpc-accept-encoding", b"identity");
        Some(GrpcWebCall {
            request_is_text,
            answer_is_text,
        })
    }

    /// The content type of the answer.
    #[must_use]
    pub fn answer_type(self) -> &'static [u8] {
        match self.answer_is_text {
            true => b"application/grpc-web-text+proto",
            false => b"application/grpc-web+proto",
        }
    }
}

/// Bytes that are not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64;

/// Reads a body of base64. Each message may be encoded for itself, so that padding need not be the end.
#[derive(Clone, Debug, Default)]
pub struct TextReader {
    /// The beginning of a group.
    waiting: Vec<u8>,
}

impl TextReader {
    /// Decodes what is complete with these bytes.
    ///
    /// # Errors
    /// It is not base64.
    pub fn read(&mut self, input: &[u8]) -> Result<Vec<u8>, NotBase64> {
        self.waiting.extend_from_slice(input);
        let complete = self.waiting.len() / GROUP * GROUP;
        let mut out = Vec::with_capacity(complete);
        let mut from = 0;
        for to in (GROUP..=complete).step_by(GROUP) {
            // A group with padding is the end of a piece that was encoded for itself.
            if to == complete || self.waiting[to - 1] == b'=' {
                BASE64
                    .decode_vec(&self.waiting[from..to], &mut out)
                    .map_err(|_| NotBase64)?;
                from = to;
            }
        }
        self.waiting.drain(..complete);
        Ok(out)
    }

    /// The body has ended.
    ///
    /// # Errors
    /// Inside a group.
    pub fn end(&self) -> Result<(), NotBase64> {
        match self.waiting.is_empty() {
            true => Ok(()),
            false => Err(NotBase64),
        }
    }
}

/// Writes the body of an answer: messages as they are or each in base64, and then the trailers.
#[derive(Clone, Debug)]
pub struct AnswerWriter {
    is_text: bool,
    frames: Frames,
    /// What does not fill a group of the present message yet.
    waiting: Vec<u8>,
}

impl AnswerWriter {
    /// For the answer to a call.
    #[must_use]
    pub fn new(call: GrpcWebCall) -> Self {
        Self {
            is_text: call.answer_is_text,
            frames: Frames::default(),
            waiting: Vec::new(),
        }
    }

    /// Writes a piece of the body; `None` where it goes on as it is.
    pub fn write(&mut self, mut piece: &[u8]) -> Option<Vec<u8>> {
        if !self.is_text {
            return None;
        }
        let mut out = String::with_capacity(piece.len() / 3 * GROUP + 2 * GROUP);
        while !piece.is_empty() {
            let step = self.frames.step(piece);
            self.waiting.extend_from_slice(&piece[..step.bytes]);
            piece = &piece[step.bytes..];
            let whole = match step.ends {
                true => self.waiting.len(),
                false => self.waiting.len() / 3 * 3,
            };
            BASE64.encode_string(&self.waiting[..whole], &mut out);
            self.waiting.drain(..whole);
        }
        Some(out.into_bytes())
    }

    /// Writes what is left over, and the trailers.
    pub fn end(&mut self, trailers: Option<&Headers>) -> Vec<u8> {
        let mut frame = Vec::new();
        if let Some(trailers) = trailers {
            frame.extend([TRAILERS_FLAG, 0, 0, 0, 0]);
            for (name, value) in trailers.iter() {
                frame.extend([name, b":", value, b"\r\n"].concat());
            }
            let length = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
            frame[1..5].copy_from_slice(&length.to_be_bytes());
        }
        if !self.is_text {
            return frame;
        }
        let mut out = BASE64.encode(std::mem::take(&mut self.waiting));
        BASE64.encode_string(&frame, &mut out);
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::with("POST", "http", "a.test", "/s/m");
        for (name, value) in fields {
            head.headers.append(*name, value.as_bytes());
        }
        head
    }

    #[test]
    fn a_request_becomes_grpc() {
        let mut head = request(&[
            ("content-type", "application/grpc-web-text"),
            ("accept", "application/grpc-web-text"),
            ("content-length", "12"),
        ]);
        let call = GrpcWebCall::begin(&mut head).unwrap();
        assert!(call.request_is_text && call.answer_is_text && head.is_grpc());
        assert_eq!(head.headers.get("te"), Some(&b"trailers"[..]));
        assert_eq!(head.headers.get("content-length"), None);
        assert_eq!(call.answer_type(), b"application/grpc-web-text+proto");
        for other in ["application/grpc", "application/grpc-web+json", "text/plain"] {
            assert_eq!(GrpcWebCall::begin(&mut request(&[("content-type", other)])), None);
        }
    }

    #[test]
    fn text_is_read_however_it_arrives() {
        // Two pieces, each encoded for itself.
        let text = b"AAAAAANhYmM=AAAAAAA=";
        for size in 1..=text.len() {
            let mut reader = TextReader::default();
            let read: Vec<u8> = text
                .chunks(size)
                .flat_map(|piece| reader.read(piece).unwrap())
                .collect();
            assert_eq!(read, b"\0\0\0\0\x03abc\0\0\0\0\0", "in pieces of {size}");
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn what_is_not_base64_is_an_error() {
        assert_eq!(TextReader::default().read(b"!!!!"), Err(NotBase64));
        let mut reader = TextReader::default();
        assert_eq!(reader.read(b"AAAAA").unwrap().len(), 3);
        assert_eq!(reader.end(), Err(NotBase64));
    }

    #[test]
    fn an_answer_ends_with_its_trailers() {
        let body = b"\0\0\0\0\x05hello\0\0\0\0\x02wo";
        let mut trailers = Headers::new();
        trailers.append("grpc-status", b"0");
        for (is_text, expected) in [
            (
                true,
                &b"AAAAAAVoZWxsbw==AAAAAAJ3bw==gAAAAA9ncnBjLXN0YXR1czowDQo="[..],
            ),
            (
                false,
                b"\0\0\0\0\x05hello\0\0\0\0\x02wo\x80\0\0\0\x0fgrpc-status:0\r\n",
            ),
        ] {
            for size in 1..=body.len() {
                let mut writer = AnswerWriter::new(GrpcWebCall {
                    request_is_text: is_text,
                    answer_is_text: is_text,
                });
                let mut out: Vec<u8> = body
                    .chunks(size)
                    .flat_map(|piece| writer.write(piece).unwrap_or_else(|| piece.to_vec()))
                    .collect();
                out.extend(writer.end(Some(&trailers)));
                assert_eq!(out, expected, "in pieces of {size}");
            }
        }
    }
}
