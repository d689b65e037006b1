//! Draining: telling connections that they should end soon (Envoy: "Draining").
//!
//! A [`Drain`] belongs to a filter chain of a listener on one worker. While it is idle nothing changes; once it has
//! started, HTTP connections close after the response with a probability that grows over the drain time (or at once,
//! with `--drain-strategy immediate`), and at its end what is left is closed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Whether a group of connections drains. Cheap to clone within a worker.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    started: Cell<Option<Started>>,
    ended: Cell<bool>,
    end: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Started {
    at: Instant,
    time: Duration,
    immediate: bool,
}

impl Drain {
    /// Starts draining, unless it has started already.
    pub fn start(&self, now: Instant, time: Duration, immediate: bool) {
        if self.inner.started.get().is_none() {
            self.inner.started.set(Some(Started {
                at: now,
                time,
                immediate,
            }));
        }
    }

    /// Ends it: connections close now.
    pub fn end(&self) {
        self.inner.ended.set(true);
        self.inner.end.notify_waiters();
    }

    /// Whether draining has started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.inner.started.get().is_some()
    }

    /// Whether a connection should close when its request is done. `random` is uniform over all values.
    #[must_use]
    pub fn should_close(&self, now: Instant, random: u64) -> bool {
        let Some(started) = self.inner.started.get() else {
            return false;
        };
        let elapsed = now.saturating_duration_since(started.at);
        if started.immediate || elapsed >= started.time {
            return true;
        }
        let (elapsed, total) = (
            elapsed.as_millis() as u64,
            (started.time.as_millis() as u64).max(1),
        );
        random % total < elapsed
    }

    /// Completes when connections must close, which may be never.
    pub async fn ended(&self) {
        let notified = self.inner.end.notified();
        if !self.inner.ended.get() {
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(100);

    #[test]
    fn connections_close_with_growing_probability() {
        let (drain, start) = (Drain::default(), Instant::now());
        assert!(!drain.should_close(start, 0));
        drain.start(start, TIME, false);
        let closing = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            (0..100)
                .filter(|percent| drain.should_close(now, percent * 1000))
                .count()
        };
        assert_eq!([closing(0), closing(25), closing(100)], [0, 25, 100]);
    }

    #[test]
    fn an_immediate_drain_closes_at_the_first_occasion() {
        let (drain, start) = (Drain::default(), Instant::now());
        drain.start(start, TIME, true);
        assert!(drain.should_close(start, u64::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_seen_by_who_waits_and_by_who_comes_later() {
        let drain = Drain::default();
        let waiting = drain.clone();
        let both = async {
            tokio::join!(waiting.ended(), async { drain.end() });
            drain.ended().await;
        };
        tokio::time::timeout(TIME, both).await.expect("in time");
    }
}
