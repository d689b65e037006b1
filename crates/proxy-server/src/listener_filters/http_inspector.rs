//! `envoy.filters.listener.http_inspector`: tells HTTP/1.0, HTTP/1.1 and cleartext HTTP/2 from anything else.

use proxy_config::limits::REQUEST_LINE_MAX_BYTES;

/// The connection preface of HTTP/2 (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods that a request may begin with. Others are taken for another protocol, as Envoy's inspector takes them.
const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "NOTIFY",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// Not decided: wait for more.
    NeedMore,
    /// Not HTTP.
    Other,
    /// HTTP; the name that filter chains match on: `http/1.0`, `http/1.1` or `h2c`.
    Http(&'static str),
}

/// Looks at the first bytes of a connection.
#[must_use]
pub fn inspect(bytes: &[u8]) -> Inspected {
    if bytes.is_empty() {
        return Inspected::NeedMore;
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Inspected::Http("h2c");
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return Inspected::NeedMore;
    }
    if !begins_with_method(bytes) {
        return Inspected::Other;
    }
    match memchr::memchr(b'\n', bytes) {
        Some(end) => request_line(&bytes[..end]),
        None if bytes.len() > REQUEST_LINE_MAX_BYTES => Inspected::Other,
        None => Inspected::NeedMore,
    }
}

fn begins_with_method(bytes: &[u8]) -> bool {
    match memchr::memchr(b' ', bytes) {
        Some(end) => METHODS.iter().any(|method| method.as_bytes() == &bytes[..end]),
        None => METHODS.iter().any(|method| method.as_bytes().starts_with(bytes)),
    }
}

fn request_line(line: &[u8]) -> Inspected {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match memchr::memrchr(b' ', line).map(|space| &line[space + 1..]) {
        Some(b"HTTP/1.1") => Inspected::Http("http/1.1"),
        Some(b"HTTP/1.0") => Inspected::Http("http/1.0"),
        _ => Inspected::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_recognised_by_its_first_line() {
        assert_eq!(
            inspect(b"GET / HTTP/1.1\r\nhost: a\r\n"),
            Inspected::Http("http/1.1")
        );
        assert_eq!(inspect(b"POST /x y HTTP/1.0\n"), Inspected::Http("http/1.0"));
        assert_eq!(inspect(HTTP2_PREFACE), Inspected::Http("h2c"));
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_arrive() {
        let whole = b"OPTIONS * HTTP/1.1\r\n\r\n";
        for end in 1..whole.len() {
            let early = inspect(&whole[..end]);
            assert!(
                matches!(early, Inspected::NeedMore | Inspected::Http("http/1.1")),
                "{end}: {early:?}"
            );
        }
    }

    #[test]
    fn other_protocols_are_recognised_as_soon_as_possible() {
        for bytes in [
            &b"\x16\x03"[..],
            b"SSH-2.0",
            b"get / HTTP/1.1",
            b"GET / HTTP/3.0\r\n",
            b"GET\n",
            b"\0",
        ] {
            assert_eq!(inspect(bytes), Inspected::Other, "{bytes:?}");
        }
    }
}
