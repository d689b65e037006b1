//! When a burst of changes is worth publishing, without a clock of its own.

use std::time::Duration;

use tokio::time::Instant;

/// Waits for quiet, but not for ever.
#[derive(Debug)]
pub(crate) struct Debounce {
    quiet: Duration,
    max: Duration,
    /// The first and the last change that are not published yet.
    burst: Option<(Instant, Instant)>,
}

impl Debounce {
    pub(crate) fn new(quiet: Duration, max: Duration) -> Self {
        Self {
            quiet,
            max,
            burst: None,
        }
    }

    pub(crate) fn changed(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
    }

    /// When to publish; `None` while nothing has changed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.burst
            .map(|(first, last)| (last + self.quiet).min(first + self.max))
    }

    /// Takes the burst to publish it: when it began.
    pub(crate) fn take(&mut self) -> Option<Instant> {
        self.burst.take().map(|(first, _)| first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(100);

    #[test]
    fn a_single_change_waits_for_quiet_only() {
        let mut debounce = Debounce::new(QUIET, MAX);
        assert_eq!(debounce.due(), None);
        let now = Instant::now();
        debounce.changed(now);
        assert_eq!(debounce.due(), Some(now + QUIET));
        assert_eq!(debounce.take(), Some(now));
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn a_storm_is_published_at_the_latest_after_the_maximum() {
        let mut debounce = Debounce::new(QUIET, MAX);
        let start = Instant::now();
        for step in 0..30 {
            debounce.changed(start + Duration::from_millis(5) * step);
        }
        assert_eq!(debounce.due(), Some(start + MAX));
    }
}
