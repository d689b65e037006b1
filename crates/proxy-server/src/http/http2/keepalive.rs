//! Pings that find out whether the peer is still there (`connection_keepalive`).

use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use proxy_upstream::config::Http2Keepalive;
use tokio::time::Instant;

use super::super::timer::DeadlineTimer;

/// The pings of one connection.
#[derive(Debug)]
pub(crate) struct Keepalive {
    ping_pong: PingPong,
    options: Http2Keepalive,
    /// A ping is on its way.
    asked: bool,
    /// When the next ping is due, or the answer overdue; `None` until somebody wants one.
    due: Option<Instant>,
    timer: DeadlineTimer,
}

impl Keepalive {
    /// Pings as the options say; `None` where they want none.
    pub(crate) fn new(
        options: Option<Http2Keepalive>,
        ping_pong: Option<PingPong>,
        random: u64,
    ) -> Option<Self> {
        let options = options?;
        options.interval.or(options.idle_interval)?;
        let mut keepalive = Keepalive {
            ping_pong: ping_pong?,
            options,
            asked: false,
            due: None,
            timer: DeadlineTimer::default(),
        };
        keepalive.rest(random);
        Some(keepalive)
    }

    fn rest(&mut self, random: u64) {
        self.asked = false;
        self.due = self.options.interval.map(|interval| {
            let most = interval.mul_f64(self.options.jitter_percent / 100.0).as_millis();
            let jitter = u64::try_from(most).unwrap_or(u64::MAX).checked_add(1);
            let jitter = Duration::from_millis(jitter.map_or(0, |most| random % most));
            Instant::now() + interval + jitter
        });
    }

    /// Makes a ping due, unless one is on its way.
    pub(crate) fn ask_now(&mut self) {
        if !self.asked {
            self.due = Some(Instant::now());
        }
    }

    /// Ready when the peer has not answered in time.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, random: &dyn Fn() -> u64) -> Poll<()> {
        loop {
            // An error is the connection's, which will tell.
            if self.asked && matches!(self.ping_pong.poll_pong(context), Poll::Ready(Ok(_))) {
                self.rest(random());
            }
            ready!(self.timer.poll(self.due, context));
            if self.asked {
                return Poll::Ready(());
            }
            if self.ping_pong.send_ping(Ping::opaque()).is_err() {
                return Poll::Pending;
            }
            self.asked = true;
            self.due = Some(Instant::now() + self.options.timeout);
        }
    }
}
