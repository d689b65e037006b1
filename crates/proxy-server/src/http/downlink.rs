//! The client's side of an exchange, whichever version of HTTP it speaks.

use std::task::{Context, Poll};
use std::time::Duration;

use proxy_http::{Headers, ResponseHead, Version, write_last_chunk, write_response_head};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::{BodySink, Piece, Pulled, write_piece};
use super::buffer::{BufferPool, ReadBuffer, WriteBuffer};
use super::forward::ClientFault;
use super::limits;
use super::transport::{EndWatch, Transport};
use super::tunnel_end::{ConnectionEnd, TunnelEnd};
use super::uplink::Uplink;
use super::upload::Upload;

/// How the end of a response body of unknown length is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delimiter {
    /// By the protocol's own frames.
    Frames,
    /// By the last chunk.
    Chunks,
    /// By the end of the connection.
    Close,
}

/// What the codecs towards clients have in common. Output is appended and goes out with [`poll_flush`](Self::poll_flush).
pub(crate) trait Downlink: BodySink {
    /// What an HTTP/1 connection runs over.
    type Stream: Transport;

    /// Other requests share the connection: it does not end with this one, whatever becomes of it.
    const MULTIPLEXED: bool;

    /// What carries the request, as the end of a tunnel.
    fn tunnel_end(&mut self) -> TunnelEnd<'_, Self::Stream>;

    /// Appends `100 Continue`.
    fn write_continue(&mut self, pool: &BufferPool);

    /// Appends an informational response.
    fn write_interim(&mut self, head: &ResponseHead, pool: &BufferPool);

    /// Appends the head of the response, and gives the bytes of its fields. `end`: there is no body. `chunked`: the
    /// body goes out in chunks, where the protocol knows them.
    fn write_head(&mut self, head: &ResponseHead, end: bool, chunked: bool, pool: &BufferPool) -> usize;

    /// How a body of unknown length is delimited for a client that has asked in this version.
    fn delimiter(version: Version) -> Delimiter;

    /// Whether more of the body may be appended now; who gets no for an answer is woken when that changes.
    fn has_room(&mut self, context: &mut Context<'_>) -> bool;

    /// Whether something waits to be flushed.
    fn has_output(&self) -> bool;

    /// Writes out what waits; ready once nothing does. An error: the client is gone.
    fn poll_flush(&mut self, context: &mut Context<'_>, pool: &BufferPool) -> Poll<Result<(), ClientFault>>;

    /// Moves a piece of the request body on.
    fn pull(
        &mut self,
        upload: &mut Upload,
        sink: &mut Uplink,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Result<Pulled, ClientFault>;

    /// Reads over what has come of a body that nobody wants.
    fn discard(&mut self, upload: &mut Upload);

    /// Notices that the client has gone, or has given the request up.
    fn watch(&mut self, pool: &BufferPool, context: &mut Context<'_>) -> Result<(), ClientFault>;

    /// Bytes that came and were used, and bytes sent, since this began to count.
    fn moved(&self) -> (u64, u64);

    /// An exchange has ended; `answered` says whether a head of a response went out.
    fn note_end(&mut self, answered: bool, elapsed: Duration);

    /// Asks for the end of the connection when the requests on it are done, where [`MULTIPLEXED`](Self::MULTIPLEXED).
    fn drain(&mut self);
}

/// An HTTP/1 connection to a client.
#[derive(Debug)]
pub(crate) struct Http1Downlink<S> {
    pub(crate) stream: S,
    pub(crate) read: ReadBuffer,
    pub(crate) write: WriteBuffer,
    /// Bytes since the connection began.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Trailers are passed on, both ways.
    pub(crate) enable_trailers: bool,
    /// The present response goes out in chunks.
    pub(crate) chunked: bool,
    /// While there is no room for what the client sends.
    end: Option<EndWatch>,
}

impl<S> Http1Downlink<S> {
    /// A connection on which these bytes have come already.
    pub(crate) fn new(stream: S, read: ReadBuffer, enable_trailers: bool) -> Self {
        Http1Downlink {
            stream,
            received: read.unread().len() as u64,
            sent: 0,
            read,
            write: WriteBuffer::default(),
            enable_trailers,
            chunked: false,
            end: None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> BodySink for Http1Downlink<S> {
    fn data(&mut self, piece: Piece<'_>, end: bool, pool: &BufferPool) {
        write_piece(self.write.bytes(pool), &piece, self.chunked, end);
    }

    fn finish(&mut self, trailers: Option<&Headers>, pool: &BufferPool) {
        if self.chunked {
            let trailers = trailers.filter(|_| self.enable_trailers);
            write_last_chunk(self.write.bytes(pool), trailers);
        }
    }
}

impl<S: Transport> Downlink for Http1Downlink<S> {
    type Stream = S;

    const MULTIPLEXED: bool = false;

    fn tunnel_end(&mut self) -> TunnelEnd<'_, S> {
        TunnelEnd::Connection(ConnectionEnd {
            stream: &mut self.stream,
            read: &mut self.read,
            write: &mut self.write,
            received: &mut self.received,
            sent: &mut self.sent,
            ends: false,
            is_shut: false,
        })
    }

    fn write_continue(&mut self, pool: &BufferPool) {
        self.write
            .bytes(pool)
            .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    fn write_interim(&mut self, head: &ResponseHead, pool: &BufferPool) {
        write_response_head(self.write.bytes(pool), head);
    }

    fn write_head(&mut self, head: &ResponseHead, _: bool, chunked: bool, pool: &BufferPool) -> usize {
        self.chunked = chunked;
        write_response_head(self.write.bytes(pool), head)
    }

    fn delimiter(version: Version) -> Delimiter {
        // HTTP/1.0 knows no chunks: the end of the connection ends the body.
        match version {
            Version::Http10 => Delimiter::Close,
            _ => Delimiter::Chunks,
        }
    }

    fn has_room(&mut self, _: &mut Context<'_>) -> bool {
        self.write.pending() < limits::PENDING_WRITE_BYTES
    }

    fn has_output(&self) -> bool {
        !self.write.is_empty()
    }

    fn poll_flush(&mut self, context: &mut Context<'_>, pool: &BufferPool) -> Poll<Result<(), ClientFault>> {
        self.write
            .poll_flush(&mut self.stream, context, pool, &mut self.sent)
            .map_err(|_| ClientFault::Closed)
    }

    fn pull(
        &mut self,
        upload: &mut Upload,
        sink: &mut Uplink,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Result<Pulled, ClientFault> {
        let (consumed, advanced) = upload
            .advance(self.read.unread(), self.enable_trailers, sink, pool)
            .map_err(ClientFault::Protocol)?;
        self.read.consume(consumed);
        if advanced {
            return Ok(Pulled::Moved);
        }
        match self.read.poll_fill(&mut self.stream, context, pool) {
            Poll::Ready(Ok(0) | Err(_)) => Err(ClientFault::Closed),
            Poll::Ready(Ok(count)) => {
                self.received += count as u64;
                Ok(Pulled::Read)
            }
            Poll::Pending => {
                self.read.release(pool);
                Ok(Pulled::Starved)
            }
        }
    }

    fn discard(&mut self, upload: &mut Upload) {
        while !upload.is_complete() {
            match upload.discard(self.read.unread()) {
                Ok(consumed) if consumed > 0 => self.read.consume(consumed),
                Ok(_) | Err(_) => break,
            }
        }
        upload.note_completion();
    }

    /// Bytes that the client sends ahead are kept, up to a limit, for the next request.
    fn watch(&mut self, pool: &BufferPool, context: &mut Context<'_>) -> Result<(), ClientFault> {
        loop {
            if self.read.unread().len() >= limits::PIPELINED_BYTES {
                let end = self.end.get_or_insert_with(|| EndWatch::new(&self.stream));
                return match end.poll(context) {
                    Poll::Ready(()) => Err(ClientFault::Closed),
                    Poll::Pending => Ok(()),
                };
            }
            self.end = None;
            self.read.release(pool);
            if self.stream.poll_readable(context).is_pending() {
                return Ok(());
            }
            match self.read.poll_fill(&mut self.stream, context, pool) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(ClientFault::Closed),
                Poll::Ready(Ok(count)) => self.received += count as u64,
                Poll::Pending => {
                    self.read.release(pool);
                    return Ok(());
                }
            }
        }
    }

    fn moved(&self) -> (u64, u64) {
        (self.received - self.read.unread().len() as u64, self.sent)
    }

    fn note_end(&mut self, _: bool, _: Duration) {}

    fn drain(&mut self) {}
}
