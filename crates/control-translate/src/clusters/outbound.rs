//! Clusters of the services a proxy may call: one per port and subset.

use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::wkt;
use control_snapshot::spread::effective_policy;
use control_snapshot::{Endpoint, Protocol, ProxyKind, ProxyView, ServicePort, ServiceView, kubernetes};
use diagnostics::Diagnostic;

use super::upstream_tls::Upstream;
use super::{builtin, discovery, metadata, protocol, upstream_tls};
use crate::features::{cluster_names, connection_pool, load_balancing, outlier_detection};
use crate::role::Role;
use crate::{auto_passthrough, names};

/// How a cluster is chosen, and what is sent to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chosen {
    /// By a route: requests and streams, which it may wrap in TLS.
    ByRoute,
    /// By the server name of the mesh's mutual TLS (`AUTO_PASSTHROUGH`), which is passed on as it is.
    ByServerName,
}

/// All outbound clusters.
pub(super) fn build(view: &ProxyView, diagnostics: &mut Vec<Diagnostic>) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for (service, port) in auto_passthrough::of_all_servers(view) {
        for subset in subsets(service) {
            clusters.extend(cluster(
                view,
                service,
                port,
                subset,
                Chosen::ByServerName,
                diagnostics,
            ));
        }
    }
    for service in &view.services {
        for port in service
            .service
            .ports
            .iter()
            .filter(|p| p.protocol != Protocol::Udp)
        {
            for subset in subsets(service) {
                clusters.extend(cluster(view, service, port, subset, Chosen::ByRoute, diagnostics));
            }
        }
    }
    clusters
}

/// The whole service, then each subset.
fn subsets(service: &ServiceView) -> impl Iterator<Item = &str> {
    let rule = service.rule.iter();
    let named = rule.flat_map(|r| r.config.spec.subsets.iter().map(|s| s.name.as_str()));
    std::iter::once("").chain(named)
}

fn cluster(
    view: &ProxyView,
    service: &ServiceView,
    port: &ServicePort,
    subset: &str,
    chosen: Chosen,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Cluster> {
    let role = match view.profile.kind {
        ProxyKind::Sidecar => Role::SidecarOutbound,
        ProxyKind::Gateway => Role::Gateway,
    };
    let rule = service.rule.as_deref();
    let mut policy = effective_policy(rule, subset, port.port);
    let mesh = &view.mesh;
    policy.connection_pool = policy
        .connection_pool
        .or_else(|| mesh.default_connection_pool().cloned());
    policy.outlier_detection = policy
        .outlier_detection
        .or_else(|| mesh.default_outlier_detection().cloned());
    let name = match chosen {
        Chosen::ByRoute => names::outbound(port.port, subset, &service.service.hostname),
        Chosen::ByServerName => names::server_name(port.port, subset, &service.service.hostname),
    };
    let mut cluster = Cluster {
        alt_stat_name: names::stat(&cluster_names::outbound(
            &view.mesh,
            &service.service,
            port,
            subset,
            &name,
        )),
        name,
        connect_timeout: Some(wkt::duration(connection_pool::connect_timeout(
            &policy, &view.mesh,
        ))),
        circuit_breakers: Some(connection_pool::circuit_breakers(Some(&policy))),
        upstream_connection_options: connection_pool::keepalive(&policy, &view.mesh),
        outlier_detection: policy.outlier_detection.as_ref().map(outlier_detection::build),
        metadata: Some(metadata::of(&service.service, rule, subset)),
        ..Cluster::default()
    };
    load_balancing::apply(&mut cluster, &policy, &service.service, &view.mesh);
    let found = load_balancing::discovery(&policy, discovery::kind(view, service));
    if !discovery::apply(
        &mut cluster,
        found,
        dns_endpoints(service, port.port, subset),
        &view.mesh,
    ) {
        return None;
    }
    let version = protocol::apply(&mut cluster, role, port.protocol, &policy, &view.mesh);
    let upstream = Upstream {
        view,
        service,
        port: port.port,
        subset,
        discovery: found,
        protocol: port.protocol,
        version,
    };
    builtin::exchange_metadata(view, &mut cluster);
    if chosen == Chosen::ByServerName {
        return Some(cluster);
    }
    upstream_tls::apply(&mut cluster, &upstream, &policy, diagnostics).then_some(cluster)
}

/// The endpoints of a subset of a service that is resolved by DNS.
fn dns_endpoints(service: &ServiceView, port: u32, subset: &str) -> Vec<Endpoint> {
    let all = service
        .dns_endpoints
        .iter()
        .find(|(p, _)| *p == port)
        .map(|(_, list)| list.as_slice());
    let rule = service.rule.as_deref();
    let labels = rule
        .and_then(|r| r.config.spec.subsets.iter().find(|s| s.name == subset))
        .map(|s| &s.labels);
    let selected = |e: &&Endpoint| {
        labels.is_none_or(|l| subset.is_empty() || kubernetes::selects(l, &e.workload.labels))
    };
    all.unwrap_or_default().iter().filter(selected).cloned().collect()
}
