//! Timeouts of one request: the route's, what request headers say, and gRPC's own (Envoy,
//! `FilterUtility::finalTimeout`).

use std::time::Duration;

use proxy_http::{HeaderId, RequestHead};

/// Timeouts of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// `timeout`; zero is for ever.
    pub timeout: Duration,
    /// `idle_timeout`: overrides the connection manager's `stream_idle_timeout`; zero is for ever.
    pub idle_timeout: Option<Duration>,
    /// `max_grpc_timeout`: a `grpc-timeout` header is honoured up to it; zero is without limit.
    pub max_grpc_timeout: Option<Duration>,
    /// `grpc_timeout_offset`: taken off what the header says.
    pub grpc_timeout_offset: Option<Duration>,
    /// `max_stream_duration`: the newer form of the same.
    pub max_stream_duration: Option<MaxStreamDuration>,
}

/// `RouteAction.MaxStreamDuration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// Longest time of a stream; zero is for ever. `None` leaves it to the connection manager.
    pub limit: Option<Duration>,
    /// A `grpc-timeout` header is honoured up to it; zero is without limit.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Taken off what the header says.
    pub grpc_timeout_header_offset: Option<Duration>,
}

/// What holds for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimeouts {
    /// From the end of the request to the end of the answer, all tries together; zero is for ever.
    pub global: Duration,
    /// Of one try; zero is `global`.
    pub per_try: Duration,
    /// Of one try without anything received; zero is for ever.
    pub per_try_idle: Duration,
    /// Longest time of the stream; `None` leaves it to the connection manager, zero is for ever.
    pub max_stream_duration: Option<Duration>,
    /// Whether hosts are told of it in `grpc-timeout`, too (`max_grpc_timeout`).
    pub tells_grpc: bool,
    /// Whether a timeout is answered with 204 and no body (`x-envoy-upstream-rq-timeout-alt-response`).
    pub alt_response: bool,
}

impl RouteTimeouts {
    /// The timeouts of `request`. The headers that set them are removed, and the host is told what to expect
    /// (`x-envoy-expected-rq-timeout-ms`, `grpc-timeout`) unless `suppress_envoy_headers`.
    pub fn apply(
        &self,
        request: &mut RequestHead,
        per_try: Duration,
        per_try_idle: Duration,
        suppress_envoy_headers: bool,
    ) -> RequestTimeouts {
        let is_grpc = request.is_grpc();
        let mut timeouts = RequestTimeouts {
            global: self.timeout,
            per_try,
            per_try_idle,
            max_stream_duration: self.stream_limit(request, is_grpc),
            tells_grpc: false,
            alt_response: request
                .headers
                .remove(&HeaderId::XEnvoyUpstreamRqTimeoutAltResponse),
        };
        timeouts.tells_grpc =
            is_grpc && self.max_stream_duration.is_none() && self.max_grpc_timeout.is_some();
        if let (true, Some(max)) = (timeouts.tells_grpc, self.max_grpc_timeout) {
            timeouts.global = self.grpc_timeout(request, max);
        }
        if let Some(global) = take_milliseconds(request, HeaderId::XEnvoyUpstreamRqTimeoutMs) {
            timeouts.global = global;
        }
        if let Some(per_try) = take_milliseconds(request, HeaderId::XEnvoyUpstreamRqPerTryTimeoutMs) {
            timeouts.per_try = per_try;
        }
        if !timeouts.global.is_zero() && timeouts.per_try >= timeouts.global {
            timeouts.per_try = Duration::ZERO;
        }
        announce(request, &timeouts, suppress_envoy_headers);
        timeouts
    }

    fn grpc_timeout(&self, request: &RequestHead, max: Duration) -> Duration {
        let mut timeout = grpc_timeout_header(request).unwrap_or_default();
        if let Some(offset) = self.grpc_timeout_offset
            && offset < timeout
        {
            timeout -= offset;
        }
        let unlimited = timeout.is_zero();
        if !max.is_zero() && (unlimited || timeout > max) {
            max
        } else {
            timeout
        }
    }

    fn stream_limit(&self, request: &RequestHead, is_grpc: bool) -> Option<Duration> {
        let config = self.max_stream_duration?;
        let header_max = config.grpc_timeout_header_max.filter(|_| is_grpc);
        let Some((max, header)) = header_max.zip(grpc_timeout_header(request)) else {
            return config.limit;
        };
        // No limit at all is the largest; a limit of zero is none.
        let capped = if max.is_zero() { header } else { header.min(max) };
        let offset = config.grpc_timeout_header_offset.unwrap_or_default();
        Some(if offset < capped { capped - offset } else { capped })
    }
}

/// Tells the host how long it has for one try.
fn announce(request: &mut RequestHead, timeouts: &RequestTimeouts, suppress_envoy_headers: bool) {
    let expected = if timeouts.per_try.is_zero() {
        timeouts.global
    } else {
        timeouts.per_try
    };
    if expected.is_zero() {
        return;
    }
    let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
    if !suppress_envoy_headers {
        request.headers.set(
            &HeaderId::XEnvoyExpectedRqTimeoutMs,
            itoa::Buffer::new().format(milliseconds).as_bytes(),
        );
    }
    if timeouts.tells_grpc {
        request
            .headers
            .set(&HeaderId::GrpcTimeout, format!("{milliseconds}m").as_bytes());
    }
}

/// Reads a header of milliseconds and removes it. What is not a number is passed over.
fn take_milliseconds(request: &mut RequestHead, id: HeaderId) -> Option<Duration> {
    let value = request.headers.get_id(id)?;
    let milliseconds = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    request.headers.remove(&id);
    milliseconds.map(Duration::from_millis)
}

/// The `grpc-timeout` header: up to 8 digits and a unit (gRPC over HTTP/2, "Requests").
#[must_use]
pub fn grpc_timeout_header(request: &RequestHead) -> Option<Duration> {
    let value = std::str::from_utf8(request.headers.get_id(HeaderId::GrpcTimeout)?).ok()?;
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=8).contains(&digits) {
        return None;
    }
    let number: u64 = value[..digits].parse().ok()?;
    Some(match &value[digits..] {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        // Envoy's timeouts are whole milliseconds, and a timeout does not vanish by rounding.
        "u" => Duration::from_millis(number.div_ceil(1_000)),
        "n" => Duration::from_millis(number.div_ceil(1_000_000)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_http::HeaderName;

    const ROUTE: RouteTimeouts = RouteTimeouts {
        timeout: Duration::from_secs(15),
        idle_timeout: None,
        max_grpc_timeout: None,
        grpc_timeout_offset: None,
        max_stream_duration: None,
    };

    fn apply(route: RouteTimeouts, per_try: u64, fields: &[(&str, &str)]) -> (RequestTimeouts, RequestHead) {
        let mut request = RequestHead::with("GET", "http", "a.test", "/");
        fields
            .iter()
            .for_each(|(n, v)| request.headers.append(&HeaderName::new(n), v.as_bytes()));
        let timeouts = route.apply(
            &mut request,
            Duration::from_millis(per_try),
            Duration::ZERO,
            false,
        );
        (timeouts, request)
    }

    fn expected(request: &RequestHead) -> Option<&str> {
        request
            .headers
            .get_id(HeaderId::XEnvoyExpectedRqTimeoutMs)
            .map(|v| std::str::from_utf8(v).unwrap())
    }

    #[test]
    fn the_route_s_timeout_holds_and_is_announced() {
        let (timeouts, request) = apply(ROUTE, 0, &[]);
        assert_eq!(timeouts.global, Duration::from_secs(15));
        assert_eq!(expected(&request), Some("15000"));
        let (timeouts, request) = apply(
            RouteTimeouts {
                timeout: Duration::ZERO,
                ..ROUTE
            },
            0,
            &[],
        );
        assert!(timeouts.global.is_zero() && expected(&request).is_none());
    }

    #[test]
    fn request_headers_override_it_and_do_not_travel_on() {
        let fields = [
            ("x-envoy-upstream-rq-timeout-ms", "200"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "50"),
        ];
        let (timeouts, request) = apply(ROUTE, 0, &fields);
        assert_eq!(
            (timeouts.global.as_millis(), timeouts.per_try.as_millis()),
            (200, 50)
        );
        assert_eq!(expected(&request), Some("50"));
        assert!(
            fields
                .iter()
                .all(|(name, _)| !request.headers.contains(&HeaderName::new(name)))
        );
    }

    #[test]
    fn a_try_that_may_last_as_long_as_all_has_no_timeout_of_its_own() {
        assert!(apply(ROUTE, 15_000, &[]).0.per_try.is_zero());
    }

    #[test]
    fn grpc_timeouts_are_honoured_up_to_the_maximum() {
        let grpc = |max: u64, header: Option<&str>| {
            let route = RouteTimeouts {
                max_grpc_timeout: Some(Duration::from_secs(max)),
                ..ROUTE
            };
            let mut fields = vec![("content-type", "application/grpc")];
            fields.extend(header.map(|h| ("grpc-timeout", h)));
            let (timeouts, request) = apply(route, 0, &fields);
            let header = request.headers.get_id(HeaderId::GrpcTimeout).map(|v| v.to_vec());
            (timeouts.global.as_secs(), header)
        };
        assert_eq!(grpc(10, Some("3S")), (3, Some(b"3000m".to_vec())));
        assert_eq!(grpc(10, Some("1M")), (10, Some(b"10000m".to_vec())));
        assert_eq!(grpc(10, None), (10, Some(b"10000m".to_vec())));
        assert_eq!(grpc(0, None), (0, None));
    }

    #[test]
    fn grpc_timeout_units_are_those_of_the_protocol() {
        let parse = |value: &str| {
            let mut request = RequestHead::new();
            request.headers.set(&HeaderId::GrpcTimeout, value.as_bytes());
            grpc_timeout_header(&request).map(|d| d.as_millis())
        };
        assert_eq!(parse("1H"), Some(3_600_000));
        assert_eq!(parse("5m"), Some(5));
        assert_eq!(parse("1u"), Some(1));
        assert_eq!(parse("123456789S"), None);
        assert_eq!(parse("S"), None);
        assert_eq!(parse("1s"), None);
    }
}
