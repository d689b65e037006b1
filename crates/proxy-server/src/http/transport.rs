//! The byte streams that the connection manager can serve.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use proxy_upstream::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A downstream or upstream byte stream. Besides reading and writing it can be waited on without a buffer, so
/// that an idle connection holds none.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Ready when a read would not block, or might not.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The socket below.
    fn socket(&self) -> BorrowedFd<'_>;
}

impl Transport for TcpStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl Transport for UnixStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// A socket, downstream or upstream, with or without TLS.
#[derive(Debug)]
pub(crate) struct SocketStream(pub(crate) Stream);

impl AsyncRead for SocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Transport for SocketStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(context)
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.0.socket()
    }
}

/// Notices the end of a connection from which nothing is read, because there is no room for it.
pub(crate) struct EndWatch(Pin<Box<dyn Future<Output = ()>>>);

impl std::fmt::Debug for EndWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndWatch")
    }
}

impl EndWatch {
    pub(crate) fn new(stream: &impl Transport) -> Self {
        let socket = stream.socket().try_clone_to_owned();
        Self(Box::pin(async move {
            let ended = match socket {
                Ok(socket) => net::socket::until_closed(socket).await,
                Err(error) => Err(error),
            };
            // Without a descriptor to spare the end is seen when there is room again.
            if ended.is_err() {
                std::future::pending().await
            }
        }))
    }

    /// Ready when the connection has ended.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}
