//! What one proxy sees: the whole input of its translation, and therefore the key of every cache of it.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use api_istio::mesh::MeshOutboundTrafficPolicyMode as OutboundMode;
use diagnostics::Diagnostic;

use crate::destination_rules::Rule;
use crate::gateways::GatewayPort;
use crate::inbound::InboundPort;
use crate::mesh::Mesh;
use crate::peer_authentication::PeerPolicy;
use crate::proxy::Profile;
use crate::service::{Endpoint, Locality, Service};
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
    /// Whether a service whose workloads are dialled directly (a headless one, or one with the PASSTHROUGH balancer) has
    /// workloads and all of them accept the mesh's mutual TLS; false for others.
    pub all_mutual_tls: bool,
    /// Whether the PeerAuthentication of its namespace, or of the mesh, disables mutual TLS.
    pub refuses_mutual_tls: bool,
    /// The addresses of the workloads of a headless service, sorted; empty for others.
    pub workload_addresses: Vec<Arc<str>>,
    /// Those of them that are the proxy's own.
    pub own_addresses: Vec<Arc<str>>,
    /// The endpoints of a service that is resolved by DNS, by port number; empty for others, which use EDS.
    pub dns_endpoints: Vec<(u32, Vec<Endpoint>)>,
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
    /// What the workload demands of its callers, by PeerAuthentication; a gateway's says nothing.
    pub peers: PeerPolicy,
    /// What happens to traffic that no service claims.
    pub outbound: OutboundMode,
    /// The services it may call, oldest first, each host once.
    pub services: Services,
    /// The routing rules that apply: of the mesh for a sidecar, of its Gateways for a gateway.
    pub routing: Vec<Shared<Routing>>,
    /// The ports of its own workload, oldest service first, each workload port once.
    pub inbound: Vec<InboundPort>,
    /// What a gateway listens on.
    pub gateways: Vec<GatewayPort>,
    /// Where the proxy stands, where that matters to its clusters; else empty.
    pub locality: Locality,
    /// What is wrong with the Gateways that select it, for this proxy alone.
    pub diagnostics: Vec<Diagnostic>,
}

/// The services of a view, in order and by name. Two are equal when their lists are; views that have one list share it.
#[derive(Clone, Debug, Default)]
pub struct Services(Arc<ServiceList>);

#[derive(Debug, Default)]
struct ServiceList {
    list: Vec<Shared<ServiceView>>,
    /// Positions in the list; made when a name is looked up first, since most views are only compared.
    index: OnceLock<Index>,
}

#[derive(Clone, Debug, Default)]
struct Index {
    by_host: HashMap<Arc<str>, usize>,
    by_alias: HashMap<Arc<str>, usize>,
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
        let position = *self.services.index().by_host.get(hostname)?;
        self.services.get(position)
    }

    /// The service that an ExternalName service of this host stands for.
    #[must_use]
    pub fn aliased(&self, hostname: &str) -> Option<&Shared<ServiceView>> {
        let position = *self.services.index().by_alias.get(hostname)?;
        self.services.get(position)
    }
}

impl Services {
    fn index(&self) -> &Index {
        self.0.index.get_or_init(|| {
            let mut index = Index::default();
            for (position, view) in self.iter().enumerate() {
                let host = Arc::clone(&view.service.hostname);
                index.by_host.entry(host).or_insert(position);
                for alias in &view.service.aliases {
                    index.by_alias.entry(Arc::clone(alias)).or_insert(position);
                }
            }
            index
        })
    }
}

impl From<Vec<Shared<ServiceView>>> for Services {
    fn from(list: Vec<Shared<ServiceView>>) -> Self {
        Self(Arc::new(ServiceList {
            list,
            ..ServiceList::default()
        }))
    }
}

impl Deref for Services {
    type Target = [Shared<ServiceView>];

    fn deref(&self) -> &[Shared<ServiceView>] {
        &self.0.list
    }
}

impl<'a> IntoIterator for &'a Services {
    type Item = &'a Shared<ServiceView>;
    type IntoIter = std::slice::Iter<'a, Shared<ServiceView>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Services {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.list == other.0.list
    }
}

impl Eq for Services {}

impl Hash for Services {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.list.hash(state);
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
