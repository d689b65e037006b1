//! Read and write buffers that return to the worker when they are empty, so that an idle connection holds none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits;

/// Free buffers of one worker. The last one given back is the first one taken: it is still in the cache.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    /// Read blocks; their whole length is initialised.
    blocks: RefCell<Vec<Vec<u8>>>,
    /// Empty write buffers.
    writes: RefCell<Vec<Vec<u8>>>,
}

impl BufferPool {
    fn take_block(&self) -> Vec<u8> {
        self.blocks
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| vec![0; limits::READ_BLOCK_BYTES])
    }

    fn give_block(&self, block: Vec<u8>) {
        let mut blocks = self.blocks.borrow_mut();
        if block.len() == limits::READ_BLOCK_BYTES && blocks.len() < limits::FREE_BLOCKS {
            blocks.push(block);
        }
    }

    fn take_write(&self) -> Vec<u8> {
        self.writes
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(limits::READ_BLOCK_BYTES))
    }

    fn give_write(&self, mut buffer: Vec<u8>) {
        let mut writes = self.writes.borrow_mut();
        if buffer.capacity() <= limits::KEPT_WRITE_BYTES && writes.len() < limits::FREE_BLOCKS {
            buffer.clear();
            writes.push(buffer);
        }
    }
}

/// Bytes that were read and not yet used. Holds no memory when it is empty and released.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    block: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// A buffer that begins with bytes somebody else has read.
    pub(crate) fn with(bytes: &[u8], pool: &BufferPool) -> Self {
        let mut buffer = ReadBuffer::default();
        if !bytes.is_empty() {
            buffer.block = pool.take_block();
            if buffer.block.len() < bytes.len() {
                buffer.block.resize(bytes.len().next_power_of_two(), 0);
            }
            buffer.block[..bytes.len()].copy_from_slice(bytes);
            buffer.end = bytes.len();
        }
        buffer
    }

    /// The bytes that wait to be used.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    /// True when nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "only what was read can be consumed");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives the memory back when nothing waits.
    pub(crate) fn release(&mut self, pool: &BufferPool) {
        if self.is_empty() && !self.block.is_empty() {
            pool.give_block(std::mem::take(&mut self.block));
        }
    }

    /// Reads once. 0 is the end of the stream.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        pool: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        self.make_room(pool);
        let mut free = ReadBuf::new(&mut self.block[self.end..]);
        ready!(Pin::new(stream).poll_read(context, &mut free))?;
        let count = free.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    fn make_room(&mut self, pool: &BufferPool) {
        if self.block.is_empty() {
            self.block = pool.take_block();
        } else if self.end == self.block.len() {
            if self.start > 0 {
                self.block.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                // One line of a head fills the block; the parser's limit ends this.
                self.block.resize(self.block.len() * 2, 0);
            }
        }
    }
}

/// Bytes that wait to be written. Holds no memory when it is empty and released.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    bytes: Vec<u8>,
    written: usize,
    /// The stream may hold back some of what it has taken, as TLS does.
    unflushed: bool,
}

impl WriteBuffer {
    /// The buffer to append to.
    pub(crate) fn bytes(&mut self, pool: &BufferPool) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take_write();
        } else if self.written > 0 && self.written >= self.pending() {
            // Who writes slowly never sees it empty: what has gone makes room. Each byte is moved once at most.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        &mut self.bytes
    }

    /// How many bytes wait.
    pub(crate) fn pending(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// True when nothing waits, here or in the stream.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending() == 0 && !self.unflushed
    }

    /// Forgets what waits, and gives the memory back.
    pub(crate) fn clear(&mut self, pool: &BufferPool) {
        self.written = 0;
        self.unflushed = false;
        if self.bytes.capacity() > 0 {
            pool.give_write(std::mem::take(&mut self.bytes));
        }
    }

    /// Writes what waits; ready once nothing does. Gives the memory back then. `sent` counts the bytes.
    pub(crate) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        pool: &BufferPool,
        sent: &mut u64,
    ) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let count = ready!(Pin::new(&mut *stream).poll_write(context, &self.bytes[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.unflushed = true;
            *sent += count as u64;
        }
        if self.unflushed {
            ready!(Pin::new(&mut *stream).poll_flush(context))?;
        }
        self.clear(pool);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_buffer_returns_its_block_only_when_it_is_empty() {
        let pool = BufferPool::default();
        let mut buffer = ReadBuffer::with(b"abc", &pool);
        buffer.release(&pool);
        assert_eq!(buffer.unread(), b"abc");
        buffer.consume(3);
        buffer.release(&pool);
        assert_eq!((buffer.block.len(), pool.blocks.borrow().len()), (0, 1));
    }

    /// Takes a part of what is written.
    struct Slow;

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            match bytes.len() {
                0..1000 => Poll::Pending,
                length => Poll::Ready(Ok(length / 2)),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_a_slow_reader_has_taken_makes_room() {
        let pool = BufferPool::default();
        let mut buffer = WriteBuffer::default();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut sent = 0;
        for _ in 0..1000 {
            buffer.bytes(&pool).extend_from_slice(&[b'x'; 10_000]);
            assert!(
                buffer
                    .poll_flush(&mut Slow, &mut context, &pool, &mut sent)
                    .is_pending()
            );
        }
        assert!(buffer.bytes.capacity() < 100_000, "{}", buffer.bytes.capacity());
        assert_eq!(sent + buffer.pending() as u64, 10_000_000);
    }

    #[tokio::test]
    async fn a_line_longer_than_a_block_makes_the_buffer_grow() {
        let pool = BufferPool::default();
        let mut buffer = ReadBuffer::default();
        let sent = vec![b'x'; limits::READ_BLOCK_BYTES + 10];
        let mut source = &sent[..];
        while std::future::poll_fn(|context| buffer.poll_fill(&mut source, context, &pool))
            .await
            .unwrap()
            > 0
        {}
        assert_eq!(buffer.unread(), sent);
    }
}
