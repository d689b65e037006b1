//! Connection pools (`trafficPolicy.connectionPool`): limits, timeouts, keepalive.

use std::time::Duration;

use api_envoy::envoy::config::cluster::v3::{
    CircuitBreakers, UpstreamConnectionOptions, circuit_breakers::Thresholds, circuit_breakers::thresholds,
};
use api_envoy::envoy::config::core::v3::{HttpProtocolOptions, TcpKeepalive};
use api_envoy::envoy::r#type::v3::Percent;
use api_envoy::wkt;
use api_istio::networking::{RetryBudget, TcpKeepalive as Keepalive, TrafficPolicy};
use control_snapshot::Mesh;

use crate::limits::UNLIMITED;

/// The limits of a policy; everything it does not limit is unlimited.
pub(crate) fn circuit_breakers(policy: Option<&TrafficPolicy>) -> CircuitBreakers {
    let pool = policy.and_then(|p| p.connection_pool.as_ref());
    let tcp = pool.and_then(|p| p.tcp.as_ref());
    let http = pool.and_then(|p| p.http.as_ref());
    let limit = |value: Option<i32>| {
        Some(
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v > 0)
                .unwrap_or(UNLIMITED),
        )
    };
    let thresholds = Thresholds {
        max_connections: limit(tcp.map(|t| t.max_connections)),
        max_pending_requests: limit(http.map(|h| h.http1_max_pending_requests)),
        max_requests: limit(http.map(|h| h.http2_max_requests)),
        max_retries: limit(http.map(|h| h.max_retries)),
        retry_budget: policy.and_then(|p| p.retry_budget.as_ref()).map(retry_budget),
        ..Thresholds::default()
    };
    CircuitBreakers {
        thresholds: vec![thresholds],
        per_host_thresholds: Vec::new(),
    }
}

fn retry_budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    thresholds::RetryBudget {
        budget_percent: budget.percent.map(|value| Percent { value }),
        budget_interval: budget.budget_interval.map(|d| wkt::duration(d.0)),
        min_retry_concurrency: Some(budget.min_retry_concurrency).filter(|n| *n > 0),
    }
}

/// The time a connection may take to come up.
pub(crate) fn connect_timeout(policy: &TrafficPolicy, mesh: &Mesh) -> Duration {
    let own = policy
        .connection_pool
        .as_ref()
        .and_then(|p| p.tcp.as_ref()?.connect_timeout);
    own.unwrap_or_else(|| mesh.connect_timeout()).0
}

/// TCP keepalive of the policy, else of the mesh.
pub(crate) fn keepalive(policy: &TrafficPolicy, mesh: &Mesh) -> Option<UpstreamConnectionOptions> {
    let own = policy
        .connection_pool
        .as_ref()
        .and_then(|p| p.tcp.as_ref()?.tcp_keepalive.as_ref());
    let keepalive = own.or(mesh.tcp_keepalive.as_ref())?;
    Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(keepalive_settings(keepalive)),
        ..UpstreamConnectionOptions::default()
    })
}

fn keepalive_settings(keepalive: &Keepalive) -> TcpKeepalive {
    let seconds = |d: Option<api_istio::Duration>| d.and_then(|d| u32::try_from(d.0.as_secs()).ok());
    TcpKeepalive {
        keepalive_probes: Some(keepalive.probes).filter(|n| *n > 0),
        keepalive_time: seconds(keepalive.time),
        keepalive_interval: seconds(keepalive.interval),
    }
}

/// What holds for connections of every HTTP version; none where the policy says nothing about them.
pub(crate) fn common_options(policy: &TrafficPolicy) -> Option<HttpProtocolOptions> {
    let pool = policy.connection_pool.as_ref()?;
    let http = pool.http.as_ref();
    let max_requests = http
        .and_then(|h| u32::try_from(h.max_requests_per_connection).ok())
        .filter(|n| *n > 0);
    let idle = http.and_then(|h| h.idle_timeout);
    let lifetime = pool.tcp.as_ref().and_then(|t| t.max_connection_duration);
    let http2 = http.is_some_and(|h| h.max_concurrent_streams > 0 || h.http2_keep_alive.is_some());
    if max_requests.is_none() && idle.is_none() && lifetime.is_none() && !http2 {
        return None;
    }
    Some(HttpProtocolOptions {
        idle_timeout: idle.map(|d| wkt::duration(d.0)),
        max_connection_duration: lifetime.map(|d| wkt::duration(d.0)),
        max_requests_per_connection: max_requests,
        ..HttpProtocolOptions::default()
    })
}
