//! A connection whose other side has to begin to speak HTTP/2 in time: the server's own timers begin with its preface.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::limits::PREFACE_TIMEOUT;

/// How long the client's connection preface is, in bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// Ends with an error when the preface has not come within [`PREFACE_TIMEOUT`].
pub(super) struct FirstBytes<S> {
    stream: S,
    awaited: Option<Awaited>,
}

struct Awaited {
    bytes: usize,
    until: Pin<Box<Sleep>>,
}

impl<S> FirstBytes<S> {
    /// The time begins now.
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            awaited: Some(Awaited {
                bytes: PREFACE_BYTES,
                until: Box::pin(tokio::time::sleep(PREFACE_TIMEOUT)),
            }),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(awaited) = &mut this.awaited else {
            return read;
        };
        match read {
            Poll::Ready(read) => {
                awaited.bytes = awaited.bytes.saturating_sub(buffer.filled().len() - before);
                if awaited.bytes == 0 {
                    this.awaited = None;
                }
                Poll::Ready(read)
            }
            Poll::Pending => {
                ready!(awaited.until.as_mut().poll(context));
                let why = format!("no HTTP/2 preface has come within {PREFACE_TIMEOUT:?}");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_half_of_it_is_not_waited_for() {
        for said in [0, PREFACE_BYTES - 1] {
            let (near, mut far) = tokio::io::duplex(64);
            let mut stream = FirstBytes::new(near);
            far.write_all(&vec![b'P'; said]).await.unwrap();
            let mut heard = Vec::new();
            let error = stream.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!((error.kind(), heard.len()), (io::ErrorKind::TimedOut, said));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_begun_may_take_its_time() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = FirstBytes::new(near);
        far.write_all(&[b'P'; PREFACE_BYTES]).await.unwrap();
        let mut heard = [0; PREFACE_BYTES];
        stream.read_exact(&mut heard).await.unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(PREFACE_TIMEOUT * 10).await;
            far.write_all(b"x").await.unwrap();
        });
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    }
}
