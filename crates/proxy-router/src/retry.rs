//! Retries (`envoy.config.route.v3.RetryPolicy` and the `x-envoy-retry-*` request headers): what is retried, how often,
//! and how long to wait before it. A state machine; the connection manager carries it out.

use std::time::Duration;

use api_envoy::envoy::config::route::v3 as pb;
use api_envoy::wkt;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::{HeaderId, HeaderName, RequestHead, ResponseHead};
use smallvec::SmallVec;

use crate::header_matcher::HeaderMatcher;
use crate::limits;

/// What is retried: a set of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &[(&str, Self)] = &[$(($text, Self::$name),)*];
        }
    };
}

conditions! {
    /// `5xx`
    SERVER_ERROR = 0, "5xx";
    /// `gateway-error`: 502, 503 and 504
    GATEWAY_ERROR = 1, "gateway-error";
    /// `reset`
    RESET = 2, "reset";
    /// `reset-before-request`
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    /// `connect-failure`
    CONNECT_FAILURE = 4, "connect-failure";
    /// `envoy-ratelimited`
    RATE_LIMITED = 5, "envoy-ratelimited";
    /// `retriable-4xx`: 409
    RETRIABLE_4XX = 6, "retriable-4xx";
    /// `refused-stream`
    REFUSED_STREAM = 7, "refused-stream";
    /// `retriable-status-codes`
    RETRIABLE_STATUS_CODES = 8, "retriable-status-codes";
    /// `retriable-headers`
    RETRIABLE_HEADERS = 9, "retriable-headers";
    /// `http3-post-connect-failure`, which never happens here
    HTTP3_POST_CONNECT_FAILURE = 10, "http3-post-connect-failure";
    /// gRPC status `cancelled`
    GRPC_CANCELLED = 11, "cancelled";
    /// gRPC status `deadline-exceeded`
    GRPC_DEADLINE_EXCEEDED = 12, "deadline-exceeded";
    /// gRPC status `internal`
    GRPC_INTERNAL = 13, "internal";
    /// gRPC status `resource-exhausted`
    GRPC_RESOURCE_EXHAUSTED = 14, "resource-exhausted";
    /// gRPC status `unavailable`
    GRPC_UNAVAILABLE = 15, "unavailable";
}

impl RetryOn {
    /// Reads a comma-separated list; names that are not known are passed over, as Envoy does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let known = |name: &str| {
            Self::NAMES
                .iter()
                .find(|(n, _)| *n == name)
                .map_or(0, |(_, c)| c.0)
        };
        Self(
            text.split(',')
                .map(|name| known(name.trim()))
                .fold(0, |all, one| all | one),
        )
    }

    /// Whether no condition is set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a condition of `other` is set.
    #[must_use]
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The retry policy of a route or virtual host.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// What is retried.
    pub retry_on: RetryOn,
    /// How often.
    pub num_retries: u32,
    /// Time of one try; zero is the route's timeout.
    pub per_try_timeout: Duration,
    /// Time of one try without anything received; zero is for ever.
    pub per_try_idle_timeout: Duration,
    /// Whether hosts tried before are passed over.
    pub avoid_previous_hosts: bool,
    /// How many more times a host is picked when it is not wanted.
    pub host_selection_attempts: u32,
    /// Status codes that `retriable-status-codes` means.
    pub retriable_status_codes: Vec<u16>,
    retriable_headers: Vec<HeaderMatcher>,
    retriable_request_headers: Vec<HeaderMatcher>,
    base_interval: Duration,
    max_interval: Duration,
}

impl Default for RetryPolicy {
    /// What holds when only request headers ask for retries.
    fn default() -> Self {
        Self {
            retry_on: RetryOn::default(),
            num_retries: limits::DEFAULT_NUM_RETRIES,
            per_try_timeout: Duration::ZERO,
            per_try_idle_timeout: Duration::ZERO,
            avoid_previous_hosts: false,
            host_selection_attempts: limits::DEFAULT_HOST_SELECTION_ATTEMPTS,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            base_interval: limits::DEFAULT_RETRY_BASE_INTERVAL,
            max_interval: limits::DEFAULT_RETRY_BASE_INTERVAL * limits::DEFAULT_RETRY_MAX_MULTIPLE,
        }
    }
}

impl RetryPolicy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// A host predicate or priority that is not known, or impossible intervals.
    pub fn compile(proto: &pb::RetryPolicy) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("retry_priority", proto.retry_priority.is_some()),
            (
                "retry_options_predicates",
                !proto.retry_options_predicates.is_empty(),
            ),
            (
                "rate_limited_retry_back_off",
                proto.rate_limited_retry_back_off.is_some(),
            ),
            ("refresh_cluster_on_retry", proto.refresh_cluster_on_retry),
        ])?;
        let matchers = |field: &str, list: &[pb::HeaderMatcher]| {
            let compiled = list
                .iter()
                .enumerate()
                .map(|(i, m)| HeaderMatcher::compile(m).within_index(field, i));
            compiled.collect::<ConfigResult<Vec<_>>>()
        };
        let (base_interval, max_interval) =
            intervals(proto.retry_back_off.as_ref()).within("retry_back_off")?;
        let duration = |d: &Option<_>| d.as_ref().map_or(Duration::ZERO, wkt::std_duration);
        Ok(Self {
            retry_on: RetryOn::parse(&proto.retry_on),
            num_retries: proto.num_retries.unwrap_or(limits::DEFAULT_NUM_RETRIES),
            per_try_timeout: duration(&proto.per_try_timeout),
            per_try_idle_timeout: duration(&proto.per_try_idle_timeout),
            avoid_previous_hosts: avoid_previous_hosts(&proto.retry_host_predicate)?,
            host_selection_attempts: match u32::try_from(proto.host_selection_retry_max_attempts) {
                Ok(n) if n > 0 => n,
                _ => limits::DEFAULT_HOST_SELECTION_ATTEMPTS,
            },
            retriable_status_codes: proto
                .retriable_status_codes
                .iter()
                .filter_map(|code| u16::try_from(*code).ok())
                .collect(),
            retriable_headers: matchers("retriable_headers", &proto.retriable_headers)?,
            retriable_request_headers: matchers(
                "retriable_request_headers",
                &proto.retriable_request_headers,
            )?,
            base_interval,
            max_interval,
        })
    }
}

fn intervals(proto: Option<&pb::retry_policy::RetryBackOff>) -> ConfigResult<(Duration, Duration)> {
    let default = limits::DEFAULT_RETRY_BASE_INTERVAL;
    let Some(proto) = proto else {
        return Ok((default, default * limits::DEFAULT_RETRY_MAX_MULTIPLE));
    };
    let base = proto
        .base_interval
        .as_ref()
        .map_or(Duration::ZERO, wkt::std_duration);
    if base.is_zero() {
        return Err(ConfigError::at("base_interval", "must be positive"));
    }
    // Less than a millisecond counts as one.
    let base = base.max(Duration::from_millis(1));
    let max = proto.max_interval.as_ref().map(wkt::std_duration);
    match max {
        Some(max) if max < base => Err(ConfigError::at("max_interval", "must not be below base_interval")),
        Some(max) => Ok((base, max)),
        None => Ok((base, base * limits::DEFAULT_RETRY_MAX_MULTIPLE)),
    }
}

fn avoid_previous_hosts(predicates: &[pb::retry_policy::RetryHostPredicate]) -> ConfigResult<bool> {
    for (index, predicate) in predicates.iter().enumerate() {
        if predicate.name != "envoy.retry_host_predicates.previous_hosts" {
            let reason = format!("no retry host predicate {:?}", predicate.name);
            return Err(ConfigError::at("name", reason)
                .index(index)
                .within("retry_host_predicate"));
        }
    }
    Ok(!predicates.is_empty())
}

/// How a try ended without a usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryFailure {
    /// No connection could be made.
    ConnectFailure,
    /// The host refused the stream (HTTP/2 `REFUSED_STREAM`).
    RefusedStream,
    /// The stream or the connection ended. `request_started` says whether a byte of the request had been sent.
    Reset {
        /// Whether a byte of the request had been sent.
        request_started: bool,
    },
    /// The try took too long.
    PerTryTimeout,
    /// A circuit breaker is open; never retried.
    Overflow,
}

/// What to do after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after this time.
    Retry(Duration),
    /// This kind of end is not retried.
    No,
    /// It would be, but the retries are used up: count `upstream_rq_retry_limit_exceeded`, flag URX.
    LimitExceeded,
}

/// The retries of one request.
#[derive(Clone, Debug)]
pub struct RetryState {
    retry_on: RetryOn,
    remaining: u32,
    status_codes: SmallVec<[u16; 4]>,
    header_names: Vec<HeaderName>,
    next_interval: Duration,
}

impl RetryState {
    /// The retries that policy and request headers allow; `None` when there are none. The headers are removed.
    pub fn begin(policy: Option<&RetryPolicy>, request: &mut RequestHead) -> Option<Self> {
        let asked = Asked::take(request);
        if policy.is_none() && asked.retry_on.is_empty() {
            return None;
        }
        let default = RetryPolicy::default();
        let policy = policy.unwrap_or(&default);
        let restricted = &policy.retriable_request_headers;
        let applies = restricted.is_empty() || restricted.iter().any(|m| m.matches(&request.headers));
        let configured = if applies {
            policy.retry_on
        } else {
            RetryOn::default()
        };
        let retry_on = configured.union(asked.retry_on);
        if retry_on.is_empty() {
            return None;
        }
        let mut status_codes = asked.status_codes;
        status_codes.extend_from_slice(&policy.retriable_status_codes);
        Some(Self {
            retry_on,
            remaining: asked.max_retries.unwrap_or(policy.num_retries),
            status_codes,
            header_names: asked.header_names,
            next_interval: policy.base_interval,
        })
    }

    /// What to do with an answer's head. `random` draws the waiting time.
    pub fn on_response(
        &mut self,
        policy: Option<&RetryPolicy>,
        response: &ResponseHead,
        random: &mut dyn FnMut() -> u64,
    ) -> RetryDecision {
        let wanted = self.wants_response(policy, response);
        self.decide(wanted, policy, random)
    }

    /// What to do after a try that failed without an answer.
    pub fn on_failure(
        &mut self,
        policy: Option<&RetryPolicy>,
        failure: TryFailure,
        random: &mut dyn FnMut() -> u64,
    ) -> RetryDecision {
        let wanted = self.wants_failure(failure);
        self.decide(wanted, policy, random)
    }

    fn wants_response(&self, policy: Option<&RetryPolicy>, response: &ResponseHead) -> bool {
        let (on, status) = (self.retry_on, response.status());
        let headers = &response.headers;
        // Who is overloaded or limits the rate is not helped by another try, unless that is asked for.
        if headers.get_id(HeaderId::XEnvoyOverloaded).is_some() {
            return false;
        }
        if headers.get_id(HeaderId::XEnvoyRatelimited).is_some() {
            return on.intersects(RetryOn::RATE_LIMITED);
        }
        let by_status = (on.intersects(RetryOn::SERVER_ERROR) && (500..600).contains(&status))
            || (on.intersects(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (on.intersects(RetryOn::RETRIABLE_4XX) && status == 409)
            || (on.intersects(RetryOn::RETRIABLE_STATUS_CODES) && self.status_codes.contains(&status));
        let by_header = || {
            on.intersects(RetryOn::RETRIABLE_HEADERS)
                && (policy.is_some_and(|p| p.retriable_headers.iter().any(|m| m.matches(headers)))
                    || self.header_names.iter().any(|name| headers.contains(name)))
        };
        by_status || by_header() || self.wants_grpc_status(response)
    }

    fn wants_grpc_status(&self, response: &ResponseHead) -> bool {
        let condition = match response.headers.get_id(HeaderId::GrpcStatus) {
            Some(b"1") => RetryOn::GRPC_CANCELLED,
            Some(b"4") => RetryOn::GRPC_DEADLINE_EXCEEDED,
            Some(b"8") => RetryOn::GRPC_RESOURCE_EXHAUSTED,
            Some(b"13") => RetryOn::GRPC_INTERNAL,
            Some(b"14") => RetryOn::GRPC_UNAVAILABLE,
            _ => return false,
        };
        self.retry_on.intersects(condition)
    }

    fn wants_failure(&self, failure: TryFailure) -> bool {
        let any_reset = RetryOn::SERVER_ERROR
            .union(RetryOn::GATEWAY_ERROR)
            .union(RetryOn::RESET);
        let conditions = match failure {
            TryFailure::Overflow => return false,
            TryFailure::ConnectFailure => any_reset
                .union(RetryOn::CONNECT_FAILURE)
                .union(RetryOn::RESET_BEFORE_REQUEST),
            TryFailure::RefusedStream => any_reset.union(RetryOn::REFUSED_STREAM),
            TryFailure::Reset {
                request_started: false,
            } => any_reset.union(RetryOn::RESET_BEFORE_REQUEST),
            TryFailure::Reset {
                request_started: true,
            }
            | TryFailure::PerTryTimeout => any_reset,
        };
        self.retry_on.intersects(conditions)
    }

    fn decide(
        &mut self,
        wanted: bool,
        policy: Option<&RetryPolicy>,
        random: &mut dyn FnMut() -> u64,
    ) -> RetryDecision {
        if !wanted {
            return RetryDecision::No;
        }
        let Some(remaining) = self.remaining.checked_sub(1) else {
            return RetryDecision::LimitExceeded;
        };
        self.remaining = remaining;
        let max = policy.map_or(
            limits::DEFAULT_RETRY_BASE_INTERVAL * limits::DEFAULT_RETRY_MAX_MULTIPLE,
            |p| p.max_interval,
        );
        // Fully jittered exponential backoff, in whole milliseconds as Envoy draws it.
        let interval = self.next_interval;
        self.next_interval = (interval * 2).min(max);
        let milliseconds = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        RetryDecision::Retry(Duration::from_millis(random() % milliseconds))
    }
}

/// What the request itself asks for.
#[derive(Default)]
struct Asked {
    retry_on: RetryOn,
    max_retries: Option<u32>,
    status_codes: SmallVec<[u16; 4]>,
    header_names: Vec<HeaderName>,
}

impl Asked {
    /// Reads the request's headers and removes them.
    fn take(request: &mut RequestHead) -> Self {
        let headers = &request.headers;
        let text = |id| {
            headers
                .get_id(id)
                .and_then(|value| std::str::from_utf8(value).ok())
        };
        let list = |id| {
            text(id)
                .into_iter()
                .flat_map(|value| value.split(','))
                .map(str::trim)
        };
        let retry_on = RetryOn::parse(text(HeaderId::XEnvoyRetryOn).unwrap_or_default());
        let this = Self {
            retry_on: retry_on.union(RetryOn::parse(
                text(HeaderId::XEnvoyRetryGrpcOn).unwrap_or_default(),
            )),
            max_retries: text(HeaderId::XEnvoyMaxRetries).and_then(|n| n.parse().ok()),
            status_codes: list(HeaderId::XEnvoyRetriableStatusCodes)
                .filter_map(|code| code.parse().ok())
                .collect(),
            header_names: list(HeaderId::XEnvoyRetriableHeaderNames)
                .filter(|name| !name.is_empty())
                .map(HeaderName::new)
                .collect(),
        };
        for id in [
            HeaderId::XEnvoyRetryOn,
            HeaderId::XEnvoyRetryGrpcOn,
            HeaderId::XEnvoyMaxRetries,
            HeaderId::XEnvoyHedgeOnPerTryTimeout,
            HeaderId::XEnvoyRetriableHeaderNames,
            HeaderId::XEnvoyRetriableStatusCodes,
            HeaderId::XEnvoyUpstreamAltStatName,
        ] {
            request.headers.remove(&id);
        }
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(retry_on: &str, num_retries: u32) -> RetryPolicy {
        let proto = pb::RetryPolicy {
            retry_on: retry_on.into(),
            num_retries: Some(num_retries),
            ..Default::default()
        };
        RetryPolicy::compile(&proto).unwrap()
    }

    fn begin(policy: Option<&RetryPolicy>, fields: &[(&str, &str)]) -> Option<RetryState> {
        let mut request = RequestHead::with("GET", "http", "a.test", "/");
        fields
            .iter()
            .for_each(|(n, v)| request.headers.append(&HeaderName::new(n), v.as_bytes()));
        let state = RetryState::begin(policy, &mut request);
        assert!(
            fields
                .iter()
                .all(|(name, _)| !request.headers.contains(&HeaderName::new(name)))
        );
        state
    }

    fn retries_status(retry_on: &str, status: u16) -> bool {
        let policy = policy(retry_on, 1);
        let mut state = begin(Some(&policy), &[]).unwrap();
        state.on_response(Some(&policy), &ResponseHead::with_status(status), &mut || 0) != RetryDecision::No
    }

    #[test]
    fn each_condition_retries_its_statuses() {
        assert!(retries_status("5xx", 500) && retries_status("5xx", 599) && !retries_status("5xx", 404));
        assert!(retries_status("gateway-error", 502) && !retries_status("gateway-error", 500));
        assert!(retries_status("retriable-4xx", 409) && !retries_status("retriable-4xx", 404));
        assert!(!retries_status("connect-failure", 503));
    }

    #[test]
    fn each_condition_retries_its_failures() {
        let retries = |retry_on: &str, failure| {
            let policy = policy(retry_on, 1);
            let mut state = begin(Some(&policy), &[]).unwrap();
            state.on_failure(Some(&policy), failure, &mut || 0) != RetryDecision::No
        };
        let (begun, fresh) = (
            TryFailure::Reset {
                request_started: true,
            },
            TryFailure::Reset {
                request_started: false,
            },
        );
        assert!(retries("connect-failure", TryFailure::ConnectFailure) && !retries("connect-failure", begun));
        assert!(retries("reset", begun) && retries("5xx", begun) && retries("gateway-error", begun));
        assert!(retries("reset-before-request", fresh) && !retries("reset-before-request", begun));
        assert!(retries("refused-stream", TryFailure::RefusedStream) && !retries("refused-stream", begun));
        assert!(!retries("5xx,reset", TryFailure::Overflow));
    }

    #[test]
    fn retries_run_out_and_wait_ever_longer() {
        let policy = policy("5xx", 6);
        let mut state = begin(Some(&policy), &[]).unwrap();
        let mut next = || state.on_failure(Some(&policy), TryFailure::PerTryTimeout, &mut || u64::MAX);
        let waits: Vec<u64> = (0..6)
            .map(|_| match next() {
                RetryDecision::Retry(wait) => wait.as_millis() as u64,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            waits,
            [25, 50, 100, 200, 250, 250].map(|interval| u64::MAX % interval)
        );
        assert_eq!(next(), RetryDecision::LimitExceeded);
    }

    #[test]
    fn request_headers_ask_for_retries_of_their_own() {
        assert!(begin(None, &[]).is_none());
        let asked = [
            ("x-envoy-retry-on", "retriable-status-codes"),
            ("x-envoy-max-retries", "3"),
            ("x-envoy-retriable-status-codes", "418, 429"),
        ];
        let mut state = begin(None, &asked).unwrap();
        for _ in 0..3 {
            let decision = state.on_response(None, &ResponseHead::with_status(429), &mut || 0);
            assert_eq!(decision, RetryDecision::Retry(Duration::ZERO));
        }
        let last = state.on_response(None, &ResponseHead::with_status(418), &mut || 0);
        assert_eq!(last, RetryDecision::LimitExceeded);
    }

    #[test]
    fn grpc_conditions_look_at_the_grpc_status() {
        let policy = policy("unavailable,cancelled", 2);
        let mut state = begin(Some(&policy), &[]).unwrap();
        let mut response = ResponseHead::with_status(200);
        response.headers.set(&HeaderId::GrpcStatus, b"14");
        assert_ne!(
            state.on_response(Some(&policy), &response, &mut || 0),
            RetryDecision::No
        );
        response.headers.set(&HeaderId::GrpcStatus, b"2");
        assert_eq!(
            state.on_response(Some(&policy), &response, &mut || 0),
            RetryDecision::No
        );
    }

    #[test]
    fn an_overloaded_host_is_left_alone() {
        let policy = policy("5xx", 1);
        let mut state = begin(Some(&policy), &[]).unwrap();
        let mut response = ResponseHead::with_status(503);
        response.headers.set(&HeaderId::XEnvoyOverloaded, b"true");
        assert_eq!(
            state.on_response(Some(&policy), &response, &mut || 0),
            RetryDecision::No
        );
    }
}
