//! Upgraded connections: after a 101 bytes go both ways as they come. Nothing that the client sent before the 101
//! has been passed on.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use proxy_core::ResponseFlag;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::attempt::Answer;
use super::buffer::{BufferPool, ReadBuffer, WriteBuffer};
use super::downlink::Downlink;
use super::exchange::{Exchange, Outcome};
use super::routing::Routed;
use super::uplink::Uplink;

/// One direction of a tunnel.
struct Direction {
    /// Bytes that the sender has sent.
    received: u64,
    /// Bytes that the receiver has taken.
    moved: u64,
    /// The sender has closed its side.
    read_closed: bool,
    /// And so have we, towards the receiver.
    write_closed: bool,
}

impl Direction {
    const OPEN: Direction = Direction {
        received: 0,
        moved: 0,
        read_closed: false,
        write_closed: false,
    };

    /// Moves what can be moved; ready when the direction is closed. Says whether anything moved.
    fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        from: (&mut R, &mut ReadBuffer),
        to: (&mut W, &mut WriteBuffer),
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Result<bool, std::io::Error> {
        let ((source, read), (sink, write)) = (from, to);
        let before = self.moved;
        loop {
            while !write.is_empty() || !read.is_empty() {
                let waiting = read.unread().len();
                write.bytes(pool).extend_from_slice(read.unread());
                read.consume(waiting);
                match write.poll_flush(sink, context, pool, &mut self.moved) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Ok(self.moved > before),
                }
            }
            read.release(pool);
            if self.read_closed {
                if !self.write_closed && Pin::new(&mut *sink).poll_shutdown(context).is_ready() {
                    self.write_closed = true;
                }
                return Ok(self.moved > before);
            }
            match read.poll_fill(source, context, pool) {
                Poll::Ready(Ok(0)) => self.read_closed = true,
                Poll::Ready(Ok(count)) => self.received += count as u64,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    read.release(pool);
                    return Ok(self.moved > before);
                }
            }
        }
    }
}

impl<D: Downlink> ActiveStream<D> {
    /// Moves bytes both ways until both sides have closed, or nothing moves for too long.
    pub(crate) async fn tunnel(
        &mut self,
        exchange: &mut Exchange<'_>,
        routed: &Routed<'_>,
        answer: Answer,
    ) -> Outcome {
        // Neither is asked of HTTP/2: there a stream would be the tunnel.
        let (Some(down), Uplink::Http1(mut up)) = (self.down.connection(), answer.connection) else {
            return Outcome::Broken;
        };
        let (shard, stats) = (self.worker.shard().clone(), self.manager.config.stats.clone());
        shard.inc(stats.downstream_cx_upgrades_total);
        shard.move_gauge(stats.downstream_cx_upgrades_active, 1);
        let pool = &self.manager.local.buffers;
        let (mut upward, mut downward) = (Direction::OPEN, Direction::OPEN);
        // The head of the 101 waits before what follows it.
        let head_bytes = down.write.pending() as u64;
        let mut last_activity = Instant::now();
        let idle = routed.deadlines.idle;
        let timed_out = poll_fn(|context| {
            let up = &mut *up;
            let moved_up = upward.poll(
                (&mut down.stream, &mut down.read),
                (&mut up.stream, &mut up.write),
                pool,
                context,
            );
            let moved_down = downward.poll(
                (&mut up.stream, &mut up.read),
                (&mut down.stream, &mut down.write),
                pool,
                context,
            );
            let (Ok(moved_up), Ok(moved_down)) = (moved_up, moved_down) else {
                return Poll::Ready(false);
            };
            if upward.write_closed && downward.write_closed {
                return Poll::Ready(false);
            }
            if moved_up || moved_down {
                last_activity = Instant::now();
            }
            self.timer
                .poll(idle.map(|idle| last_activity + idle), context)
                .map(|()| true)
        })
        .await;
        if timed_out {
            exchange.info.flag(ResponseFlag::StreamIdleTimeout);
        }
        exchange.upload.received = upward.moved;
        exchange.info.bytes.sent = downward.moved.saturating_sub(head_bytes);
        down.received += upward.received;
        down.sent += downward.moved;
        shard.move_gauge(stats.downstream_cx_upgrades_active, -1);
        up.sent += upward.moved;
        up.received += downward.received;
        up.end_request(&mut exchange.info.bytes);
        // Whatever happened, this connection speaks HTTP no more.
        Outcome::Broken
    }
}
