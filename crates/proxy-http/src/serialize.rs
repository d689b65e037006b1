//! Writing heads and chunks, always as HTTP/1.1 with lower-case names.

use crate::head::{RequestHead, ResponseHead};
use crate::headers::Headers;

/// Appends a request head, and gives the bytes of its field lines. `host` comes from `:authority`; framing fields are
/// the caller's.
pub fn write_request_head(out: &mut Vec<u8>, head: &RequestHead) -> usize {
    out.extend_from_slice(head.method());
    out.push(b' ');
    // CONNECT has no path; its target is the authority (RFC 9112 section 3.2.3).
    out.extend_from_slice(if head.is_connect() {
        head.authority()
    } else {
        head.path()
    });
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let start = out.len();
    out.extend_from_slice(b"host: ");
    out.extend_from_slice(head.authority());
    out.extend_from_slice(b"\r\n");
    end_head(out, start, &head.headers)
}

/// Appends a response head with the standard reason phrase of its status, and gives the bytes of its field lines.
pub fn write_response_head(out: &mut Vec<u8>, head: &ResponseHead) -> usize {
    if head.status() == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(head.status()).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason_phrase(head.status()).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let start = out.len();
    end_head(out, start, &head.headers)
}

/// Appends the fields and the empty line; gives the bytes from `start` to that line.
fn end_head(out: &mut Vec<u8>, start: usize, headers: &Headers) -> usize {
    headers.write_lines(out);
    let length = out.len() - start;
    out.extend_from_slice(b"\r\n");
    length
}

/// Appends the size line of a chunk; `size` must not be zero, which would end the body.
pub fn write_chunk_header(out: &mut Vec<u8>, size: usize) {
    debug_assert!(size > 0, "a chunk of size zero ends the body");
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut shift = (usize::BITS - size.leading_zeros()).div_ceil(4) * 4;
    while shift > 0 {
        shift -= 4;
        out.push(DIGITS[(size >> shift) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk, with trailers if there are any.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: Option<&Headers>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_lines(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase of a status as Envoy words it (`CodeUtility::toString`).
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}
