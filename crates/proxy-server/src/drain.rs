//! Draining: telling connections that they should end soon, and ending what is left (Envoy: "Draining").
//!
//! A [`Drain`] belongs to a filter chain of a listener on one worker. While it is idle nothing changes. Once it has
//! started, HTTP connections close with a response: with a probability that grows over the first half of the drain time,
//! or with the next one (`--drain-strategy immediate`). In its last third connections begin to end of themselves, each at a
//! time of its own, so that a client that asks for nothing is told too. At its end, if it has one, what is left is closed:
//! a listener that was removed or replaced ends its connections, one that an operator drains does not.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Whether a group of connections drains. Cheap to clone within a worker.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Failing health checks do not concern it.
    is_modify_only: bool,
    started: Cell<Option<Started>>,
    over: Cell<Option<End>>,
    watchers: RefCell<Watchers>,
}

#[derive(Clone, Copy, Debug)]
struct Started {
    at: Instant,
    time: Duration,
    immediate: bool,
}

/// Why the connections that are left are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Their listener is no more, or the process ends.
    Listener,
    /// Their filter chain is no more.
    FilterChain,
}

impl End {
    /// Envoy's words for it (`%RESPONSE_CODE_DETAILS%`).
    #[must_use]
    pub const fn details(self) -> &'static str {
        match self {
            Self::Listener => {
                "downstream_local_disconnect(purging_socket_that_have_not_progressed_to_connections)"
            }
            Self::FilterChain => "downstream_local_disconnect(filter_chain_is_being_removed)",
        }
    }
}

/// Who is woken when a drain starts and when it is over. A place that is given up is used again.
#[derive(Debug, Default)]
struct Watchers {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Watchers {
    fn wake_all(&self) {
        self.wakers.iter().flatten().for_each(Waker::wake_by_ref);
    }
}

impl Drain {
    /// The drain of a listener with this `drain_type`.
    #[must_use]
    pub fn new(is_modify_only: bool) -> Self {
        let inner = Inner {
            is_modify_only,
            ..Inner::default()
        };
        Self {
            inner: Rc::new(inner),
        }
    }

    /// Whether failing health checks do not concern it (`drain_type: MODIFY_ONLY`).
    #[must_use]
    pub fn is_modify_only(&self) -> bool {
        self.inner.is_modify_only
    }

    /// Starts draining, unless it has started already.
    pub fn start(&self, now: Instant, time: Duration, immediate: bool) {
        if self.inner.started.get().is_none() {
            self.inner.started.set(Some(Started {
                at: now,
                time,
                immediate,
            }));
            self.inner.watchers.borrow().wake_all();
        }
    }

    /// Ends it: connections close now.
    pub fn end(&self, end: End) {
        if self.inner.over.get().is_none() {
            self.inner.over.set(Some(end));
            self.inner.watchers.borrow().wake_all();
        }
    }

    /// Whether draining has started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.inner.started.get().is_some()
    }

    /// Why connections must close now, if they must.
    #[must_use]
    pub fn over(&self) -> Option<End> {
        self.inner.over.get()
    }

    /// Whether a connection should close with the response that goes out now. `random` is uniform over all values.
    #[must_use]
    pub fn should_close(&self, now: Instant, random: u64) -> bool {
        let Some(started) = self.inner.started.get() else {
            return false;
        };
        let elapsed = now.saturating_duration_since(started.at).as_millis() as u64;
        let total = (started.time / 2).as_millis() as u64;
        started.immediate || elapsed >= total || random % total < elapsed
    }

    /// When a connection that was opened at `opened` begins to end of itself. It does not if it came so late, or if after
    /// that there is less than `grace` left. `random` is uniform over all values.
    #[must_use]
    pub fn closing_time(&self, opened: Instant, grace: Duration, random: u64) -> Option<Instant> {
        let started = self.inner.started.get()?;
        let from = started.time * 2 / 3;
        let window = started.time.checked_sub(grace)?.checked_sub(from)?;
        let told_after = opened.saturating_duration_since(started.at);
        if window.is_zero() || told_after >= from {
            return None;
        }
        let delay = random % u64::try_from(window.as_nanos()).ok()?;
        Some(started.at + from + Duration::from_nanos(delay))
    }

    /// A place among those who are told.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch {
            drain: self.clone(),
            place: Cell::new(None),
        }
    }

    /// Completes when connections must close, which may be never.
    pub async fn until_over(&self) -> End {
        let watch = self.watch();
        poll_fn(|context| watch.poll_over(context)).await
    }
}

/// A task that is woken when a drain starts, and when it is over.
#[derive(Debug)]
pub struct Watch {
    drain: Drain,
    place: Cell<Option<usize>>,
}

impl Watch {
    /// Ready when connections must close. Until then the task is woken when the drain starts too. It costs nothing to ask
    /// again from the same task.
    pub fn poll_over(&self, context: &Context<'_>) -> Poll<End> {
        if let Some(end) = self.drain.over() {
            return Poll::Ready(end);
        }
        let mut watchers = self.drain.inner.watchers.borrow_mut();
        let place = match self.place.get().or_else(|| watchers.free.pop()) {
            Some(place) => place,
            None => {
                watchers.wakers.push(None);
                watchers.wakers.len() - 1
            }
        };
        self.place.set(Some(place));
        let known = &mut watchers.wakers[place];
        if !known
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()))
        {
            *known = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.place.get() {
            let mut watchers = self.drain.inner.watchers.borrow_mut();
            watchers.wakers[place] = None;
            watchers.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(90);
    const GRACE: Duration = Duration::from_secs(5);

    fn started(immediate: bool) -> (Drain, Instant) {
        let (drain, start) = (Drain::default(), Instant::now());
        assert!(!drain.should_close(start, 0));
        drain.start(start, TIME, immediate);
        (drain, start)
    }

    #[test]
    fn connections_close_with_a_probability_that_grows_over_the_first_half() {
        let (drain, start) = started(false);
        let closing = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            (0..90)
                .filter(|percent| drain.should_close(now, percent * 500))
                .count()
        };
        assert_eq!(
            [closing(0), closing(15), closing(45), closing(80)],
            [0, 30, 90, 90]
        );
    }

    #[test]
    fn an_immediate_drain_closes_at_the_first_occasion() {
        let (drain, start) = started(true);
        assert!(drain.should_close(start, u64::MAX));
    }

    #[test]
    fn connections_begin_to_end_in_the_last_third_while_there_is_time_to_say_so() {
        let (drain, start) = started(false);
        let at = |opened: u64, random: u64| {
            let at = drain.closing_time(start + Duration::from_secs(opened), GRACE, random)?;
            Some((at - start).as_secs())
        };
        let second = 1_000_000_000;
        assert_eq!(at(0, 0), Some(60));
        assert_eq!(at(10, 24 * second), Some(84));
        assert_eq!(at(10, 25 * second), Some(60));
        assert_eq!(at(60, 0), None, "it came too late");
        assert_eq!(drain.closing_time(start, TIME / 3, 0), None, "there is no time");
        assert_eq!(drain.closing_time(start, 2 * TIME, 0), None);
        assert_eq!(Drain::default().closing_time(start, GRACE, 0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_seen_by_who_waits_and_by_who_comes_later() {
        let drain = Drain::default();
        let waiting = drain.clone();
        let both = async {
            let (seen, ()) = tokio::join!(waiting.until_over(), async { drain.end(End::FilterChain) });
            drain.end(End::Listener);
            (seen, drain.until_over().await)
        };
        let seen = tokio::time::timeout(TIME, both).await.expect("in time");
        assert_eq!(seen, (End::FilterChain, End::FilterChain));
    }

    #[test]
    fn whoever_watches_is_told_of_the_start_and_leaves_a_place_for_the_next() {
        let drain = Drain::default();
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(std::sync::Arc::clone(&woken));
        let context = Context::from_waker(&waker);
        drop(drain.watch());
        for _ in 0..3 {
            let watch = drain.watch();
            assert!(watch.poll_over(&context).is_pending() && watch.poll_over(&context).is_pending());
        }
        assert_eq!(drain.inner.watchers.borrow().wakers.len(), 1);
        let (_one, _two) = (drain.watch().poll_over(&context), drain.watch());
        let watch = drain.watch();
        assert!(watch.poll_over(&context).is_pending());
        drain.start(Instant::now(), TIME, false);
        drain.start(Instant::now(), TIME, false);
        drain.end(End::Listener);
        assert_eq!(
            woken.0.load(std::sync::atomic::Ordering::Relaxed),
            2,
            "start and end"
        );
        assert_eq!(watch.poll_over(&context), Poll::Ready(End::Listener));
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicU32);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
