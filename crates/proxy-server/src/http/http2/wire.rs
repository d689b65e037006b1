//! What an HTTP/2 connection runs over. What is written is gathered until the connection's task has nothing more to say,
//! so that the frames of many streams go out with one call, over TLS in one record; everything is metered.

use std::cell::RefCell;
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

/// A socket and its buffers, as `h2` has it.
#[derive(Debug)]
pub(crate) struct Wire(Rc<RefCell<Inner>>);

/// The same, as the task has it that drives the connection.
///
/// `h2` flushes after every frame of a kilobyte. From the moment that somebody has this, flushing is left to them.
#[derive(Debug)]
pub(crate) struct Outlet(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    stream: SocketStream,
    /// What was read before anybody knew that this is HTTP/2.
    first: ReadBuffer,
    write: WriteBuffer,
    /// Flushing is left to an [`Outlet`].
    gathers: bool,
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
        Wire(Rc::new(RefCell::new(Inner {
            stream,
            first,
            write: WriteBuffer::default(),
            gathers: false,
            local: Rc::clone(local),
            meter: Rc::clone(meter),
        })))
    }

    /// For the task that will drive the connection, once it does.
    pub(crate) fn outlet(&self) -> Outlet {
        Outlet(Rc::clone(&self.0))
    }
}

impl Outlet {
    /// From now on what is written waits for [`poll_flush`](Self::poll_flush), unless it becomes too much.
    pub(crate) fn take_over(&self) {
        self.0.borrow_mut().gathers = true;
    }

    /// Writes out what waits. Called whenever the connection has been polled; the task is woken to go on.
    pub(crate) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        match inner.write.is_empty() {
            true => Poll::Ready(Ok(())),
            false => inner.poll_write_out(context),
        }
    }
}

impl Inner {
    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = self.meter.sent.get();
        let pool = &self.local.buffers;
        let polled = self.write.poll_flush(&mut self.stream, context, pool, &mut sent);
        self.meter.sent.set(sent);
        polled
    }

    fn is_full(&self) -> bool {
        self.write.pending() >= limits::PENDING_WRITE_BYTES
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self.get_mut().0.borrow_mut();
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
        let this = &mut *self.get_mut().0.borrow_mut();
        if this.is_full() {
            ready!(this.poll_write_out(context))?;
        }
        this.write.bytes(&this.local.buffers).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.get_mut().0.borrow_mut();
        match this.gathers && !this.is_full() {
            true => Poll::Ready(Ok(())),
            false => this.poll_write_out(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.get_mut().0.borrow_mut();
        ready!(this.poll_write_out(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}
