//! Retry budgets (`envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget`): retries in flight are limited to a
//! share of the requests that are in flight, or of those that have begun lately.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api_envoy::envoy::config::cluster::v3::circuit_breakers::thresholds;
use proxy_core::{ConfigError, ConfigResult};

use crate::limits;

/// Parts of an interval that are forgotten one at a time.
const PARTS: usize = 10;

/// How many retries may be in flight.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    percent: f64,
    min_concurrency: u32,
    /// What the share is of, unless it is of the requests in flight.
    recent: Option<RecentRequests>,
}

impl RetryBudget {
    /// Reads a budget.
    ///
    /// # Errors
    /// An interval that is no duration, or that cannot be divided.
    pub(crate) fn compile(proto: &thresholds::RetryBudget) -> ConfigResult<Self> {
        Ok(Self {
            percent: proto
                .budget_percent
                .as_ref()
                .map_or(limits::DEFAULT_RETRY_BUDGET_PERCENT, |p| p.value),
            min_concurrency: proto
                .min_retry_concurrency
                .unwrap_or(limits::DEFAULT_MIN_RETRY_CONCURRENCY),
            recent: match &proto.budget_interval {
                None => None,
                Some(interval) => RecentRequests::over(interval)?,
            },
        })
    }

    /// A request begins.
    pub(crate) fn request_begins(&self, now: Instant) {
        if let Some(recent) = &self.recent {
            recent.count(now);
        }
    }

    /// Retries that may be in flight while `in_flight` requests are.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub(crate) fn retries(&self, in_flight: u64, now: Instant) -> u32 {
        let requests = match &self.recent {
            None => in_flight,
            Some(recent) => recent.sum(now),
        };
        let allowed = (requests as f64 * self.percent / 100.0) as u32;
        allowed.max(self.min_concurrency)
    }
}

/// Requests by when they began. Workers share it: each part of the interval is one number, its place in time in the upper
/// half and the requests of it in the lower.
#[derive(Debug)]
struct RecentRequests {
    /// When it was asked for the first time.
    start: OnceLock<Instant>,
    part: Duration,
    /// As in Envoy a request is forgotten when the interval is over that begins at the end of the part that it is in.
    parts: [AtomicU64; PARTS + 1],
}

impl RecentRequests {
    /// `None` when there is no interval to speak of.
    fn over(interval: &prost_types::Duration) -> ConfigResult<Option<Self>> {
        let interval = Duration::try_from(*interval)
            .map_err(|_| ConfigError::at("budget_interval", "must not be negative"))?;
        let part = Duration::from_millis(interval.as_millis() as u64) / PARTS as u32;
        Ok((!part.is_zero()).then(|| Self {
            start: OnceLock::new(),
            part,
            parts: Default::default(),
        }))
    }

    /// The part of time that `now` is in. They are counted from 1, so that an empty part is one of the past.
    fn place(&self, now: Instant) -> u32 {
        let elapsed = now
            .saturating_duration_since(*self.start.get_or_init(|| now))
            .as_nanos()
            / self.part.as_nanos();
        u32::try_from(elapsed).unwrap_or(u32::MAX - 1) + 1
    }

    fn count(&self, now: Instant) {
        let place = self.place(now);
        let part = &self.parts[place as usize % self.parts.len()];
        // Not counted only where another worker has gone a whole interval ahead.
        let _ = part.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
            let (of, requests) = ((value >> 32) as u32, value as u32);
            let requests = if of == place {
                requests.saturating_add(1)
            } else {
                1
            };
            (of <= place).then_some(u64::from(place) << 32 | u64::from(requests))
        });
    }

    fn sum(&self, now: Instant) -> u64 {
        let place = self.place(now);
        let values = self.parts.iter().map(|part| part.load(Ordering::Relaxed));
        values
            .filter(|value| place.saturating_sub((value >> 32) as u32) as usize <= PARTS)
            .map(|value| value & u64::from(u32::MAX))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(interval: Duration) -> RetryBudget {
        let proto = thresholds::RetryBudget {
            budget_percent: Some(api_envoy::envoy::r#type::v3::Percent { value: 50.0 }),
            budget_interval: Some(interval.try_into().unwrap()),
            min_retry_concurrency: Some(1),
        };
        RetryBudget::compile(&proto).unwrap()
    }

    #[test]
    fn requests_count_for_an_interval_after_they_began_and_not_while_they_last() {
        let budget = budget(Duration::from_secs(10));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(budget.retries(100, start), 1, "in flight, but from before");
        (0..8).for_each(|_| budget.request_begins(at(500)));
        (0..4).for_each(|_| budget.request_begins(at(5_500)));
        assert_eq!(budget.retries(0, at(6_000)), 6);
        assert_eq!(budget.retries(0, at(10_900)), 6);
        assert_eq!(budget.retries(0, at(11_000)), 2, "the first eight are forgotten");
        budget.request_begins(at(11_100));
        budget.request_begins(at(11_100));
        assert_eq!(budget.retries(0, at(11_900)), 3);
        assert_eq!(budget.retries(0, at(100_000)), 1);
    }

    #[test]
    fn without_an_interval_the_share_is_of_the_requests_in_flight() {
        let budget = budget(Duration::ZERO);
        budget.request_begins(Instant::now());
        assert_eq!(budget.retries(10, Instant::now()), 5);
    }

    #[test]
    fn a_negative_interval_is_refused() {
        let proto = thresholds::RetryBudget {
            budget_interval: Some(prost_types::Duration {
                seconds: -1,
                nanos: 0,
            }),
            ..Default::default()
        };
        let error = RetryBudget::compile(&proto).unwrap_err().to_string();
        assert!(error.contains("budget_interval"), "{error}");
    }
}
