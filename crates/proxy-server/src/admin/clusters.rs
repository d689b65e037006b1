//! `/clusters`, in text or JSON.

use std::fmt::Write as _;

use api_envoy::envoy::admin::v3::{
    ClusterStatus, Clusters, HostHealthStatus, HostStatus, SimpleMetric, simple_metric::Type,
};
use api_envoy::envoy::config::cluster::v3::{CircuitBreakers, circuit_breakers::Thresholds};
use api_envoy::envoy::config::core::v3::{HealthStatus, Locality, RoutingPriority};

use super::info::{address, message};
use super::reply::{Query, Reply};
use super::source::{ClusterView, HostView};

/// The page in the wanted format, clusters sorted by name.
#[must_use]
pub fn clusters(mut views: Vec<ClusterView>, query: &Query) -> Reply {
    if let Some(filter) = query.get("filter").filter(|f| !f.is_empty()) {
        match regex::Regex::new(filter) {
            Ok(filter) => views.retain(|v| filter.is_match(&v.name)),
            Err(error) => return Reply::error(400, format!("Invalid re2 regex: {error}\n")),
        }
    }
    views.sort_by(|a, b| a.name.cmp(&b.name));
    if query.get("format") == Some("json") {
        message(&Clusters {
            cluster_statuses: views.iter().map(status).collect(),
        })
    } else {
        Reply::text(views.iter().map(text).collect::<String>())
    }
}

fn text(view: &ClusterView) -> String {
    let mut out = String::new();
    let name = &view.name;
    let _ = writeln!(out, "{name}::observability_name::{}", view.observability_name);
    for (priority, limits) in ["default_priority", "high_priority"].iter().zip(view.thresholds) {
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
    for host in &view.hosts {
        for (key, value) in host_lines(host) {
            let _ = writeln!(out, "{name}::{}::{key}::{value}", host.address);
        }
    }
    out
}

fn host_lines(host: &HostView) -> Vec<(&'static str, String)> {
    let health = match (host.ejected, host.eds_health_status) {
        (true, _) => "/failed_outlier_check".to_owned(),
        (false, "HEALTHY" | "UNKNOWN" | "") => "healthy".to_owned(),
        (false, "DRAINING" | "TIMEOUT" | "UNHEALTHY") => "/failed_eds_health".to_owned(),
        (false, other) => format!("/{}_eds_health", other.to_ascii_lowercase()),
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
        ("hostname", host.hostname.clone()),
        ("health_flags", health),
        ("weight", host.weight.to_string()),
        ("region", host.region.clone()),
        ("zone", host.zone.clone()),
        ("sub_zone", host.sub_zone.clone()),
        ("canary", "false".to_owned()),
        ("priority", host.priority.to_string()),
        ("success_rate", "-1".to_owned()),
        ("local_origin_success_rate", "-1".to_owned()),
    ]
}

fn status(view: &ClusterView) -> ClusterStatus {
    let thresholds = [RoutingPriority::Default, RoutingPriority::High]
        .iter()
        .zip(view.thresholds);
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
        name: view.name.clone(),
        added_via_api: view.added_via_api,
        host_statuses: view.hosts.iter().map(host_status).collect(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: thresholds.collect(),
            ..CircuitBreakers::default()
        }),
        observability_name: view.observability_name.clone(),
        ..ClusterStatus::default()
    }
}

fn host_status(host: &HostView) -> HostStatus {
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
    let eds = HealthStatus::from_str_name(host.eds_health_status).unwrap_or(HealthStatus::Healthy);
    // Envoy shows an unknown status as healthy.
    let eds = if eds == HealthStatus::Unknown {
        HealthStatus::Healthy
    } else {
        eds
    };
    HostStatus {
        address: Some(address(&host.address)),
        stats,
        health_status: Some(HostHealthStatus {
            failed_outlier_check: host.ejected,
            eds_health_status: eds.into(),
            ..HostHealthStatus::default()
        }),
        weight: host.weight,
        hostname: host.hostname.clone(),
        priority: host.priority,
        locality: Some(Locality {
            region: host.region.clone(),
            zone: host.zone.clone(),
            sub_zone: host.sub_zone.clone(),
        }),
        ..HostStatus::default()
    }
}
