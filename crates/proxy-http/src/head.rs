//! Heads of requests and responses: the start line's facts as pseudo-header fields, and the header fields.

use crate::header_id::HeaderId;
use crate::headers::{Headers, Name};

/// The protocol version of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// The name as Envoy's `%PROTOCOL%` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// The head of a request: `:method`, `:path`, `:authority`, `:scheme` and the header fields.
#[derive(Clone, Default, Debug)]
pub struct RequestHead {
    /// The header fields; `host` is `:authority` here.
    pub headers: Headers,
    /// The version in which the request came.
    pub version: Version,
}

impl RequestHead {
    /// An empty head.
    pub fn new() -> Self {
        Self::default()
    }

    /// A head with the four pseudo-header fields set.
    pub fn with(method: &str, scheme: &str, authority: &str, path: &str) -> Self {
        let mut head = Self::new();
        head.headers.set(&HeaderId::Method, method.as_bytes());
        head.headers.set(&HeaderId::Scheme, scheme.as_bytes());
        head.headers.set(&HeaderId::Authority, authority.as_bytes());
        head.headers.set(&HeaderId::Path, path.as_bytes());
        head
    }

    /// Empties the head and keeps its memory.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.version = Version::default();
    }

    /// The method; empty when the head is.
    #[inline]
    pub fn method(&self) -> &[u8] {
        self.headers.get_id(HeaderId::Method).unwrap_or_default()
    }

    /// Path and query; empty for CONNECT.
    #[inline]
    pub fn path(&self) -> &[u8] {
        self.headers.get_id(HeaderId::Path).unwrap_or_default()
    }

    /// The path without query and fragment.
    #[inline]
    pub fn path_without_query(&self) -> &[u8] {
        let path = self.path();
        match memchr::memchr2(b'?', b'#', path) {
            Some(end) => &path[..end],
            None => path,
        }
    }

    /// The query without its question mark, when there is one.
    pub fn query(&self) -> Option<&[u8]> {
        let path = self.path();
        let path = &path[..memchr::memchr(b'#', path).unwrap_or(path.len())];
        memchr::memchr(b'?', path).map(|mark| &path[mark + 1..])
    }

    /// The authority (the `Host` field under HTTP/1); empty when it is missing.
    #[inline]
    pub fn authority(&self) -> &[u8] {
        self.headers.get_id(HeaderId::Authority).unwrap_or_default()
    }

    /// `http` or `https`; empty until the connection manager has set it.
    #[inline]
    pub fn scheme(&self) -> &[u8] {
        self.headers.get_id(HeaderId::Scheme).unwrap_or_default()
    }

    /// Replaces the method.
    pub fn set_method(&mut self, method: &[u8]) {
        self.headers.set(&HeaderId::Method, method);
    }

    /// Replaces path and query.
    pub fn set_path(&mut self, path: &[u8]) {
        self.headers.set(&HeaderId::Path, path);
    }

    /// Replaces the authority.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.headers.set(&HeaderId::Authority, authority);
    }

    /// Replaces the scheme.
    pub fn set_scheme(&mut self, scheme: &[u8]) {
        self.headers.set(&HeaderId::Scheme, scheme);
    }

    /// True for HEAD, whose response has no body.
    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// True for CONNECT.
    pub fn is_connect(&self) -> bool {
        self.method() == b"CONNECT"
    }

    /// True when the content type says gRPC, as Envoy's `Grpc::Common::isGrpcRequestHeaders` decides.
    pub fn is_grpc(&self) -> bool {
        is_grpc_content_type(&self.headers)
    }

    /// True when the `connection` field lists `upgrade` and an `upgrade` field is present.
    pub fn is_upgrade(&self) -> bool {
        self.headers.get_id(HeaderId::Upgrade).is_some() && connection_lists(&self.headers, b"upgrade")
    }
}

/// The head of a response: `:status` and the header fields.
#[derive(Clone, Default, Debug)]
pub struct ResponseHead {
    /// The header fields.
    pub headers: Headers,
    /// The version in which the response came.
    pub version: Version,
    status: u16,
}

impl ResponseHead {
    /// An empty head.
    pub fn new() -> Self {
        Self::default()
    }

    /// A head with this status and no field.
    pub fn with_status(status: u16) -> Self {
        let mut head = Self::new();
        head.set_status(status);
        head
    }

    /// Empties the head and keeps its memory.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.version = Version::default();
        self.status = 0;
    }

    /// The status code, 100 to 999; 0 when the head is empty.
    #[inline]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Sets the status code, and `:status` with it.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
        self.headers
            .set(&HeaderId::Status, itoa::Buffer::new().format(status).as_bytes());
    }

    /// Sets the status code whose digits the parser has recorded as `:status`.
    pub(crate) fn set_parsed_status(&mut self, status: u16) {
        self.status = status;
    }

    /// True when the content type says gRPC.
    pub fn is_grpc(&self) -> bool {
        is_grpc_content_type(&self.headers)
    }
}

/// The gRPC status of an answer that has none but its HTTP status ("HTTP to gRPC status code mapping" in gRPC's
/// documentation).
pub const fn grpc_status_of(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// `application/grpc`, or that followed by `+` or `;`.
fn is_grpc_content_type(headers: &Headers) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers
        .get_id(HeaderId::ContentType)
        .and_then(|value| value.strip_prefix(GRPC))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// True when a `connection` field lists `token` (RFC 9110 section 7.6.1), in whatever case.
pub fn connection_lists(headers: &Headers, token: &[u8]) -> bool {
    lists_token(headers, &HeaderId::Connection, token)
}

/// True when a comma-separated field lists `token`, in whatever case.
pub fn lists_token<N: Name + ?Sized>(headers: &Headers, name: &N, token: &[u8]) -> bool {
    headers.get_all(name).any(|value| {
        value
            .split(|&byte| byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
    })
}
