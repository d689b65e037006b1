//! What one proxy sees: the whole input of its translation, and therefore the key of every cache of it.

use std::sync::Arc;

use crate::destination_rules::Rule;
use crate::gateways::GatewayPort;
use crate::mesh::{Mesh, OutboundMode};
use crate::proxy::Profile;
use crate::service::{Endpoint, Locality, Service, ServicePort};
use crate::shared::Shared;
use crate::virtual_services::Routing;

/// A service as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceView {
    /// The service.
    pub service: Shared<Service>,
    /// The DestinationRule for this client.
    pub rule: Option<Shared<Rule>>,
    /// The identities its servers may have, sorted.
    pub identities: Vec<Arc<str>>,
    /// Whether a headless service has workloads and all of them accept the mesh's mutual TLS; false for others.
    pub all_mutual_tls: bool,
    /// The addresses of the workloads of a headless service, sorted; empty for others.
    pub workload_addresses: Vec<Arc<str>>,
    /// Those of them that are the proxy's own.
    pub own_addresses: Vec<Arc<str>>,
    /// The endpoints of a service that is resolved by DNS, by port number; empty for others, which use EDS.
    pub dns_endpoints: Vec<(u32, Vec<Endpoint>)>,
}

/// A port on which the proxy's own workload is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundPort {
    /// The service that leads there.
    pub service: Shared<Service>,
    /// The port of the service.
    pub port: ServicePort,
    /// The port of the workload.
    pub target_port: u32,
    /// The DestinationRule of the own service, for the parts that hold on the server's side.
    pub rule: Option<Shared<Rule>>,
}

/// Everything a proxy's listeners, routes and clusters are made of. Equal views have equal translations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyView {
    /// What matters about the proxy itself.
    pub profile: Shared<Profile>,
    /// MeshConfig.
    pub mesh: Shared<Mesh>,
    /// Whether the workload has an identity to show.
    pub identity: bool,
    /// What happens to traffic that no service claims.
    pub outbound: OutboundMode,
    /// The services it may call, oldest first, each host once.
    pub services: Vec<Shared<ServiceView>>,
    /// The routing rules that apply: of the mesh for a sidecar, of its Gateways for a gateway.
    pub routing: Vec<Shared<Routing>>,
    /// The ports of its own workload, oldest service first, each workload port once.
    pub inbound: Vec<InboundPort>,
    /// What a gateway listens on.
    pub gateways: Vec<GatewayPort>,
    /// Where the proxy stands, where that matters to its clusters; else empty.
    pub locality: Locality,
}

/// Everything one ClusterLoadAssignment is made of. Small, so that endpoint changes re-send endpoints only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointView {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// The endpoints of the cluster's subset.
    pub endpoints: Vec<Endpoint>,
    /// How traffic is spread over localities.
    pub spread: Spread,
    /// Whether endpoints may say that they accept the mesh's mutual TLS.
    pub mutual_tls: bool,
}

/// How traffic is spread over localities, seen from one proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Spread {
    /// Without regard to localities.
    #[default]
    Even,
    /// Nearest first; farther ones only when nearer ones fail.
    Failover(FailoverSpread),
    /// By weights of localities: pattern (`region/zone/*`) and percent.
    Distribute(Vec<(Arc<str>, u32)>),
}

/// What "near" means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FailoverSpread {
    /// Where the proxy stands.
    pub from: Locality,
    /// Per label key: the proxy's value. An endpoint that agrees on more of them, from the first on, is nearer.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Regions to fail over to from the proxy's own.
    pub regions: Vec<(Arc<str>, Arc<str>)>,
}

impl ProxyView {
    /// The service of this host.
    #[must_use]
    pub fn service(&self, hostname: &str) -> Option<&Shared<ServiceView>> {
        self.services.iter().find(|s| &*s.service.hostname == hostname)
    }
}

impl ServiceView {
    /// The traffic policy of the service's DestinationRule.
    #[must_use]
    pub fn policy(&self) -> Option<&api_istio::networking::TrafficPolicy> {
        self.rule
            .as_ref()
            .and_then(|rule| rule.config.spec.traffic_policy.as_ref())
    }
}
