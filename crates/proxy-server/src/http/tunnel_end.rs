//! The two ends of a tunnel: a whole HTTP/1 connection, whose bytes are those of the tunnel from now on, or a stream of
//! HTTP/2, whose `DATA` frames carry them (RFC 9113, section 8.5).

use std::pin::Pin;
use std::task::{Context, Poll};

use h2::RecvStream;

use super::body::Piece;
use super::buffer::{BufferPool, ReadBuffer, WriteBuffer};
use super::forward::{ClientFault, Reset};
use super::http2::{FRAME_HEADER, Http2Connection, Sending, ServerConnection, fault_of, reset_of};
use super::limits;
use super::transport::Transport;

/// One end.
pub(crate) enum TunnelEnd<'a, S> {
    Connection(ConnectionEnd<'a, S>),
    Stream(StreamEnd<'a>),
    /// There is nobody.
    Gone,
}

/// A connection that speaks HTTP no more.
pub(crate) struct ConnectionEnd<'a, S> {
    pub(crate) stream: &'a mut S,
    pub(crate) read: &'a mut ReadBuffer,
    pub(crate) write: &'a mut WriteBuffer,
    /// Bytes read from it, and written to it.
    pub(crate) received: &'a mut u64,
    pub(crate) sent: &'a mut u64,
    pub(crate) ends: bool,
    pub(crate) is_shut: bool,
}

/// A stream.
pub(crate) struct StreamEnd<'a> {
    pub(crate) sending: &'a mut Sending,
    pub(crate) body: &'a mut RecvStream,
    pub(crate) received: &'a mut u64,
    pub(crate) sent: &'a mut u64,
    pub(crate) connection: StreamOf<'a>,
    /// How the peer has given it up.
    pub(crate) failure: Option<Failure>,
}

/// Whose stream it is.
pub(crate) enum StreamOf<'a> {
    Client(&'a ServerConnection),
    Host(&'a Http2Connection),
}

impl StreamOf<'_> {
    /// A piece goes out.
    fn count_data(&self) {
        match self {
            StreamOf::Client(connection) => connection.count_data(),
            StreamOf::Host(connection) => connection.count_data(),
        }
    }
}

/// How a stream has ended before its time.
pub(crate) enum Failure {
    Reset,
    Error(h2::Error),
}

/// What came of an end.
pub(crate) enum Taken {
    Bytes(usize),
    /// It has closed its side.
    End,
}

/// An end that takes and gives nothing more.
#[derive(Debug)]
pub(crate) struct Broken;

impl<S: Transport> TunnelEnd<'_, S> {
    /// Moves the next piece that came here into the other end, which has room.
    pub(crate) fn poll_take<T: Transport>(
        &mut self,
        to: &mut TunnelEnd<'_, T>,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Poll<Result<Taken, Broken>> {
        match self {
            TunnelEnd::Connection(end) => end.poll_take(to, pool, context),
            TunnelEnd::Stream(end) => end.poll_take(to, pool, context),
            TunnelEnd::Gone => Poll::Ready(Err(Broken)),
        }
    }

    /// Whether more may be put here now; who gets no for an answer is woken when that changes.
    pub(crate) fn has_room(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            TunnelEnd::Connection(end) => end.write.pending() < limits::PENDING_WRITE_BYTES,
            TunnelEnd::Stream(end) => end.sending.has_room(context),
            TunnelEnd::Gone => true,
        }
    }

    fn put(&mut self, piece: Piece<'_>, pool: &BufferPool) {
        match self {
            TunnelEnd::Connection(end) => end.write.bytes(pool).extend_from_slice(&piece),
            TunnelEnd::Stream(end) => {
                *end.sent += end.sending.data(piece, false);
                end.connection.count_data();
            }
            TunnelEnd::Gone => {}
        }
    }

    /// Nothing more will be put here.
    pub(crate) fn end(&mut self, _: &BufferPool) {
        match self {
            TunnelEnd::Connection(end) => end.ends = true,
            TunnelEnd::Stream(end) => {
                *end.sent += end.sending.finish(None);
                end.connection.count_data();
            }
            TunnelEnd::Gone => {}
        }
    }

    /// Writes out what was put here, and its end; ready once nothing waits.
    pub(crate) fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        pool: &BufferPool,
    ) -> Poll<Result<(), Broken>> {
        match self {
            TunnelEnd::Connection(end) => end.poll_flush(context, pool),
            TunnelEnd::Stream(end) => end.poll_flush(context),
            TunnelEnd::Gone => Poll::Ready(Err(Broken)),
        }
    }

    /// What the client has done, where this is its end and it broke.
    pub(crate) fn client_fault(&self) -> ClientFault {
        match self.failure() {
            Some(Failure::Error(error)) => fault_of(error),
            Some(Failure::Reset) => ClientFault::Reset,
            None => ClientFault::Closed,
        }
    }

    /// What the upstream has done, where this is its end and it broke.
    pub(crate) fn reset(&self) -> Reset {
        match self.failure() {
            Some(Failure::Error(error)) => reset_of(error),
            Some(Failure::Reset) => Reset::Remote,
            None => Reset::Terminated,
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            TunnelEnd::Stream(end) => end.failure.as_ref(),
            TunnelEnd::Connection(_) | TunnelEnd::Gone => None,
        }
    }
}

impl<S: Transport> ConnectionEnd<'_, S> {
    fn poll_take<T: Transport>(
        &mut self,
        to: &mut TunnelEnd<'_, T>,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Poll<Result<Taken, Broken>> {
        if self.read.is_empty() {
            self.read.release(pool);
            if self.stream.poll_readable(context).is_pending() {
                return Poll::Pending;
            }
            match self.read.poll_fill(self.stream, context, pool) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Taken::End)),
                Poll::Ready(Ok(count)) => *self.received += count as u64,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken)),
                Poll::Pending => {
                    self.read.release(pool);
                    return Poll::Pending;
                }
            }
        }
        let count = self.read.unread().len();
        to.put(Piece::Borrowed(self.read.unread()), pool);
        self.read.consume(count);
        self.read.release(pool);
        Poll::Ready(Ok(Taken::Bytes(count)))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>, pool: &BufferPool) -> Poll<Result<(), Broken>> {
        let flushed = self.write.poll_flush(self.stream, context, pool, self.sent);
        std::task::ready!(flushed).map_err(|_| Broken)?;
        if self.ends && !self.is_shut {
            // Who has gone altogether cannot be told, which is no failure of the other direction.
            let _ = std::task::ready!(Pin::new(&mut *self.stream).poll_shutdown(context));
            self.is_shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl StreamEnd<'_> {
    fn poll_take<T: Transport>(
        &mut self,
        to: &mut TunnelEnd<'_, T>,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Poll<Result<Taken, Broken>> {
        match self.body.poll_data(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Ok(Taken::End)),
            Poll::Ready(Some(Err(error))) => {
                self.failure = Some(Failure::Error(error));
                Poll::Ready(Err(Broken))
            }
            Poll::Ready(Some(Ok(bytes))) => {
                let count = bytes.len();
                *self.received += count as u64 + FRAME_HEADER;
                // The other end has had room for it, so that as much may come again.
                let _ = self.body.flow_control().release_capacity(count);
                if count > 0 {
                    to.put(Piece::Shared(bytes), pool);
                }
                Poll::Ready(Ok(Taken::Bytes(count)))
            }
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        // A reset is noticed even if this end has said everything.
        if let Poll::Ready(gone) = self.sending.poll_reset(context) {
            self.failure = Some(gone.map_or_else(Failure::Error, |_| Failure::Reset));
            return Poll::Ready(Err(Broken));
        }
        if !self.sending.has_room(context) {
            return Poll::Pending;
        }
        match self.sending.is_broken() {
            true => Poll::Ready(Err(Broken)),
            false => Poll::Ready(Ok(())),
        }
    }
}
