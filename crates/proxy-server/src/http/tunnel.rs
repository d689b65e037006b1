//! Tunnels: what an upgraded connection, or one that CONNECT has asked for, becomes once the upstream agrees. Bytes go
//! both ways as they come; nothing that the client sent before that answer has been passed on. Each side may end its
//! direction while the other goes on.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::attempt::Answer;
use super::buffer::BufferPool;
use super::downlink::Downlink;
use super::exchange::Exchange;
use super::forward::PhaseEnd;
use super::routing::Routed;
use super::timer::{Due, earlier};
use super::transport::Transport;
use super::tunnel_end::{Taken, TunnelEnd};

/// What a request asks its connection, or its stream, to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tunnel {
    /// Another protocol (RFC 9110, section 7.8; over HTTP/2 RFC 8441), in HTTP/1's words.
    Upgrade,
    /// A tunnel to somebody else (RFC 9110, section 9.3.6).
    Connect,
}

impl Tunnel {
    /// Whether an answer of this status opens it.
    pub(crate) fn is_opened_by(self, status: u16) -> bool {
        match self {
            Tunnel::Upgrade => status == 101,
            Tunnel::Connect => status == 200,
        }
    }
}

/// One direction of a tunnel.
#[derive(Default)]
struct Direction {
    /// Bytes moved.
    moved: u64,
    /// The sender has closed its side.
    ended: bool,
    /// And the receiver has been told.
    closed: bool,
}

impl Direction {
    /// As [`poll`](Self::poll), unless it is closed.
    fn poll_open<S: Transport, T: Transport>(
        &mut self,
        from: &mut TunnelEnd<'_, S>,
        to: &mut TunnelEnd<'_, T>,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Result<bool, BrokenEnd> {
        match self.closed {
            true => Ok(false),
            false => self.poll(from, to, pool, context),
        }
    }

    /// Moves what can be moved; says whether anything did.
    fn poll<S: Transport, T: Transport>(
        &mut self,
        from: &mut TunnelEnd<'_, S>,
        to: &mut TunnelEnd<'_, T>,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Result<bool, BrokenEnd> {
        let mut any = false;
        loop {
            let mut starved = self.ended;
            while !starved && to.has_room(context) {
                match from.poll_take(to, pool, context) {
                    Poll::Ready(Ok(Taken::Bytes(count))) => {
                        self.moved += count as u64;
                        any = true;
                    }
                    Poll::Ready(Ok(Taken::End)) => {
                        self.ended = true;
                        to.end(pool);
                        starved = true;
                    }
                    Poll::Ready(Err(_)) => return Err(BrokenEnd::Sender),
                    Poll::Pending => starved = true,
                }
            }
            match to.poll_flush(context, pool) {
                Poll::Ready(Err(_)) => return Err(BrokenEnd::Receiver),
                Poll::Ready(Ok(())) if starved => {
                    self.closed = self.ended;
                    return Ok(any);
                }
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Ok(any),
            }
        }
    }
}

/// How a tunnel has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TunnelOver {
    /// As exchanges end.
    Phase(PhaseEnd),
    /// Its filter chain drains, and it would not end of itself.
    Drained,
}

impl TunnelOver {
    /// The same as the end of an exchange.
    pub(crate) fn phase_end(self) -> PhaseEnd {
        match self {
            Self::Phase(end) => end,
            Self::Drained => PhaseEnd::Done,
        }
    }
}

impl From<PhaseEnd> for TunnelOver {
    fn from(end: PhaseEnd) -> Self {
        Self::Phase(end)
    }
}

/// Which end of a direction broke.
enum BrokenEnd {
    Sender,
    Receiver,
}

impl<D: Downlink> ActiveStream<D> {
    /// Moves bytes both ways until both sides have closed, nothing moves for too long, or the request is over for
    /// another reason.
    pub(crate) async fn tunnel(
        &mut self,
        exchange: &mut Exchange<'_>,
        routed: &Routed<'_>,
        answer: &mut Answer,
    ) -> TunnelOver {
        let pool = &self.manager.local.buffers;
        self.timer.watch(&self.drain);
        let (timer, deadlines) = (&mut self.timer, routed.deadlines);
        let (life, drain) = (&self.life, &self.drain);
        // Over HTTP/2 the client has been told of the end by then, and has had its time.
        let grace = match D::MULTIPLEXED {
            true => self.manager.config.timeouts.drain,
            false => Duration::ZERO,
        };
        let (mut down, mut up) = (self.down.tunnel_end(), answer.connection.tunnel_end());
        let (mut upward, mut downward) = (Direction::default(), Direction::default());
        let mut last_activity = Instant::now();
        let end = poll_fn(|context| {
            let moved_up = match upward.poll_open(&mut down, &mut up, pool, context) {
                Ok(moved) => moved,
                Err(BrokenEnd::Sender) => return Poll::Ready(PhaseEnd::Client(down.client_fault()).into()),
                Err(BrokenEnd::Receiver) => {
                    // The upstream takes no more; what it has said still counts.
                    upward.closed = true;
                    false
                }
            };
            let moved_down = match downward.poll_open(&mut up, &mut down, pool, context) {
                Ok(moved) => moved,
                Err(BrokenEnd::Sender) => return Poll::Ready(PhaseEnd::Upstream(up.reset()).into()),
                Err(BrokenEnd::Receiver) => return Poll::Ready(PhaseEnd::Client(down.client_fault()).into()),
            };
            if upward.closed && downward.closed {
                return Poll::Ready(PhaseEnd::Done.into());
            }
            if moved_up || moved_down {
                last_activity = Instant::now();
            }
            let idle = deadlines.idle.map(|idle| last_activity + idle);
            let closing = life.closing_time(drain).map(|at| at + grace);
            let next = earlier(earlier(idle, deadlines.max_stream), closing);
            timer.poll(next, context).map(|due| match due {
                Due::Deadline if closing.is_some_and(|at| at <= Instant::now()) => TunnelOver::Drained,
                due => {
                    let mut deadlines = deadlines;
                    // The answer has come; how long that took matters no more.
                    (deadlines.route, deadlines.request) = (None, None);
                    (deadlines.per_try, deadlines.per_try_idle) = (None, None);
                    deadlines.last_activity = last_activity;
                    deadlines.phase_end(due).into()
                }
            })
        })
        .await;
        drop((down, up));
        exchange.upload.received = upward.moved;
        exchange.info.bytes.sent = downward.moved;
        end
    }
}
