//! `envoy.filters.listener.http_inspector`: tells HTTP/1.0, HTTP/1.1 and cleartext HTTP/2 from anything else.

use proxy_config::limits::REQUEST_LINE_MAX_BYTES;
use proxy_http::is_token;

/// The connection preface of HTTP/2 (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
    if !may_begin_a_request(bytes) {
        return Inspected::Other;
    }
    match memchr::memchr(b'\n', bytes) {
        Some(end) => request_line(&bytes[..end]),
        None if bytes.len() > REQUEST_LINE_MAX_BYTES => Inspected::Other,
        None => Inspected::NeedMore,
    }
}

/// Whether a method stands here, or its beginning. Any is looked for, so that a request with one that the codec refuses
/// is refused by it, and does not find its way around the filters for HTTP.
fn may_begin_a_request(bytes: &[u8]) -> bool {
    let method = bytes.split(is_space).next().unwrap_or_default();
    !method.is_empty() && method.iter().copied().all(is_token)
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// A method, what could be a target, and any version or none: it is the codec that says what is wrong with them.
fn request_line(line: &[u8]) -> Inspected {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(is_space).filter(|word| !word.is_empty());
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), None) = (method, target, words.next()) else {
        return Inspected::Other;
    };
    let is_target = match target[0] {
        b'/' => true,
        b'*' => target.len() == 1,
        _ => version.is_some() && (method == b"CONNECT" || memchr::memmem::find(target, b"://").is_some()),
    };
    match version {
        _ if !is_target || target.iter().any(u8::is_ascii_control) => Inspected::Other,
        Some(b"HTTP/1.1") => Inspected::Http("http/1.1"),
        // As Envoy calls all others.
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Inspected::Http("http/1.0")
        }
        None => Inspected::Http("http/1.0"),
        Some(_) => Inspected::Other,
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
        assert_eq!(
            inspect(b"FOO-1 http://x/y HTTP/1.0\n"),
            Inspected::Http("http/1.0")
        );
        assert_eq!(inspect(b"GET /\r\n"), Inspected::Http("http/1.0"));
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
            b"SSH-2.0-x\r\n",
            b"EHLO x\r\n",
            b"a{ / HTTP/1.1",
            b"POST /x y HTTP/1.1\r\n",
            b"GET / HTTP/x\r\n",
            b"GET x HTTP/1.1\r\n",
            b"GET\n",
            b" GET",
            b"\r\nGET",
            b"\0",
        ] {
            assert_eq!(inspect(bytes), Inspected::Other, "{bytes:?}");
        }
    }
}
