//! One timer per connection for all its deadlines, and for the end of its filter chain's drain. It is armed lazily: a
//! deadline that moves away costs nothing, the timer wakes at the old time, looks again and goes back to sleep.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::drain::{Drain, Watch};

/// A timer that follows a moving deadline.
#[derive(Debug, Default)]
pub(crate) struct DeadlineTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    drain: Option<Watch>,
}

/// What a timer has waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// The deadline has passed.
    Deadline,
    /// The drain is over: the connection closes.
    Drained,
}

impl DeadlineTimer {
    /// A timer that rings at the end of this drain too.
    pub(crate) fn watching(drain: &Drain) -> Self {
        Self {
            sleep: None,
            drain: Some(drain.watch()),
        }
    }

    /// From now on the end of this drain counts too.
    pub(crate) fn watch(&mut self, drain: &Drain) {
        self.drain.get_or_insert_with(|| drain.watch());
    }

    /// Ready when the deadline has passed, or the drain is over. `None` never passes.
    pub(crate) fn poll(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> Poll<Due> {
        if self
            .drain
            .as_ref()
            .is_some_and(|drain| drain.poll_over(context).is_ready())
        {
            return Poll::Ready(Due::Drained);
        }
        self.poll_deadline(deadline, context).map(|()| Due::Deadline)
    }

    fn poll_deadline(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// The earlier of two deadlines.
pub(crate) fn earlier(one: Option<Instant>, two: Option<Instant>) -> Option<Instant> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_away_is_followed_and_one_that_comes_nearer_too() {
        let mut timer = DeadlineTimer::default();
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        let mut wanted = at(5);
        poll_fn(|context| {
            // The deadline moves once, after the timer was armed.
            let armed = timer.poll(wanted, context);
            wanted = at(9);
            armed
        })
        .await;
        assert_eq!(start.elapsed(), Duration::from_secs(9));
        let _ = poll_fn(|context| Poll::Ready(timer.poll(at(100), context))).await;
        poll_fn(|context| timer.poll(at(12), context)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(12));
    }
}
