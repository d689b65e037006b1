//! A TLS connection after its handshake, whichever side it is of, as a stream of bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, ReadBuf};

use crate::client::ClientStream;
use crate::server::ServerStream;

/// A TLS connection over `IO`.
///
/// Its end is an end of the stream whether the peer announced it (`close_notify`) or not, as in Envoy: protocols that
/// care say how long their messages are. Shutting it down announces the end and closes the sending half of `IO`;
/// reading goes on.
#[derive(Debug)]
pub struct Stream<IO>(tokio_rustls::TlsStream<IO>);

impl<IO> Stream<IO> {
    /// The stream below.
    pub fn io(&self) -> &IO {
        self.0.get_ref().0
    }

    /// Whether a read brings something without reading from the stream below: plaintext, or the end that the peer
    /// announced. Where this is false, and only there, waiting for the stream below is waiting for this one.
    pub fn has_unread(&self) -> bool {
        !self.0.get_ref().1.wants_read()
    }
}

impl<IO> From<ServerStream<IO>> for Stream<IO> {
    fn from(stream: ServerStream<IO>) -> Self {
        Self(stream.into())
    }
}

impl<IO> From<ClientStream<IO>> for Stream<IO> {
    fn from(stream: ClientStream<IO>) -> Self {
        Self(stream.into())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<IO> {
    /// Reads the content of one record at most: a failure behind it is then met by the next read, and by nobody who
    /// waits.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let content = match ready!(Pin::new(&mut self.0).poll_fill_buf(context)) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
            Err(error) => return Poll::Ready(Err(error)),
        };
        let count = content.len().min(buffer.remaining());
        buffer.put_slice(&content[..count]);
        Pin::new(&mut self.0).consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
