//! A service of the mesh, wherever it was declared, and the endpoints that answer for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::kubernetes::Labels;
use crate::protocol::Protocol;

/// Who may see an object (`exportTo`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Every namespace (`*`).
    #[default]
    Public,
    /// These namespaces only; empty means nobody (`~`).
    Namespaces(BTreeSet<String>),
}

impl Visibility {
    /// Reads `exportTo`; `.` is the object's own namespace, an empty list is `default`.
    #[must_use]
    pub fn parse(export_to: &[String], own_namespace: &str, default: &[String]) -> Self {
        let list = if export_to.is_empty() { default } else { export_to };
        if list.is_empty() || list.iter().any(|e| e == "*") {
            return Self::Public;
        }
        let namespaces = list.iter().filter(|e| *e != "~").map(|e| {
            if e == "." {
                own_namespace.to_owned()
            } else {
                e.clone()
            }
        });
        Self::Namespaces(namespaces.collect())
    }

    /// Whether proxies of this namespace see the object.
    #[must_use]
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(list) => list.contains(namespace),
        }
    }
}

/// How a proxy finds the addresses of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// From EDS.
    #[default]
    Endpoints,
    /// By DNS, every address of every name used (`STRICT_DNS`).
    Dns,
    /// By DNS, one address at a time (`LOGICAL_DNS`).
    DnsRoundRobin,
    /// By DNS for the host of each request (dynamic forward proxy).
    DynamicDns,
    /// Not at all: to the address the application dialled.
    Passthrough,
}

/// Where a service was declared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry of this name.
    ServiceEntry(Arc<str>),
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// The name.
    pub name: Arc<str>,
    /// The number on the virtual address.
    pub port: u32,
    /// What is spoken.
    pub protocol: Protocol,
    /// The port at the workload by number, where the declaration gives one.
    pub target_port: Option<u32>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// The host it is known by, fully qualified or as a ServiceEntry wrote it; may be a wildcard.
    pub hostname: Arc<str>,
    /// The name in cluster metadata: the Service's name, or the host of a ServiceEntry.
    pub name: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// Where it was declared.
    pub origin: Origin,
    /// When it was declared, RFC 3339.
    pub created: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Virtual addresses and ranges; empty when it has none.
    pub addresses: Vec<Arc<str>>,
    /// Its ports, in the order of the declaration.
    pub ports: Vec<ServicePort>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Whether it runs outside the mesh.
    pub external: bool,
    /// Who sees it.
    pub visibility: Visibility,
    /// Kubernetes' name for "no virtual address".
    pub headless: bool,
    /// ExternalName services that stand for this one, as host and namespace.
    pub aliases: Vec<Arc<str>>,
    /// Identities its servers may have, beyond those of its workloads.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Kubernetes' `trafficDistribution`, or the annotation of that meaning.
    pub traffic_distribution: TrafficDistribution,
}

/// Which endpoints a client prefers without any DestinationRule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// No preference.
    #[default]
    Any,
    /// Same network, region, zone, subzone, in that order (`PreferClose`).
    PreferClose,
    /// Same zone, then region (`PreferSameZone`).
    PreferSameZone,
    /// Same node first (`PreferSameNode`).
    PreferSameNode,
}

impl Service {
    /// The port of this number.
    #[must_use]
    pub fn port(&self, number: u32) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.port == number)
    }

    /// Whether its addresses come out of EDS or its declaration (and not from the application's own resolution).
    #[must_use]
    pub fn is_kubernetes(&self) -> bool {
        self.origin == Origin::Kubernetes
    }
}

/// Where a workload stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// The region.
    pub region: Arc<str>,
    /// The zone.
    pub zone: Arc<str>,
    /// The subzone.
    pub sub_zone: Arc<str>,
}

impl Locality {
    /// Reads `region/zone/subzone`; later parts may be missing.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(Arc::from);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            region: next(),
            zone: next(),
            sub_zone: next(),
        }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }
}

impl fmt::Display for Locality {
    /// `region/zone/subzone` without what is missing at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = [&*self.region, &*self.zone, &*self.sub_zone].join("/");
        f.write_str(path.trim_end_matches('/'))
    }
}

/// Whether an endpoint takes traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Nobody checks.
    #[default]
    Unknown,
    /// Ready.
    Healthy,
    /// Not ready.
    Unhealthy,
    /// Leaving: keeps its sessions, takes no new ones.
    Draining,
}

/// What runs behind an endpoint, whichever port is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// The pod's or entry's name; empty when nothing is known about the address.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Where it stands.
    pub locality: Locality,
    /// The node it runs on.
    pub node: Arc<str>,
    /// Its identity, `spiffe://…`; empty when it has none.
    pub identity: Arc<str>,
    /// Whether it accepts the mesh's mutual TLS (`security.istio.io/tlsMode: istio`).
    pub mutual_tls: bool,
    /// The network it is in.
    pub network: Arc<str>,
    /// The Kubernetes cluster it belongs to.
    pub cluster: Arc<str>,
}

/// Where bytes go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address, or a DNS name of a service that is resolved by DNS, and a port.
    Socket(Arc<str>, u32),
    /// A Unix domain socket.
    Pipe(Arc<str>),
}

/// One address that answers for one port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Its share of the traffic, at least 1.
    pub weight: u32,
    /// Whether it takes traffic.
    pub health: Health,
    /// Whether callers should offer the mesh's mutual TLS here: the workload accepts it, and its PeerAuthentication does
    /// not disable it on this port.
    pub mutual_tls: bool,
    /// What runs there.
    pub workload: Arc<Workload>,
}

/// The endpoints of one service, by service port number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceEndpoints {
    /// By port number.
    pub ports: BTreeMap<u32, Vec<Endpoint>>,
    /// Identities of workloads that are on their way out: connections to them may still be open.
    pub departing: BTreeSet<Arc<str>>,
}

impl ServiceEndpoints {
    /// The identities of all workloads that answer for the service, sorted.
    #[must_use]
    pub fn identities(&self) -> Vec<Arc<str>> {
        let all = self
            .ports
            .values()
            .flatten()
            .map(|e| &e.workload.identity)
            .chain(&self.departing);
        let set: BTreeSet<&Arc<str>> = all.filter(|i| !i.is_empty()).collect();
        set.into_iter().cloned().collect()
    }

    /// Whether there are endpoints and all of them take the mesh's mutual TLS.
    #[must_use]
    pub fn all_mutual_tls(&self) -> bool {
        let mut all = self.ports.values().flatten().peekable();
        all.peek().is_some() && all.all(|e| e.mutual_tls)
    }

    /// The distinct IP addresses of all endpoints that take traffic, sorted as text.
    #[must_use]
    pub fn addresses(&self) -> Vec<Arc<str>> {
        let all = self.ports.values().flatten().filter_map(|e| match &e.address {
            Address::Socket(ip, _) if e.health != Health::Unhealthy => Some(ip),
            _ => None,
        });
        let set: BTreeSet<&Arc<str>> = all.collect();
        set.into_iter().cloned().collect()
    }
}
