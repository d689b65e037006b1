//! HTTP messages for the data plane: the [`Headers`] type that every filter sees, and our own HTTP/1 codec.
//!
//! The codec is strict (RFC 9112 without its permissions to be lenient) and does no I/O: heads are parsed from
//! bytes that the caller has read, bodies are decoded piece by piece, and what is to be sent is appended to a
//! buffer. The connection loop lives in `proxy-server`.

mod body;
mod chunked;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod framing;
mod head;
mod header_id;
mod headers;
pub mod limits;
mod parse;
mod request;
mod response;
mod serialize;
mod syntax;

pub use body::BodyDecoder;
pub use chunked::{BodyStep, ChunkedDecoder};
pub use error::ParseError;
pub use framing::{BodyFraming, request_framing, response_framing};
pub use head::{RequestHead, ResponseHead, Version, connection_lists, grpc_status_of, lists_token};
pub use header_id::HeaderId;
pub use headers::{HeaderName, Headers, Name};
pub use parse::{HeadLimits, HeadParser, Parsed};
pub use serialize::{
    reason_phrase, write_chunk_header, write_last_chunk, write_request_head, write_response_head,
};
pub use syntax::is_token;
