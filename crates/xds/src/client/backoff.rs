//! When to try again after a stream has ended.

use std::time::Duration;

use crate::limits::{RECONNECT_BASE, RECONNECT_MAX};

/// Exponential backoff with full jitter, as Envoy's `JitteredExponentialBackOffStrategy`: each wait is drawn evenly
/// from zero to a bound that doubles with each failure.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    bound: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(RECONNECT_BASE, RECONNECT_MAX)
    }
}

impl Backoff {
    /// Waits of up to `base` at first, up to `max` in the end.
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            bound: base,
        }
    }

    /// The next wait. `random` is any 64-bit random number.
    pub fn next(&mut self, random: u64) -> Duration {
        let bound = u64::try_from(self.bound.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.bound = (self.bound * 2).min(self.max);
        Duration::from_nanos(random % bound)
    }

    /// A response has arrived: the next failure starts from the first bound.
    pub fn reset(&mut self) {
        self.bound = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_maximum_and_a_reset_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(2));
        let waits: Vec<_> = (0..4).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        let bounds =
            [500_u64, 1000, 2000, 2000].map(|ms| u128::from(u64::MAX % (ms * 1_000_000)) / 1_000_000);
        assert_eq!(waits, bounds);
        backoff.reset();
        assert!(backoff.next(499_999_999) < Duration::from_millis(500));
        assert_eq!(backoff.next(0), Duration::ZERO);
    }
}
