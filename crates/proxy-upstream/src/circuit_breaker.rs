//! Circuit breakers: how much of a cluster may be in use at once (`envoy.config.cluster.v3.CircuitBreakers`).
//!
//! Thresholds hold for the whole process, so the counts are shared by all workers. A threshold of 2³²−1, which is what
//! Istio sends unless a DestinationRule says otherwise, means no limit: then nothing is counted here and no atomic is
//! touched.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::envoy::config::core::v3::RoutingPriority;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

use crate::limits;
use crate::retry_budget::RetryBudget;

/// One counted resource.
#[derive(Debug)]
pub struct Resource {
    max: u32,
    counted: bool,
    current: AtomicU32,
}

impl Resource {
    fn new(max: u32, counted: bool) -> Self {
        Self {
            max,
            counted: counted || max != u32::MAX,
            current: AtomicU32::new(0),
        }
    }

    /// Takes one, unless the threshold is reached. Give it back with [`release`](Self::release).
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        self.try_acquire_below(self.max)
    }

    fn try_acquire_below(&self, max: u32) -> bool {
        if !self.counted {
            return true;
        }
        self.current
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < max).then_some(n + 1)
            })
            .is_ok()
    }

    /// Takes one whatever the threshold: each pool may open its first connection (Envoy, `ConnPoolImplBase`).
    pub fn acquire_anyway(&self) {
        if self.counted {
            self.current.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives one back.
    pub fn release(&self) {
        if self.counted {
            self.current.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many are taken; always 0 when there is no limit.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    /// The threshold.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }
}

/// The thresholds of one routing priority.
#[derive(Debug)]
pub struct CircuitBreaker {
    /// Connections to the cluster's hosts.
    pub connections: Resource,
    /// Requests that wait for a connection.
    pub pending_requests: Resource,
    /// Requests in flight.
    pub requests: Resource,
    /// `max_retries`.
    pub retries: Resource,
    retry_budget: Option<RetryBudget>,
}

impl CircuitBreaker {
    fn compile(thresholds: Option<&pb::circuit_breakers::Thresholds>) -> ConfigResult<Self> {
        let default = pb::circuit_breakers::Thresholds::default();
        let t = thresholds.unwrap_or(&default);
        refuse_unsupported(&[("max_connection_pools", t.max_connection_pools.is_some())])?;
        let retry_budget = t
            .retry_budget
            .as_ref()
            .map(RetryBudget::compile)
            .transpose()
            .within("retry_budget")?;
        let budgeted = retry_budget.is_some();
        Ok(Self {
            connections: Resource::new(
                t.max_connections.unwrap_or(limits::DEFAULT_MAX_CONNECTIONS),
                false,
            ),
            pending_requests: Resource::new(
                t.max_pending_requests
                    .unwrap_or(limits::DEFAULT_MAX_PENDING_REQUESTS),
                budgeted,
            ),
            requests: Resource::new(t.max_requests.unwrap_or(limits::DEFAULT_MAX_REQUESTS), budgeted),
            retries: Resource::new(t.max_retries.unwrap_or(limits::DEFAULT_MAX_RETRIES), budgeted),
            retry_budget,
        })
    }

    /// Takes one request, unless the threshold is reached. Give it back by [`requests`](Self::requests).
    #[must_use]
    pub fn try_acquire_request(&self, now: Instant) -> bool {
        let taken = self.requests.try_acquire();
        if taken && let Some(budget) = &self.retry_budget {
            budget.request_begins(now);
        }
        taken
    }

    /// Takes one retry, unless too many are in flight. Give it back with [`release_retry`](Self::release_retry).
    #[must_use]
    pub fn try_acquire_retry(&self, now: Instant) -> bool {
        match &self.retry_budget {
            None => self.retries.try_acquire(),
            Some(budget) => {
                let in_flight =
                    u64::from(self.requests.current()) + u64::from(self.pending_requests.current());
                self.retries.try_acquire_below(budget.retries(in_flight, now))
            }
        }
    }

    /// Gives a retry back.
    pub fn release_retry(&self) {
        self.retries.release();
    }
}

/// `RouteAction.priority`: which of a cluster's thresholds a request counts against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RequestPriority {
    /// `DEFAULT`.
    #[default]
    Default,
    /// `HIGH`.
    High,
}

/// The thresholds of both routing priorities.
#[derive(Debug)]
pub struct CircuitBreakers {
    default: CircuitBreaker,
    high: CircuitBreaker,
}

impl CircuitBreakers {
    /// Reads `Cluster.circuit_breakers`; without it Envoy's defaults hold.
    ///
    /// # Errors
    /// Thresholds that this proxy does not enforce.
    pub fn compile(proto: Option<&pb::CircuitBreakers>) -> ConfigResult<Self> {
        let Some(proto) = proto else {
            return Ok(Self {
                default: CircuitBreaker::compile(None)?,
                high: CircuitBreaker::compile(None)?,
            });
        };
        if let Some(index) = proto.per_host_thresholds.iter().position(limits_connections) {
            return Err(ConfigError::unsupported("max_connections")
                .index(index)
                .within("per_host_thresholds"));
        }
        let of = |priority: RoutingPriority| {
            let found = proto
                .thresholds
                .iter()
                .enumerate()
                .find(|(_, t)| t.priority == priority as i32);
            CircuitBreaker::compile(found.map(|(_, t)| t))
                .within_index("thresholds", found.map_or(0, |(i, _)| i))
        };
        Ok(Self {
            default: of(RoutingPriority::Default)?,
            high: of(RoutingPriority::High)?,
        })
    }

    /// The thresholds of one priority.
    #[must_use]
    pub fn of(&self, priority: RequestPriority) -> &CircuitBreaker {
        match priority {
            RequestPriority::Default => &self.default,
            RequestPriority::High => &self.high,
        }
    }
}

fn limits_connections(thresholds: &pb::circuit_breakers::Thresholds) -> bool {
    thresholds.max_connections.is_some_and(|max| max != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breakers(thresholds: pb::circuit_breakers::Thresholds) -> CircuitBreakers {
        let proto = pb::CircuitBreakers {
            thresholds: vec![thresholds],
            ..Default::default()
        };
        CircuitBreakers::compile(Some(&proto)).unwrap()
    }

    #[test]
    fn the_threshold_is_the_last_that_is_let_through() {
        let all = breakers(pb::circuit_breakers::Thresholds {
            max_requests: Some(2),
            ..Default::default()
        });
        let requests = &all.of(RequestPriority::Default).requests;
        assert!(requests.try_acquire() && requests.try_acquire());
        assert!(!requests.try_acquire());
        requests.release();
        assert!(requests.try_acquire());
    }

    #[test]
    fn priorities_count_apart() {
        let all = breakers(pb::circuit_breakers::Thresholds {
            priority: RoutingPriority::High as i32,
            max_requests: Some(0),
            ..Default::default()
        });
        assert!(!all.of(RequestPriority::High).requests.try_acquire());
        assert!(all.of(RequestPriority::Default).requests.try_acquire());
    }

    #[test]
    fn the_largest_threshold_is_no_limit_and_is_not_counted() {
        let all = breakers(pb::circuit_breakers::Thresholds {
            max_requests: Some(u32::MAX),
            ..Default::default()
        });
        let requests = &all.of(RequestPriority::Default).requests;
        assert!(requests.try_acquire());
        assert_eq!(requests.current(), 0);
    }

    #[test]
    fn a_retry_budget_is_a_share_of_the_requests_in_flight() {
        let budget = pb::circuit_breakers::thresholds::RetryBudget {
            min_retry_concurrency: Some(1),
            budget_percent: Some(api_envoy::envoy::r#type::v3::Percent { value: 50.0 }),
            ..Default::default()
        };
        let all = breakers(pb::circuit_breakers::Thresholds {
            retry_budget: Some(budget),
            ..Default::default()
        });
        let (breaker, now) = (all.of(RequestPriority::Default), Instant::now());
        assert!(breaker.try_acquire_retry(now) && !breaker.try_acquire_retry(now));
        (0..4).for_each(|_| assert!(breaker.requests.try_acquire()));
        assert!(breaker.try_acquire_retry(now) && !breaker.try_acquire_retry(now));
    }
}
