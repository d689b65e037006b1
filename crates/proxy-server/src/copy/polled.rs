//! Copying between connections of which one at least is more than a socket: TLS keeps state for both directions in one
//! place, so one task drives both.
//!
//! An idle connection holds no buffer here either: bytes go through the thread's buffer, and what cannot be written at
//! once is kept until it can. The end of one direction is passed on at once, as `close_notify` where there is TLS; the
//! other goes on.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use proxy_upstream::Stream;
use proxy_upstream::metadata_exchange::{PeerFrame, Taken};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{Broken, Framed, Progress, SCRATCH, Side};
use crate::limits;

/// One direction.
struct Direction {
    from: Side,
    /// The sender's frame, until it has come.
    frame: Option<PeerFrame>,
    /// What was read and is not written yet.
    held: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// The receiver has taken bytes and may hold some of them back.
    unflushed: bool,
    /// The sender has ended.
    ended: bool,
    /// And the receiver knows.
    done: bool,
}

/// Copies both ways until both sides have closed their sending half; `read` was read from downstream before.
///
/// # Errors
/// The first error of either connection.
pub(super) async fn both_ways(
    downstream: &mut Stream,
    upstream: &mut Stream,
    (read, framed): (&[u8], Framed),
    progress: Progress<'_>,
) -> Result<(), Broken> {
    let mut up = Direction::new(Side::Downstream, read, framed.downstream);
    let mut down = Direction::new(Side::Upstream, &[], framed.upstream);
    poll_fn(|context| {
        let first = up.poll(downstream, upstream, progress, context)?;
        let second = down.poll(upstream, downstream, progress, context)?;
        match (first, second) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await
}

impl Direction {
    fn new(from: Side, held: &[u8], framed: bool) -> Self {
        Self {
            from,
            frame: framed.then(PeerFrame::default),
            held: held.to_vec(),
            written: 0,
            unflushed: false,
            ended: false,
            done: false,
        }
    }

    /// Moves what can be moved.
    fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        progress: Progress<'_>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let (sender, receiver) = (self.from, self.from.other());
        // A sender that never pauses must let the other direction, and other connections, have their turn.
        for _ in 0..limits::COPIES_PER_TURN {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_write_held(to, progress, context)).map_err(Broken::at(receiver))?;
            if self.ended {
                // The receiver may have gone already; then there is nobody left to tell.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(context));
                self.done = true;
                continue;
            }
            // What the receiver holds back goes out before the sender is waited for.
            if self.unflushed {
                ready!(Pin::new(&mut *to).poll_flush(context)).map_err(Broken::at(receiver))?;
                self.unflushed = false;
            }
            ready!(from.poll_readable(context)).map_err(Broken::at(sender))?;
            ready!(self.poll_move(from, to, progress, context))?;
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads into the thread's buffer and writes at once; what is not taken is kept.
    fn poll_move(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        progress: Progress<'_>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let (sender, receiver) = (self.from, self.from.other());
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(limits::COPY_BUFFER_BYTES, 0);
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(context, &mut buffer)).map_err(Broken::at(sender))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            let behind_frame;
            let bytes = match self.frame.as_mut().map(|frame| frame.push(bytes)) {
                None => bytes,
                Some(Taken::NeedMore) => return Poll::Ready(Ok(())),
                Some(Taken::TooLong) => {
                    let error = io::ErrorKind::InvalidData.into();
                    return Poll::Ready(Err(Broken::at(sender)(error)));
                }
                Some(Taken::Rest(rest)) => {
                    self.frame = None;
                    behind_frame = rest;
                    &behind_frame
                }
            };
            if bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = match Pin::new(to).poll_write(context, bytes) {
                Poll::Ready(taken) => taken.map_err(Broken::at(receiver))?,
                Poll::Pending => 0,
            };
            self.took(taken, progress);
            self.held.extend_from_slice(&bytes[taken..]);
            Poll::Ready(Ok(()))
        })
    }

    fn poll_write_held(
        &mut self,
        to: &mut Stream,
        progress: Progress<'_>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let taken = ready!(Pin::new(&mut *to).poll_write(context, &self.held[self.written..]))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += taken;
            self.took(taken, progress);
        }
        if self.written > 0 {
            self.written = 0;
            self.held = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn took(&mut self, bytes: usize, progress: Progress<'_>) {
        if bytes > 0 {
            self.unflushed = true;
            progress(self.from, bytes);
        }
    }
}

#[cfg(test)]
mod tests;
