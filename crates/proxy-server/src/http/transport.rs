//! The byte streams that the connection manager can serve.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A downstream or upstream byte stream. Besides reading and writing it can be waited on without a buffer, so
/// that an idle connection holds none.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Ready when a read would not block, or might not.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Transport for TcpStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }
}

impl Transport for UnixStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }
}

/// A socket, downstream or upstream.
#[derive(Debug)]
pub(crate) struct SocketStream(pub(crate) proxy_upstream::Stream);

impl AsyncRead for SocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            proxy_upstream::Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            proxy_upstream::Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            proxy_upstream::Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            proxy_upstream::Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            proxy_upstream::Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            proxy_upstream::Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl Transport for SocketStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            proxy_upstream::Stream::Tcp(stream) => stream.poll_read_ready(context),
            proxy_upstream::Stream::Unix(stream) => stream.poll_read_ready(context),
        }
    }
}
