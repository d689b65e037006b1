//! Bodies on their way through the proxy: pieces as a codec gives them, and where they go.
//!
//! A source (a decoder over a read buffer, or an HTTP/2 stream) pushes pieces into a sink as long as the sink has room.
//! Nothing is queued in between, so that the flow control of one side reaches the other.

use std::ops::Deref;

use bytes::Bytes;
use proxy_http::{Headers, write_chunk_header, write_last_chunk};

use super::buffer::BufferPool;

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    /// It lies in somebody's read buffer.
    Borrowed(&'a [u8]),
    /// It can be kept without copying.
    Shared(Bytes),
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Borrowed(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

impl From<Piece<'_>> for Bytes {
    fn from(piece: Piece<'_>) -> Bytes {
        match piece {
            Piece::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Piece::Shared(bytes) => bytes,
        }
    }
}

/// Where a body goes. What is pushed is taken; whoever pushes asks for room first.
pub(crate) trait BodySink {
    /// Takes a piece that is not empty; `end` says that nothing follows, not even trailers.
    fn data(&mut self, piece: Piece<'_>, end: bool, pool: &BufferPool);

    /// Ends the body behind its last piece.
    fn finish(&mut self, trailers: Option<&Headers>, pool: &BufferPool);
}

/// What came of asking a source for more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pulled {
    /// Something was moved.
    Moved,
    /// Bytes came, and nothing of them is decoded yet.
    Read,
    /// The sender has to send more first.
    Starved,
}

/// Appends a piece as HTTP/1 frames it.
pub(crate) fn write_piece(out: &mut Vec<u8>, piece: &[u8], chunked: bool, end: bool) {
    if !chunked {
        out.extend_from_slice(piece);
        return;
    }
    write_chunk_header(out, piece.len());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
    if end {
        write_last_chunk(out, None);
    }
}
