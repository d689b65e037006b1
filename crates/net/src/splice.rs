//! Copying between two TCP connections inside the kernel, with splice(2) through a pipe.
//!
//! The bytes never enter this process, so a busy plain TCP proxy spends its time in the kernel's network stack only. A
//! pair of pipes costs four descriptors and up to twice [`SPLICE_PIPE_BYTES`] of kernel memory, so short connections
//! are better served by an ordinary copy.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::limits::SPLICE_PIPE_BYTES;

/// The direction of a chunk of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the downstream connection to the upstream one.
    Upstream,
    /// From the upstream connection to the downstream one.
    Downstream,
}

/// Why a copy ended early.
#[derive(Debug)]
pub struct Broken {
    /// Where what went wrong has its connection; [`Direction::Upstream`] is the upstream one.
    pub at: Direction,
    /// What went wrong.
    pub error: io::Error,
}

/// Copies both ways until both sides have closed their sending half; a half-close is passed on as one.
///
/// `progress` is called after each chunk with the bytes that were delivered, to count them and to restart idle timers.
/// Bytes that were read from the sockets before must have been delivered by the caller.
///
/// # Errors
/// The first error of either connection (`ConnectionReset`, ...), or of making the pipes.
pub async fn copy_bidirectional(
    downstream: &TcpStream,
    upstream: &TcpStream,
    progress: &dyn Fn(Direction, usize),
) -> Result<(), Broken> {
    let upstream_progress = |bytes| progress(Direction::Upstream, bytes);
    let downstream_progress = |bytes| progress(Direction::Downstream, bytes);
    tokio::try_join!(
        copy(
            (downstream, Direction::Downstream),
            (upstream, Direction::Upstream),
            &upstream_progress
        ),
        copy(
            (upstream, Direction::Upstream),
            (downstream, Direction::Downstream),
            &downstream_progress
        ),
    )?;
    Ok(())
}

/// Copies one way until the end of the stream, then closes the sending half of `to`.
async fn copy(
    (from, sender): (&TcpStream, Direction),
    (to, receiver): (&TcpStream, Direction),
    progress: &dyn Fn(usize),
) -> Result<(), Broken> {
    let at = |at| move |error| Broken { at, error };
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
    let (pipe_out, pipe_in) = pipe.map_err(io::Error::from).map_err(at(sender))?;
    loop {
        let mut pending = fill(from, &pipe_in).await.map_err(at(sender))?;
        if pending == 0 {
            // The peer may have reset the connection already; then there is nobody left to tell.
            let _ = SockRef::from(to).shutdown(Shutdown::Write);
            return Ok(());
        }
        while pending > 0 {
            let delivered = drain(&pipe_out, to, pending).await.map_err(at(receiver))?;
            pending -= delivered;
            progress(delivered);
        }
    }
}

/// Moves what has arrived into the pipe, which is empty; 0 means the end of the stream.
async fn fill(from: &TcpStream, pipe: &OwnedFd) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    from.async_io(Interest::READABLE, || {
        Ok(rustix::pipe::splice(
            from,
            None,
            pipe,
            None,
            SPLICE_PIPE_BYTES,
            flags,
        )?)
    })
    .await
}

/// Moves bytes from the pipe to the connection.
async fn drain(pipe: &OwnedFd, to: &TcpStream, pending: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    to.async_io(Interest::WRITABLE, || {
        match rustix::pipe::splice(pipe, None, to, None, pending, flags)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            delivered => Ok(delivered),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::PATIENCE;
    use std::cell::Cell;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_arrive_in_order_both_ways_and_half_close_is_passed_on() {
        let (mut client, downstream) = pair().await;
        let (upstream, mut server) = pair().await;
        let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let counted = Cell::new((0_usize, 0_usize));
        let progress = |direction, bytes| {
            let (up, down) = counted.get();
            counted.set(match direction {
                Direction::Upstream => (up + bytes, down),
                Direction::Downstream => (up, down + bytes),
            });
        };
        let proxy = copy_bidirectional(&downstream, &upstream, &progress);
        let client_side = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let server_side = async {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            server.write_all(b"got it").await.unwrap();
            server.shutdown().await.unwrap();
            received
        };
        let all = async { tokio::join!(proxy, client_side, server_side) };
        let (proxied, answer, received) = tokio::time::timeout(PATIENCE, all).await.expect("in time");
        proxied.unwrap();
        assert_eq!(answer, "got it");
        assert!(received == sent, "the bytes differ");
        assert_eq!(counted.get(), (sent.len(), 6));
    }

    #[tokio::test]
    async fn a_reset_ends_the_copy_with_an_error() {
        let (client, downstream) = pair().await;
        let (upstream, server) = pair().await;
        SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(client);
        let copied = copy_bidirectional(&downstream, &upstream, &|_, _| ());
        let copied = tokio::time::timeout(PATIENCE, copied).await;
        let error = copied.expect("in time").unwrap_err();
        assert_eq!(error.error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(error.at, Direction::Downstream);
        drop(server);
    }
}
