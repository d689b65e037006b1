//! What an HTTP/2 connection runs over. What is written is gathered until it is flushed, so that the frames of many
//! streams go out with one call, over TLS in one record; everything is metered.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::buffer::{ReadBuffer, WriteBuffer};
use super::super::limits;
use super::super::local::HttpLocal;
use super::super::transport::SocketStream;
use super::meter::Meter;

/// A socket and its buffers.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: SocketStream,
    /// What was read before anybody knew that this is HTTP/2.
    first: ReadBuffer,
    write: WriteBuffer,
    local: Rc<HttpLocal>,
    meter: Rc<Meter>,
}

impl Wire {
    pub(crate) fn new(
        stream: SocketStream,
        first: ReadBuffer,
        local: &Rc<HttpLocal>,
        meter: &Rc<Meter>,
    ) -> Self {
        Wire {
            stream,
            first,
            write: WriteBuffer::default(),
            local: Rc::clone(local),
            meter: Rc::clone(meter),
        }
    }

    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = self.meter.sent.get();
        let pool = &self.local.buffers;
        let polled = self.write.poll_flush(&mut self.stream, context, pool, &mut sent);
        self.meter.sent.set(sent);
        polled
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        } else {
            let count = this.first.unread().len().min(buffer.remaining());
            buffer.put_slice(&this.first.unread()[..count]);
            this.first.consume(count);
            this.first.release(&this.local.buffers);
        }
        this.meter.read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write.pending() >= limits::PENDING_WRITE_BYTES {
            ready!(this.poll_write_out(context))?;
        }
        this.write.bytes(&this.local.buffers).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_write_out(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_out(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}
