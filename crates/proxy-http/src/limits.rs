//! Limits of the HTTP/1 codec; the defaults are Envoy's.

/// Largest request head in bytes (Envoy: `max_request_headers_kb`, 60 KiB).
pub const REQUEST_HEAD_BYTES: usize = 60 * 1024;

/// Largest response head in bytes (Envoy: `max_response_headers_kb`, 60 KiB).
pub const RESPONSE_HEAD_BYTES: usize = 60 * 1024;

/// Most header fields of one head (Envoy: `max_headers_count`, 100).
pub const HEADER_COUNT: usize = 100;

/// Hard ceiling of a head, whatever is configured: offsets inside a head are 32 bits (Envoy: 8192 KiB).
pub const HEAD_BYTES_CEILING: usize = 8192 * 1024;

/// Longest chunk extension in bytes, per chunk; extensions carry nothing that anybody uses, and a long one is
/// an attack on buffers (CVE-2023-39326 in other servers).
pub const CHUNK_EXTENSION_BYTES: usize = 16 * 1024;

/// Most hexadecimal digits of a chunk size: 2^64 - 1 has sixteen.
pub const CHUNK_SIZE_DIGITS: usize = 16;

/// Most empty lines skipped before a request line (RFC 9112 section 2.2 asks for one).
pub const LEADING_EMPTY_LINES: usize = 8;

/// How much of an unfinished line is checked before its end has arrived. Longer lines are checked when complete,
/// so that a peer who sends byte by byte cannot make each byte cost a scan of the whole line.
pub const EAGER_CHECK_BYTES: usize = 1024;
