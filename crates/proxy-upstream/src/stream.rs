//! Connections as streams of bytes, on both sides of the proxy: sockets, and TLS over them.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tls::{ClientContext, ConnectOptions, ConnectionInfo, HandshakeFailure, ServerContext};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    Unix(UnixStream),
    /// TLS over one of the others. Boxed: its state is much larger than theirs.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Ready when a read would not block, or might not. Waits without a buffer, so that an idle connection needs none.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
            Self::Tls(stream) => stream.poll_readable(context),
        }
    }

    /// The socket that it runs over.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.stream.io().stream.socket(),
        }
    }

    /// What the TLS handshake told.
    #[must_use]
    pub fn tls(&self) -> Option<&Rc<ConnectionInfo>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(stream) => Some(&stream.info),
        }
    }

    /// Our end of a connection over TCP.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
            Self::Tls(stream) => stream.stream.io().stream.local_addr(),
        }
    }

    /// Makes the connection end with a reset instead of an orderly end, when it is dropped.
    pub fn reset_on_drop(&self) {
        match self {
            Self::Tcp(stream) => {
                // A connection that is gone already needs none.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            Self::Unix(_) => {}
            Self::Tls(stream) => stream.stream.io().stream.reset_on_drop(),
        }
    }

    /// Does a server's handshake. `first` was read from the connection before.
    ///
    /// # Errors
    /// Why it failed; the connection is closed then.
    pub async fn accept_tls(self, context: &ServerContext, first: &[u8]) -> Result<Self, HandshakeFailure> {
        let below = Below::new(self, first);
        let (stream, info) = context.accept(below).await?;
        Ok(Self::Tls(TlsStream::new(stream.into(), info)))
    }

    /// Does a client's handshake.
    ///
    /// # Errors
    /// Why it failed; the connection is closed then.
    pub async fn connect_tls(
        self,
        context: &ClientContext,
        options: ConnectOptions<'_>,
    ) -> Result<Self, HandshakeFailure> {
        let below = Below::new(self, &[]);
        let (stream, info) = context.connect(below, options).await?;
        Ok(Self::Tls(TlsStream::new(stream.into(), info)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut stream.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut stream.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(&mut stream.stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut stream.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut stream.stream).poll_shutdown(context),
        }
    }
}

/// A TLS connection after its handshake.
#[derive(Debug)]
pub struct TlsStream {
    stream: tls::Stream<Below>,
    info: Rc<ConnectionInfo>,
}

impl TlsStream {
    fn new(stream: tls::Stream<Below>, info: ConnectionInfo) -> Box<Self> {
        let info = Rc::new(info);
        Box::new(Self { stream, info })
    }

    /// What TLS holds back would not make the socket readable, so it is looked at first.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let below = self.stream.io();
        if self.stream.has_unread() || !below.first.is_empty() {
            return Poll::Ready(Ok(()));
        }
        below.stream.poll_readable(context)
    }
}

impl Drop for TlsStream {
    /// Announces the end, as Envoy does whenever it closes a connection: not if the socket takes nothing more.
    fn drop(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut context);
    }
}

/// What TLS runs over: a connection whose first bytes somebody else has read.
#[derive(Debug)]
struct Below {
    first: Vec<u8>,
    stream: Stream,
}

impl Below {
    fn new(stream: Stream, first: &[u8]) -> Self {
        let first = first.to_vec();
        Self { first, stream }
    }
}

impl AsyncRead for Below {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let count = this.first.len().min(buffer.remaining());
        buffer.put_slice(&this.first[..count]);
        // Usually all at once, and then its memory is free.
        this.first = this.first.split_off(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Below {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    /// TLS hands over the records of a whole flight at once: they leave with one call.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        records: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, records)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
