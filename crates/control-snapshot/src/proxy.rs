//! A proxy as it introduces itself in its first xDS request (`envoy.config.core.v3.Node`, with Istio's metadata).

use std::fmt;
use std::sync::Arc;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::wkt;
use serde_json::Value;

use crate::kubernetes::Labels;
use crate::service::Locality;

/// What a proxy is for; the first part of its node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// Beside one workload.
    Sidecar,
    /// At the edge (`router`).
    Gateway,
}

/// How traffic reaches the proxy (`INTERCEPTION_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interception {
    /// By address translation.
    #[default]
    Redirect,
    /// By transparent sockets.
    Tproxy,
    /// Not at all: applications dial the proxy.
    None,
    /// Not at all, and the agent tells the application a port of the proxy for each port of each service. Istio has no
    /// word for it; istiod takes the unknown `PORTS` for `REDIRECT`.
    Ports,
}

/// What the configuration of a proxy depends on; equal profiles get equal configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// What it is for.
    pub kind: ProxyKind,
    /// The namespace whose configuration applies.
    pub namespace: Arc<str>,
    /// The labels of its workload.
    pub labels: Labels,
    /// The suffix of Kubernetes names, `cluster.local`.
    pub domain: Arc<str>,
    /// The Kubernetes cluster (`CLUSTER_ID`).
    pub cluster: Arc<str>,
    /// The mesh (`MESH_ID`).
    pub mesh: Arc<str>,
    /// How traffic reaches it.
    pub interception: Interception,
    /// Whether it names its requests' protocols in ALPN as the mesh does (`istio.alpn`).
    pub announces_protocols: bool,
    /// Whether it tells its peers about its workload, and learns about theirs, on connections that carry bytes
    /// (`istio.metadata_exchange` among its network filters).
    pub exchanges_metadata: bool,
    /// The same in the headers of requests (among its HTTP filters).
    pub exchanges_metadata_in_headers: bool,
    /// Whether it counts requests as Istio does (`istio.stats`).
    pub istio_stats: bool,
    /// Whether its workload has an identity, by the label `security.istio.io/tlsMode` of the node: every proxy of
    /// Istio's has one, so only a proxy that says something else than `istio` there has none.
    pub identity: bool,
    /// Whether it injects faults (`envoy.filters.http.fault`).
    pub injects_faults: bool,
    /// Whether it answers cross-origin requests (`envoy.filters.http.cors`).
    pub answers_cors: bool,
    /// Whether its retries can prefer other priorities (`envoy.retry_priorities.previous_priorities`).
    pub retries_elsewhere: bool,
    /// Whether it counts what is said in MongoDB's protocol (`envoy.filters.network.mongo_proxy`).
    pub counts_mongo: bool,
    /// Whether it carries streams inside HTTP (`envoy.filters.connection_pools.tcp.generic`, which is what does so in Envoy).
    pub tunnels: bool,
    /// Whether it must not bind ports below 1024 (`UNPRIVILEGED_POD`).
    pub unprivileged: bool,
    /// Whether HTTP/1.0 is accepted (`HTTP10`).
    pub http10: bool,
    /// `IDLE_TIMEOUT` for HTTP connections, as written.
    pub idle_timeout: Arc<str>,
    /// The mesh `ProxyConfig` it announced (`PROXY_CONFIG`), canonical JSON, empty when none.
    pub proxy_config: Arc<str>,
}

/// A connected proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// The node id, `sidecar~10.244.0.10~productpage-v1.default~default.svc.cluster.local`.
    pub id: Arc<str>,
    /// Its addresses, the one of the node id first.
    pub addresses: Vec<Arc<str>>,
    /// The workload's name.
    pub name: Arc<str>,
    /// Where it stands; empty when it did not say.
    pub locality: Locality,
    /// The node (machine) it runs on.
    pub node_name: Arc<str>,
    /// The network it is in.
    pub network: Arc<str>,
    /// The service account it says it has (`SERVICE_ACCOUNT`); empty when it does not say.
    pub service_account: Arc<str>,
    /// The WorkloadGroup it wants to join (`AUTO_REGISTER_GROUP`).
    pub auto_register_group: Arc<str>,
    /// The WorkloadEntry that somebody has made for it (`WORKLOAD_ENTRY`).
    pub workload_entry: Arc<str>,
    /// What its configuration depends on.
    pub profile: Profile,
}

/// Why a node cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// The id is not `type~address~name.namespace~domain`.
    MalformedId(String),
    /// The first part of the id is a kind of proxy that is not served.
    UnsupportedKind(String),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MalformedId(id) => {
                write!(
                    f,
                    "node id {id:?} is not of the form type~address~name.namespace~domain"
                )
            }
            Self::UnsupportedKind(kind) => {
                write!(
                    f,
                    "proxies of type {kind:?} are not served; expected sidecar or router"
                )
            }
        }
    }
}

impl std::error::Error for NodeError {}

/// `istio` where a workload has an identity and accepts the mesh's mutual TLS.
pub(crate) const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

impl Proxy {
    /// Reads a node.
    ///
    /// # Errors
    /// An id that is not Istio's, or a kind of proxy that is not served.
    pub fn from_node(node: &Node) -> Result<Self, NodeError> {
        let malformed = || NodeError::MalformedId(node.id.clone());
        let [kind, address, name, domain] = node
            .id
            .split('~')
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| malformed())?;
        let kind = match kind {
            "sidecar" => ProxyKind::Sidecar,
            "router" => ProxyKind::Gateway,
            other => return Err(NodeError::UnsupportedKind(other.to_owned())),
        };
        let metadata = Metadata(node.metadata.as_ref().map(wkt::json_struct).unwrap_or_default());
        let (pod, pod_namespace) = name.rsplit_once('.').ok_or_else(malformed)?;
        let namespace = metadata.text("NAMESPACE").unwrap_or(pod_namespace);
        let locality = node.locality.as_ref().map(|l| Locality {
            region: l.region.as_str().into(),
            zone: l.zone.as_str().into(),
            sub_zone: l.sub_zone.as_str().into(),
        });
        Ok(Self {
            id: node.id.as_str().into(),
            addresses: addresses(address, metadata.text("INSTANCE_IPS")),
            name: pod.into(),
            locality: locality.unwrap_or_default(),
            node_name: metadata.shared("NODE_NAME"),
            network: metadata.shared("NETWORK"),
            service_account: metadata.shared("SERVICE_ACCOUNT"),
            auto_register_group: metadata.shared("AUTO_REGISTER_GROUP"),
            workload_entry: metadata.shared("WORKLOAD_ENTRY"),
            profile: Profile {
                kind,
                namespace: namespace.into(),
                labels: metadata.labels(),
                domain: domain_suffix(domain, namespace),
                cluster: metadata.shared("CLUSTER_ID"),
                mesh: metadata.shared("MESH_ID"),
                interception: metadata.interception(),
                announces_protocols: has_extension(node, "istio.alpn"),
                exchanges_metadata: exchanges_metadata(node, "envoy.filters.network"),
                exchanges_metadata_in_headers: exchanges_metadata(node, "envoy.filters.http"),
                istio_stats: has_extension(node, "istio.stats"),
                identity: metadata.has_identity(),
                injects_faults: has_extension(node, "envoy.filters.http.fault"),
                answers_cors: has_extension(node, "envoy.filters.http.cors"),
                retries_elsewhere: has_extension(node, "envoy.retry_priorities.previous_priorities"),
                counts_mongo: has_extension(node, "envoy.filters.network.mongo_proxy"),
                tunnels: has_extension(node, "envoy.filters.connection_pools.tcp.generic"),
                unprivileged: metadata.flag("UNPRIVILEGED_POD"),
                http10: metadata.flag("HTTP10"),
                idle_timeout: metadata.shared("IDLE_TIMEOUT"),
                proxy_config: metadata
                    .0
                    .get("PROXY_CONFIG")
                    .map(Value::to_string)
                    .unwrap_or_default()
                    .into(),
            },
        })
    }

    /// The namespace in its node id. Istio's agent takes it and `NAMESPACE` from the same place; others may not.
    #[must_use]
    pub fn id_namespace(&self) -> &str {
        let name = self.id.split('~').nth(2).unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, namespace)| namespace)
    }

    /// Whether this address is one of the proxy's own.
    #[must_use]
    pub fn has_address(&self, address: &str) -> bool {
        self.addresses.iter().any(|a| &**a == address)
    }
}

/// The canonical service of a workload: the label, `app.kubernetes.io/name`, `app`, or the workload's own name.
pub fn canonical_name<'a>(labels: &'a Labels, workload: &'a str) -> &'a str {
    let keys = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    keys.iter()
        .find_map(|key| labels.get(*key))
        .map_or(workload, String::as_str)
}

/// The canonical revision of a workload: the label, `app.kubernetes.io/version`, `version`, or `latest`.
pub fn canonical_revision(labels: &Labels) -> &str {
    let keys = [
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ];
    keys.iter()
        .find_map(|key| labels.get(*key))
        .map_or("latest", String::as_str)
}

/// Whether a proxy has an extension. A plain Envoy lists what it has, and so lacks Istio's own; one that lists none is
/// taken for Istio's, which has all.
fn has_extension(node: &Node, name: &str) -> bool {
    node.extensions.is_empty() || node.extensions.iter().any(|extension| extension.name == name)
}

/// Whether a proxy has Istio's metadata exchange among its filters of this category. Both kinds are configured under one
/// name, and a proxy may have one of them only.
fn exchanges_metadata(node: &Node, category: &str) -> bool {
    let names = ["istio.metadata_exchange", "envoy.filters.http.peer_metadata"];
    let mut extensions = node.extensions.iter();
    node.extensions.is_empty()
        || extensions.any(|e| e.category == category && names.contains(&e.name.as_str()))
}

fn addresses(first: &str, instance_ips: Option<&str>) -> Vec<Arc<str>> {
    let mut all: Vec<Arc<str>> = vec![first.into()];
    for ip in instance_ips
        .unwrap_or_default()
        .split(',')
        .filter(|ip| !ip.is_empty())
    {
        if all.iter().all(|known| &**known != ip) {
            all.push(ip.into());
        }
    }
    all
}

/// `default.svc.cluster.local` is namespace, `svc` and the suffix of the cluster.
fn domain_suffix(domain: &str, namespace: &str) -> Arc<str> {
    let suffix = domain
        .strip_prefix(namespace)
        .and_then(|d| d.strip_prefix(".svc."));
    suffix.filter(|s| !s.is_empty()).unwrap_or("cluster.local").into()
}

/// The node's metadata as JSON.
struct Metadata(Value);

impl Metadata {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str).filter(|s| !s.is_empty())
    }

    fn shared(&self, key: &str) -> Arc<str> {
        self.text(key).unwrap_or_default().into()
    }

    /// Envoy's bootstrap writes flags as text, the agent as JSON.
    fn flag(&self, key: &str) -> bool {
        match self.0.get(key) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => matches!(text.as_str(), "1" | "true" | "TRUE" | "True" | "t" | "T"),
            _ => false,
        }
    }

    fn labels(&self) -> Labels {
        let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        self.0
            .get("LABELS")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(text)
            .collect()
    }

    fn has_identity(&self) -> bool {
        let mode = self
            .0
            .pointer("/LABELS")
            .and_then(|labels| labels.get(TLS_MODE_LABEL));
        mode.and_then(Value::as_str).is_none_or(|mode| mode == "istio")
    }

    fn interception(&self) -> Interception {
        match self.text("INTERCEPTION_MODE") {
            Some("NONE") => Interception::None,
            Some("TPROXY") => Interception::Tproxy,
            Some("PORTS") => Interception::Ports,
            _ => Interception::Redirect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::envoy::config::core::v3::Extension;
    use serde_json::json;

    fn node(id: &str) -> Node {
        let metadata = wkt::structure(&json!({
            "NAMESPACE": "default", "CLUSTER_ID": "Kubernetes", "LABELS": {"app": "productpage"},
            "INSTANCE_IPS": "10.244.0.10,10.244.0.11", "INTERCEPTION_MODE": "REDIRECT", "UNPRIVILEGED_POD": "true",
        }));
        Node {
            id: id.to_owned(),
            metadata: Some(metadata),
            ..Node::default()
        }
    }

    #[test]
    fn a_node_id_names_kind_address_workload_and_namespace() {
        let node = node("sidecar~10.244.0.10~productpage-v1.default~default.svc.cluster.local");
        let proxy = Proxy::from_node(&node).expect("valid node");
        assert_eq!(proxy.profile.kind, ProxyKind::Sidecar);
        assert_eq!(
            (&*proxy.name, &*proxy.profile.namespace),
            ("productpage-v1", "default")
        );
        assert_eq!(&*proxy.profile.domain, "cluster.local");
        assert!(proxy.has_address("10.244.0.11"));
        assert!(proxy.profile.unprivileged);
    }

    #[test]
    fn a_proxy_has_an_identity_unless_its_label_says_that_it_has_none() {
        let id = "sidecar~10.244.0.10~a.default~default.svc.cluster.local";
        let with = |labels: Value| {
            let mut node = node(id);
            node.metadata = Some(wkt::structure(&json!({ "LABELS": labels })));
            Proxy::from_node(&node).expect("valid").profile.identity
        };
        assert!(with(json!({})) && with(json!({TLS_MODE_LABEL: "istio"})));
        assert!(!with(json!({TLS_MODE_LABEL: "disabled"})));
    }

    #[test]
    fn other_node_ids_are_refused_with_a_reason() {
        assert_eq!(
            Proxy::from_node(&node("envoy-1")),
            Err(NodeError::MalformedId("envoy-1".to_owned()))
        );
        let error = Proxy::from_node(&node("ztunnel~1.2.3.4~a.b~c")).expect_err("unsupported kind");
        assert_eq!(
            error.to_string(),
            "proxies of type \"ztunnel\" are not served; expected sidecar or router"
        );
    }

    #[test]
    fn a_plain_envoy_lists_its_extensions_and_gets_none_of_istios() {
        let mut node = node("sidecar~10.244.0.10~a.default~default.svc.cluster.local");
        let istios = |node: &Node| {
            let profile = Proxy::from_node(node).expect("valid").profile;
            [
                profile.announces_protocols,
                profile.exchanges_metadata,
                profile.exchanges_metadata_in_headers,
                profile.istio_stats,
            ]
        };
        assert_eq!(istios(&node), [true; 4]);
        let extension = |name: &str| Extension {
            name: name.to_owned(),
            category: "envoy.filters.network".to_owned(),
            ..Extension::default()
        };
        node.extensions = vec![extension("envoy.filters.http.router")];
        assert_eq!(istios(&node), [false; 4]);
        let profile = Proxy::from_node(&node).expect("valid").profile;
        assert!(
            !profile.injects_faults && !profile.answers_cors && !profile.counts_mongo && !profile.tunnels
        );
        node.extensions.push(extension("istio.alpn"));
        assert_eq!(istios(&node), [true, false, false, false]);
        // On connections that carry bytes only: requests keep their headers.
        node.extensions.push(extension("istio.metadata_exchange"));
        assert_eq!(istios(&node), [true, true, false, false]);
    }
}
