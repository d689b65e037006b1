//! `/clusters`, in text or JSON.

use std::fmt::Write as _;

use api_envoy::envoy::admin::v3::{
    ClusterStatus, Clusters, HostHealthStatus, HostStatus, SimpleMetric, simple_metric::Type,
};
use api_envoy::envoy::config::cluster::v3::{CircuitBreakers, circuit_breakers::Thresholds};
use api_envoy::envoy::config::core::v3::{HealthStatus, RoutingPriority};
use proxy_upstream::snapshot::{ClusterSnapshot, HostSnapshot};
use proxy_upstream::{ClusterConfig, RequestPriority};

use super::info::{address, message};
use super::reply::{Query, Reply};
use super::source::ClusterView;

/// The page in the wanted format, clusters sorted by name.
#[must_use]
pub fn clusters(mut views: Vec<ClusterView>, query: &Query) -> Reply {
    if let Some(filter) = query.get("filter").filter(|f| !f.is_empty()) {
        match regex::Regex::new(filter) {
            Ok(filter) => views.retain(|v| filter.is_match(name(v))),
            Err(error) => return Reply::error(400, format!("Invalid re2 regex: {error}\n")),
        }
    }
    views.sort_by(|a, b| name(a).cmp(name(b)));
    if query.get("format") == Some("json") {
        message(&Clusters {
            cluster_statuses: views.iter().map(status).collect(),
        })
    } else {
        Reply::text(views.iter().map(text).collect::<String>())
    }
}

fn name(view: &ClusterView) -> &str {
    &view.snapshot.config.name
}

/// Circuit breakers of the default and the high priority: connections, pending requests, requests, retries.
fn thresholds(config: &ClusterConfig) -> [[u32; 4]; 2] {
    [RequestPriority::Default, RequestPriority::High].map(|priority| {
        let breaker = config.circuit_breakers.of(priority);
        [
            breaker.connections.max(),
            breaker.pending_requests.max(),
            breaker.requests.max(),
            breaker.retries.max(),
        ]
    })
}

fn text(view: &ClusterView) -> String {
    let mut out = String::new();
    let ClusterSnapshot { config, hosts } = &view.snapshot;
    let name = &config.name;
    let _ = writeln!(out, "{name}::observability_name::{}", config.stat_name);
    for (priority, limits) in ["default_priority", "high_priority"]
        .iter()
        .zip(thresholds(config))
    {
        for (kind, limit) in [
            "max_connections",
            "max_pending_requests",
            "max_requests",
            "max_retries",
        ]
        .iter()
        .zip(limits)
        {
            let _ = writeln!(out, "{name}::{priority}::{kind}::{limit}");
        }
    }
    let _ = writeln!(out, "{name}::added_via_api::{}", view.added_via_api);
    for host in hosts {
        for (key, value) in host_lines(host) {
            let _ = writeln!(out, "{name}::{}::{key}::{value}", host.spec.address);
        }
    }
    out
}

fn host_lines(host: &HostSnapshot) -> Vec<(&'static str, String)> {
    let spec = &host.spec;
    let health = match (host.ejected, spec.health_status) {
        (true, _) => "/failed_outlier_check",
        (false, HealthStatus::Healthy | HealthStatus::Unknown) => "healthy",
        (false, HealthStatus::Draining | HealthStatus::Timeout | HealthStatus::Unhealthy) => {
            "/failed_eds_health"
        }
        (false, HealthStatus::Degraded) => "/degraded_eds_health",
    };
    vec![
        ("cx_active", host.cx_active.to_string()),
        ("cx_connect_fail", host.cx_connect_fail.to_string()),
        ("cx_total", host.cx_total.to_string()),
        ("rq_active", host.rq_active.to_string()),
        ("rq_error", host.rq_error.to_string()),
        ("rq_success", host.rq_success.to_string()),
        ("rq_timeout", host.rq_timeout.to_string()),
        ("rq_total", host.rq_total.to_string()),
        ("hostname", spec.hostname.to_string()),
        ("health_flags", health.to_owned()),
        ("weight", spec.weight.to_string()),
        ("region", spec.locality.region.clone()),
        ("zone", spec.locality.zone.clone()),
        ("sub_zone", spec.locality.sub_zone.clone()),
        ("canary", "false".to_owned()),
        ("priority", spec.priority.to_string()),
        ("success_rate", "-1".to_owned()),
        ("local_origin_success_rate", "-1".to_owned()),
    ]
}

fn status(view: &ClusterView) -> ClusterStatus {
    let ClusterSnapshot { config, hosts } = &view.snapshot;
    let thresholds = [RoutingPriority::Default, RoutingPriority::High]
        .iter()
        .zip(thresholds(config));
    let thresholds = thresholds.map(
        |(priority, [connections, pending, requests, retries])| Thresholds {
            priority: (*priority).into(),
            max_connections: Some(connections),
            max_pending_requests: Some(pending),
            max_requests: Some(requests),
            max_retries: Some(retries),
            ..Thresholds::default()
        },
    );
    ClusterStatus {
        name: config.name.to_string(),
        added_via_api: view.added_via_api,
        host_statuses: hosts.iter().map(host_status).collect(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: thresholds.collect(),
            ..CircuitBreakers::default()
        }),
        observability_name: config.stat_name.to_string(),
        ..ClusterStatus::default()
    }
}

fn host_status(host: &HostSnapshot) -> HostStatus {
    let spec = &host.spec;
    let metric = |name: &str, value: u64, kind: Type| SimpleMetric {
        r#type: kind.into(),
        value,
        name: name.to_owned(),
    };
    let stats = vec![
        metric("cx_connect_fail", host.cx_connect_fail, Type::Counter),
        metric("cx_total", host.cx_total, Type::Counter),
        metric("rq_error", host.rq_error, Type::Counter),
        metric("rq_success", host.rq_success, Type::Counter),
        metric("rq_timeout", host.rq_timeout, Type::Counter),
        metric("rq_total", host.rq_total, Type::Counter),
        metric("cx_active", host.cx_active, Type::Gauge),
        metric("rq_active", host.rq_active, Type::Gauge),
    ];
    // Envoy shows a host of which nothing is said as healthy.
    let eds = match spec.health_status {
        HealthStatus::Unknown => HealthStatus::Healthy,
        known => known,
    };
    HostStatus {
        address: Some(address(&spec.address.to_string())),
        stats,
        health_status: Some(HostHealthStatus {
            failed_outlier_check: host.ejected,
            eds_health_status: eds.into(),
            ..HostHealthStatus::default()
        }),
        weight: spec.weight,
        hostname: spec.hostname.to_string(),
        priority: spec.priority,
        locality: Some((*spec.locality).clone()),
        ..HostStatus::default()
    }
}
