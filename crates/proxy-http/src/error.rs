//! Why bytes are not HTTP/1 (RFC 9112), and what is answered.

/// A breach of the protocol. The connection must be closed after it: what follows cannot be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// The method is not a token, or not one we know.
    #[error("invalid method")]
    Method,
    /// The request target has characters or a form that are not allowed.
    #[error("invalid request target")]
    Target,
    /// The version is not HTTP/1.0 or HTTP/1.1.
    #[error("invalid protocol version")]
    Version,
    /// The status line is malformed.
    #[error("invalid status line")]
    StatusLine,
    /// A line ends in a bare LF, or a CR stands alone.
    #[error("line not ended by CRLF")]
    LineEnd,
    /// A field name is empty, has characters that are not allowed, or is followed by white space.
    #[error("invalid header name")]
    HeaderName,
    /// A field value has control characters.
    #[error("invalid header value")]
    HeaderValue,
    /// A line begins with white space (obs-fold, RFC 9112 section 5.2).
    #[error("line folding is not allowed")]
    LineFolding,
    /// The head is larger than the limit.
    #[error("head larger than the limit")]
    HeadTooLarge,
    /// The head has more fields than the limit.
    #[error("more header fields than the limit")]
    TooManyHeaders,
    /// `content-length` is not one plain number.
    #[error("invalid content-length")]
    ContentLength,
    /// There is more than one `content-length`.
    #[error("more than one content-length")]
    DuplicateContentLength,
    /// Both `content-length` and `transfer-encoding` are present.
    #[error("content-length together with transfer-encoding")]
    ConflictingLengths,
    /// The transfer coding is not exactly `chunked`.
    #[error("unsupported transfer-encoding")]
    TransferEncoding,
    /// A transfer coding where none may be: HTTP/1.0, CONNECT, 1xx and 204.
    #[error("transfer-encoding is not allowed here")]
    TransferEncodingNotAllowed,
    /// More than one `host`, or a `host` with characters that are not allowed.
    #[error("invalid host")]
    Host,
    /// A chunk size is not a plain hexadecimal number of at most sixteen digits.
    #[error("invalid chunk size")]
    ChunkSize,
    /// A chunk extension is malformed or too long.
    #[error("invalid chunk extension")]
    ChunkExtension,
    /// Chunk data is not followed by CRLF.
    #[error("chunk data not ended by CRLF")]
    ChunkEnd,
    /// The connection ended inside a message.
    #[error("connection ended inside a message")]
    UnexpectedEnd,
}

impl ParseError {
    /// The status that Envoy answers to a request with this fault.
    pub const fn status(self) -> u16 {
        match self {
            ParseError::HeadTooLarge | ParseError::TooManyHeaders => 431,
            ParseError::TransferEncoding => 501,
            _ => 400,
        }
    }

    /// Envoy's response code details for this fault (`Http1ResponseCodeDetailValues`).
    pub const fn details(self) -> &'static str {
        match self {
            ParseError::HeadTooLarge => "http1.headers_too_large",
            ParseError::TooManyHeaders => "http1.too_many_headers",
            ParseError::TransferEncoding => "http1.invalid_transfer_encoding",
            ParseError::TransferEncodingNotAllowed => "http1.transfer_encoding_not_allowed",
            ParseError::ConflictingLengths => "http1.content_length_and_chunked_not_allowed",
            ParseError::HeaderValue => "http1.invalid_characters",
            ParseError::Target => "http1.invalid_url",
            _ => "http1.codec_error",
        }
    }
}
