//! Clusters of the services a proxy may call: one per port and subset. Those of a service are made together, of the service
//! and of the client alone, so that clients that are alike have them in common.

use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::wkt;
use control_snapshot::spread::effective_policy;
use control_snapshot::{
    Endpoint, Protocol, ProxyKind, ProxyView, Rule, ServicePort, ServiceView, Shared, kubernetes,
};
use diagnostics::{Code, Diagnostic};

use super::upstream_tls::Upstream;
use super::{builtin, discovery, metadata, protocol, upstream_tls};
use crate::client::Client;
use crate::features::{cluster_names, connection_pool, load_balancing, outlier_detection};
use crate::packed::Packed;
use crate::role::Role;
use crate::{auto_passthrough, names};

/// How a cluster is chosen, and what is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Chosen {
    /// By a route: requests and streams, which it may wrap in TLS.
    ByRoute,
    /// By the server name of the mesh's mutual TLS (`AUTO_PASSTHROUGH`), which is passed on as it is.
    ByServerName,
}

/// The clusters that lead to one service, by all that they are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServiceClusters {
    client: Client,
    service: Shared<ServiceView>,
    chosen: Chosen,
}

/// What comes of that.
#[derive(Debug)]
pub(crate) struct MadeClusters {
    pub(super) clusters: Vec<Packed>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// All outbound clusters of a proxy, service by service.
pub(super) fn services(view: &ProxyView) -> impl Iterator<Item = ServiceClusters> {
    let client = Client::of(view);
    let passed_on = auto_passthrough::of_all_servers(view).map(|service| (service, Chosen::ByServerName));
    let routed = view.services.iter().map(|service| (service, Chosen::ByRoute));
    passed_on
        .chain(routed)
        .map(move |(service, chosen)| ServiceClusters {
            client: client.clone(),
            service: service.clone(),
            chosen,
        })
}

impl ServiceClusters {
    pub(super) fn make(&self) -> MadeClusters {
        let service = &self.service;
        let mut made = MadeClusters {
            clusters: Vec::new(),
            diagnostics: Vec::new(),
        };
        let ports = service.service.ports.iter();
        for port in ports.filter(|p| p.protocol != Protocol::Udp) {
            for subset in subsets(service) {
                let cluster = cluster(
                    &self.client,
                    service,
                    port,
                    subset,
                    self.chosen,
                    &mut made.diagnostics,
                );
                made.clusters.extend(cluster.map(|c| Packed::new(&c.name, &c)));
            }
        }
        made
    }
}

/// The whole service, then each subset.
fn subsets(service: &ServiceView) -> impl Iterator<Item = &str> {
    let rule = service.rule.iter();
    let named = rule.flat_map(|r| r.config.spec.subsets.iter().map(|s| s.name.as_str()));
    std::iter::once("").chain(named)
}

fn cluster(
    client: &Client,
    service: &ServiceView,
    port: &ServicePort,
    subset: &str,
    chosen: Chosen,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Cluster> {
    let role = match client.kind {
        ProxyKind::Sidecar => Role::SidecarOutbound,
        ProxyKind::Gateway => Role::Gateway,
    };
    let rule = service.rule.as_deref();
    let mut policy = effective_policy(rule, subset, port.port);
    if let Some(rule) = rule.filter(|_| policy.tunnel.is_some() && !client.tunnels) {
        diagnostics.push(no_tunnel(rule, subset, &service.service.hostname));
    }
    let mesh = &client.mesh;
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
            mesh,
            &service.service,
            port,
            subset,
            &name,
        )),
        name,
        connect_timeout: Some(wkt::duration(connection_pool::connect_timeout(&policy, mesh))),
        circuit_breakers: Some(connection_pool::circuit_breakers(Some(&policy))),
        upstream_connection_options: connection_pool::keepalive(&policy, mesh),
        outlier_detection: policy.outlier_detection.as_ref().map(outlier_detection::build),
        metadata: Some(metadata::of(&service.service, rule, subset)),
        ..Cluster::default()
    };
    load_balancing::apply(&mut cluster, &policy, &service.service, mesh);
    let found = load_balancing::discovery(&policy, discovery::kind(client.kind, service));
    if !discovery::apply(
        &mut cluster,
        found,
        dns_endpoints(service, port.port, subset),
        mesh,
    ) {
        return None;
    }
    let version = protocol::apply(&mut cluster, role, port.protocol, &policy, mesh);
    let upstream = Upstream {
        client,
        service,
        port: port.port,
        subset,
        discovery: found,
        protocol: port.protocol,
        version,
    };
    builtin::exchange_metadata(client.exchanges_metadata, &mut cluster);
    if chosen == Chosen::ByServerName {
        return Some(cluster);
    }
    upstream_tls::apply(&mut cluster, &upstream, &policy, diagnostics).then_some(cluster)
}

fn no_tunnel(rule: &Rule, subset: &str, host: &str) -> Diagnostic {
    let mut subsets = rule.config.spec.subsets.iter();
    let own = subsets.position(|of| {
        let policy = of.traffic_policy.as_ref();
        of.name == subset && policy.is_some_and(|policy| policy.tunnel.is_some())
    });
    let field = own.map_or_else(
        || "spec.trafficPolicy.tunnel".to_owned(),
        |index| format!("spec.subsets[{index}].trafficPolicy.tunnel"),
    );
    let message = format!("the proxies carry no connections to {host} inside HTTP");
    Diagnostic::new(Code::SchemaWarning, rule.config.resource(), message)
        .at(field)
        .hint("connections over TCP and TLS to it are closed, because without the tunnel they would lead elsewhere")
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
