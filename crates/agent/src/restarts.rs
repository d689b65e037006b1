//! How long to wait before something that ended is started again.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{RESTART_BASE, RESTART_FORGIVEN_AFTER, RESTART_MAX};

/// The restarts of one process. The wait doubles with each, and begins anew when the process ran for a while: one crash
/// a day must not end in long outages.
#[derive(Debug)]
pub struct Restarts {
    total: u32,
    in_a_row: u32,
    started: Instant,
}

impl Default for Restarts {
    fn default() -> Self {
        Self {
            total: 0,
            in_a_row: 0,
            started: Instant::now(),
        }
    }
}

impl Restarts {
    /// Counts one more, and tells how long to wait before it. Call it when the process has ended.
    #[must_use]
    pub fn next_wait(&mut self) -> Duration {
        if self.started.elapsed() >= RESTART_FORGIVEN_AFTER {
            self.in_a_row = 0;
        }
        let doubled = RESTART_BASE.saturating_mul(1 << self.in_a_row.min(16));
        self.total += 1;
        self.in_a_row += 1;
        let wait = doubled.min(RESTART_MAX);
        self.started = Instant::now() + wait;
        wait
    }

    /// How often it was started again.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_doubles_up_to_a_limit_and_begins_anew_after_a_quiet_time() {
        let mut restarts = Restarts::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = restarts.next_wait();
            tokio::time::advance(wait).await;
            waits.push(wait);
        }
        assert_eq!(waits[..3], [RESTART_BASE, RESTART_BASE * 2, RESTART_BASE * 4]);
        assert_eq!(waits[7], RESTART_MAX);
        tokio::time::advance(RESTART_FORGIVEN_AFTER).await;
        assert_eq!(restarts.next_wait(), RESTART_BASE);
        assert_eq!(restarts.total(), 9);
    }
}
