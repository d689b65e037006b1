//! Heads of the `h2` crate, and the proxy's own. What HTTP/2 forbids (RFC 9113, section 8.2.2) is left out on the way
//! there; on the way back `h2` has refused it already.

use h2::ext::Protocol;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use proxy_http::{HeaderId, Headers, RequestHead, ResponseHead, Version};

/// Fills a request head.
pub(crate) fn read_request(parts: &http::request::Parts, head: &mut RequestHead) {
    head.clear();
    head.version = Version::Http2;
    // A stream that is to carry another protocol is asked for in HTTP/1's words from here on.
    let protocol = parts.extensions.get::<Protocol>();
    head.set_method(match protocol {
        Some(_) => b"GET",
        None => parts.method.as_str().as_bytes(),
    });
    if let Some(scheme) = parts.uri.scheme_str() {
        head.set_scheme(scheme.as_bytes());
    }
    if let Some(path) = parts.uri.path_and_query() {
        head.set_path(path.as_str().as_bytes());
    }
    // Where both are present, `:authority` is the one that counts.
    if let Some(authority) = parts.uri.authority() {
        head.set_authority(authority.as_str().as_bytes());
    } else if let Some(host) = parts.headers.get(http::header::HOST) {
        head.set_authority(host.as_bytes());
    }
    read_fields(&parts.headers, &mut head.headers);
    if let Some(protocol) = protocol {
        head.headers.set(&HeaderId::Upgrade, protocol.as_str().as_bytes());
        head.headers.set(&HeaderId::Connection, b"upgrade");
    }
}

/// Says in HTTP/1's words that the host has agreed to carry a protocol.
pub(crate) fn agree(head: &mut ResponseHead, protocol: &[u8]) {
    head.set_status(101);
    head.headers.set(&HeaderId::Upgrade, protocol);
    head.headers.set(&HeaderId::Connection, b"upgrade");
}

/// Fills a response head.
pub(crate) fn read_response(status: StatusCode, fields: &HeaderMap, head: &mut ResponseHead) {
    head.clear();
    head.version = Version::Http2;
    head.set_status(status.as_u16());
    read_fields(fields, &mut head.headers);
}

/// Trailers.
pub(crate) fn read_trailers(fields: &HeaderMap) -> Headers {
    let mut trailers = Headers::new();
    read_fields(fields, &mut trailers);
    trailers
}

/// Whether a name is one of HTTP (RFC 9110, section 5.1). Of what may not be in one, the `http` crate lets quotation marks
/// pass.
fn is_name(name: &HeaderName) -> bool {
    !name.as_str().contains('"')
}

/// Whether a request can be said in HTTP/1 too: every field has a name, and the path is of characters that a URI may
/// have. Others are malformed (RFC 9113, sections 8.2.1 and 8.3.1), and let pass by the `h2` crate.
pub(crate) fn is_well_formed(parts: &http::request::Parts) -> bool {
    let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    path.is_ascii() && parts.headers.keys().all(is_name)
}

/// Appends fields; the pieces of a cookie are joined again (RFC 9113, section 8.2.3). What has no name is left out: where
/// it matters, the message was refused before.
fn read_fields(fields: &HeaderMap, headers: &mut Headers) {
    for (name, value) in fields {
        if *name == http::header::HOST || *name == http::header::COOKIE || !is_name(name) {
            continue;
        }
        headers.append(name.as_str(), value.as_bytes());
    }
    let mut crumbs = fields
        .get_all(http::header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes);
    match (crumbs.next(), crumbs.next()) {
        (None, _) => {}
        (Some(cookie), None) => headers.append(&HeaderId::Cookie, cookie),
        // Joined once: a peer may send hundreds of them in a few bytes.
        (Some(first), Some(second)) => {
            let all: Vec<&[u8]> = [first, second].into_iter().chain(crumbs).collect();
            headers.append(&HeaderId::Cookie, &all.join(&b"; "[..]));
        }
    }
}

/// The head of a request to send; `None` where HTTP/2 cannot say it.
pub(crate) fn request(head: &RequestHead) -> Option<http::Request<()>> {
    let mut request = http::Request::new(());
    *request.method_mut() = Method::from_bytes(head.method()).ok()?;
    if head.is_upgrade() {
        // RFC 8441. As in Envoy it is not asked first whether the host knows it; one that does not refuses the stream.
        let protocol = std::str::from_utf8(head.headers.get_id(HeaderId::Upgrade)?).ok()?;
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from(protocol));
    }
    let mut target = http::uri::Parts::default();
    if head.authority().is_empty() {
        // HTTP/2 does without an authority where HTTP/1 had none.
        *request.version_mut() = http::Version::HTTP_11;
    } else {
        *request.version_mut() = http::Version::HTTP_2;
        target.authority = Some(Authority::try_from(head.authority()).ok()?);
    }
    if !head.is_connect() {
        target.path_and_query = Some(path_and_query(head.path())?);
        if target.authority.is_some() {
            target.scheme = Some(match head.scheme() {
                b"https" => Scheme::HTTPS,
                _ => Scheme::HTTP,
            });
        }
    }
    *request.uri_mut() = Uri::from_parts(target).ok()?;
    *request.headers_mut() = fields(&head.headers)?;
    Some(request)
}

/// A target for `:path`. Characters that clients write though a URI has none of them (`<`, a backtick) go on in percent
/// encoding, which means the same: the `http` crate would refuse them.
fn path_and_query(path: &[u8]) -> Option<PathAndQuery> {
    if let Ok(target) = PathAndQuery::try_from(path) {
        return Some(target);
    }
    let mut encoded = Vec::with_capacity(path.len() + 8);
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%#".contains(&byte) {
            encoded.push(byte);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            encoded.extend([
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]);
        }
    }
    PathAndQuery::try_from(encoded).ok()
}

/// The head of a response to send; `None` where HTTP/2 cannot say it.
pub(crate) fn response(head: &ResponseHead) -> Option<http::Response<()>> {
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status()).ok()?;
    *response.headers_mut() = fields(&head.headers)?;
    Some(response)
}

/// Fields to send, without those that are about an HTTP/1 connection.
pub(crate) fn fields(headers: &Headers) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        let id = HeaderId::from_name(name);
        let is_dropped = match id {
            Some(
                HeaderId::Connection
                | HeaderId::KeepAlive
                | HeaderId::ProxyConnection
                | HeaderId::TransferEncoding
                | HeaderId::Upgrade
                | HeaderId::Http2Settings,
            ) => true,
            Some(HeaderId::Te) => value != b"trailers",
            _ => false,
        };
        if !is_dropped {
            let name = HeaderName::from_bytes(name).ok()?;
            map.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
        }
    }
    Some(map)
}

/// Bytes of the fields of a head, each with what an HTTP/1 line has beside name and value.
pub(crate) fn field_bytes(headers: &Headers) -> usize {
    let pseudo: usize = headers
        .iter_pseudo()
        .map(|(id, value)| id.name().len() + value.len())
        .sum();
    let fields: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    pseudo + fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut builder = http::Request::builder().method("GET").uri("http://a.test/x?y");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let mut head = RequestHead::new();
        read_request(&builder.body(()).unwrap().into_parts().0, &mut head);
        head
    }

    #[test]
    fn the_pieces_of_a_cookie_are_joined() {
        let head = received(&[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")]);
        let cookies: Vec<_> = head.headers.get_all("cookie").collect();
        assert_eq!(cookies, [b"a=1; b=2"]);
    }

    #[test]
    fn what_http1_cannot_say_is_malformed_and_not_passed_on() {
        let parts = |path: &str, name: &str| {
            // As `h2` reads names.
            let name = HeaderName::from_lowercase(name.as_bytes()).unwrap();
            let request = http::Request::builder().uri(path).header(name, "1").body(());
            request.unwrap().into_parts().0
        };
        assert!(is_well_formed(&parts("http://a.test/x", "x-a")));
        assert!(!is_well_formed(&parts("http://a.test/\u{e9}", "x-a")));
        let quoted = parts("http://a.test/x", "x\"a");
        assert!(!is_well_formed(&quoted));
        assert_eq!(read_trailers(&quoted.headers).len(), 0);
    }

    #[test]
    fn the_authority_outranks_a_host_field() {
        let head = received(&[("host", "evil.test")]);
        assert_eq!(head.authority(), b"a.test");
        assert_eq!(head.headers.get("host"), Some(&b"a.test"[..]));
        assert_eq!((head.path(), head.scheme()), (&b"/x?y"[..], &b"http"[..]));
    }

    #[test]
    fn fields_about_a_connection_are_not_sent() {
        let mut head = RequestHead::with("GET", "https", "a.test", "/");
        for (name, value) in [
            ("connection", "close, x"),
            ("keep-alive", "1"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("x-kept", "1"),
        ] {
            head.headers.append(name, value.as_bytes());
        }
        let sent = request(&head).unwrap();
        assert_eq!(sent.headers().keys().collect::<Vec<_>>(), ["x-kept"]);
        assert_eq!(sent.uri(), "https://a.test/");
    }

    #[test]
    fn characters_that_a_uri_has_not_go_on_in_percent_encoding() {
        for (path, sent) in [
            ("/a?q=%3C&c=d|e", "/a?q=%3C&c=d|e"),
            ("/<a>`?q=\"<\"", "/%3Ca%3E%60?q=%22%3C%22"),
        ] {
            let head = RequestHead::with("GET", "http", "a.test", path);
            let target = request(&head).unwrap().uri().path_and_query().unwrap().clone();
            assert_eq!(target.as_str(), sent);
        }
    }

    #[test]
    fn many_crumbs_of_a_cookie_are_joined_once() {
        let crumb = "c".repeat(30);
        let fields: Vec<_> = (0..900).map(|_| ("cookie", crumb.as_str())).collect();
        let mut builder = http::Request::builder().uri("http://a.test/");
        for (name, value) in fields {
            builder = builder.header(name, value);
        }
        let mut head = RequestHead::new();
        read_request(&builder.body(()).unwrap().into_parts().0, &mut head);
        let cookie = head.headers.get_id(HeaderId::Cookie).unwrap();
        assert_eq!(cookie.len(), 900 * 32 - 2);
        assert!(field_bytes(&head.headers) < 30_000);
    }

    #[test]
    fn what_http2_cannot_say_is_not_said() {
        let head = RequestHead::with("GET", "http", "a:1:2", "/");
        assert!(request(&head).is_none());
        let mut head = ResponseHead::with_status(200);
        head.headers.append("x", b"a\nb");
        assert!(response(&head).is_none());
    }
}
