//! The parts of the Kubernetes core kinds that the mesh reads (`v1`, `discovery.k8s.io/v1`), leniently: unknown fields
//! are somebody else's business, missing ones have their zero value.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

macro_rules! kubernetes {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[$field_doc])*
                #[serde(deserialize_with = "null_default")]
                pub $field: $ty,
            )*
        }
    )*};
}

kubernetes! {
    /// `ObjectMeta`.
    struct ObjectMeta {
        /// The object's name.
        name: String,
        /// Its namespace, empty for cluster-wide kinds.
        namespace: String,
        /// Its labels.
        labels: Labels,
        /// Its annotations.
        annotations: Labels,
        /// What tells it from a later object of the same name.
        uid: String,
        /// When it was created, RFC 3339; earlier objects win over later ones.
        creation_timestamp: String,
        /// Whose child it is.
        owner_references: Vec<OwnerReference>,
    }

    /// `OwnerReference`.
    struct OwnerReference {
        /// The owner's kind.
        kind: String,
        /// The owner's name.
        name: String,
        /// Whether the owner manages this object.
        controller: bool,
    }

    /// `v1/Namespace`.
    struct Namespace {
        /// Metadata.
        metadata: ObjectMeta,
    }

    /// `v1/Node`: its labels say where it stands.
    struct Node {
        /// Metadata.
        metadata: ObjectMeta,
    }

    /// `v1/Service`.
    struct Service {
        /// Metadata.
        metadata: ObjectMeta,
        /// What is wanted.
        spec: ServiceSpec,
    }

    /// `v1/ServiceSpec`.
    struct ServiceSpec {
        /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; empty means `ClusterIP`.
        #[serde(rename = "type")]
        kind: String,
        /// The virtual address; `None` for a headless service.
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        /// The host that an ExternalName service stands for.
        external_name: String,
        /// Which pods answer.
        selector: Labels,
        /// The ports.
        ports: Vec<ServicePort>,
        /// Whether endpoints that are not ready get traffic too.
        publish_not_ready_addresses: bool,
        /// `PreferClose`, `PreferSameZone` or `PreferSameNode`.
        traffic_distribution: String,
    }

    /// `v1/ServicePort`.
    struct ServicePort {
        /// Its name, which may declare the protocol.
        name: String,
        /// `TCP`, `UDP` or `SCTP`; empty means TCP.
        protocol: String,
        /// The protocol above the transport.
        app_protocol: Option<String>,
        /// The port on the virtual address.
        port: u32,
        /// The port on the pod.
        target_port: Option<IntOrString>,
    }

    /// `discovery.k8s.io/v1/EndpointSlice`.
    struct EndpointSlice {
        /// Metadata; the label `kubernetes.io/service-name` names the service.
        metadata: ObjectMeta,
        /// `IPv4`, `IPv6` or `FQDN`.
        address_type: String,
        /// The ports all endpoints of the slice have.
        ports: Vec<EndpointPort>,
        /// The endpoints.
        endpoints: Vec<SliceEndpoint>,
    }

    /// `discovery.k8s.io/v1/EndpointPort`.
    struct EndpointPort {
        /// The service port's name.
        name: String,
        /// The port at the endpoint.
        port: Option<u32>,
        /// The transport.
        protocol: String,
    }

    /// `discovery.k8s.io/v1/Endpoint`.
    struct SliceEndpoint {
        /// Addresses; they stand for one and the same endpoint.
        addresses: Vec<String>,
        /// Whether it answers.
        conditions: EndpointConditions,
        /// The node it runs on.
        node_name: String,
        /// Its zone, where no node says so.
        zone: String,
        /// The pod behind it.
        target_ref: Option<TargetRef>,
    }

    /// `discovery.k8s.io/v1/EndpointConditions`; what is absent counts as true, except `terminating`.
    struct EndpointConditions {
        /// Ready for traffic.
        ready: Option<bool>,
        /// On its way out.
        terminating: Option<bool>,
    }

    /// `v1/ObjectReference` of an endpoint.
    struct TargetRef {
        /// The kind, `Pod`.
        kind: String,
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    }

    /// `gateway.networking.k8s.io/ReferenceGrant`: what in its namespace others may refer to.
    struct ReferenceGrant {
        /// Metadata.
        metadata: ObjectMeta,
        /// What is wanted.
        spec: ReferenceGrantSpec,
    }

    /// `ReferenceGrantSpec`.
    struct ReferenceGrantSpec {
        /// Who may.
        from: Vec<ReferenceGrantFrom>,
        /// To what.
        to: Vec<ReferenceGrantTo>,
    }

    /// `ReferenceGrantFrom`: objects of a kind in a namespace.
    struct ReferenceGrantFrom {
        /// The API group of the kind.
        group: String,
        /// The kind.
        kind: String,
        /// The namespace.
        namespace: String,
    }

    /// `ReferenceGrantTo`: objects of a kind beside the grant.
    struct ReferenceGrantTo {
        /// The API group of the kind.
        group: String,
        /// The kind.
        kind: String,
        /// The one object of this name; all when it is empty.
        name: String,
    }

    /// `v1/Pod`.
    struct Pod {
        /// Metadata.
        metadata: ObjectMeta,
        /// What runs in it.
        spec: PodSpec,
        /// Where it runs and whether it is ready.
        status: PodStatus,
    }

    /// `v1/PodSpec`.
    struct PodSpec {
        /// The node.
        node_name: String,
        /// Whose identity it has.
        service_account_name: String,
        /// The containers.
        containers: Vec<Container>,
        /// Whether the pod has the node's addresses.
        host_network: bool,
    }

    /// `v1/Container`.
    struct Container {
        /// The name.
        name: String,
        /// The ports it says it has.
        ports: Vec<ContainerPort>,
    }

    /// `v1/ContainerPort`.
    struct ContainerPort {
        /// The name that a service's `targetPort` may use.
        name: String,
        /// The number.
        container_port: u32,
        /// The transport.
        protocol: String,
    }

    /// `v1/PodStatus`.
    struct PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed`.
        phase: String,
        /// The first address.
        #[serde(rename = "podIP")]
        pod_ip: String,
        /// All addresses.
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        /// Among them `Ready`.
        conditions: Vec<PodCondition>,
    }

    /// `v1/PodIP`.
    struct PodIp {
        /// The address.
        ip: String,
    }

    /// `v1/PodCondition`.
    struct PodCondition {
        /// The condition.
        #[serde(rename = "type")]
        kind: String,
        /// `True`, `False` or `Unknown`.
        status: String,
    }

    /// `v1/ConfigMap`.
    struct ConfigMap {
        /// Metadata.
        metadata: ObjectMeta,
        /// Its texts.
        data: BTreeMap<String, String>,
    }
}

/// `IntOrString`: a port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(u32),
    /// A name.
    String(String),
}

impl Pod {
    /// Every address of the pod, the first one first.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let first = Some(self.status.pod_ip.as_str()).filter(|ip| !ip.is_empty());
        let rest = self.status.pod_ips.iter().map(|p| p.ip.as_str());
        first
            .into_iter()
            .chain(rest.filter(|ip| !ip.is_empty() && *ip != self.status.pod_ip))
    }

    /// Whether the pod is ready to take traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status
            .conditions
            .iter()
            .any(|c| c.kind == "Ready" && c.status == "True")
    }

    /// Whether the pod's address may still be used: it has one and has not ended.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.status.pod_ip.is_empty() && !matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The number behind a port name, if a container declares it for this transport.
    #[must_use]
    pub fn named_port(&self, name: &str, transport: &str) -> Option<u32> {
        let transport = if transport.is_empty() { "TCP" } else { transport };
        let ports = self.spec.containers.iter().flat_map(|c| &c.ports);
        let mut found = ports.filter(|p| {
            p.name == name && (p.protocol.is_empty() && transport == "TCP" || p.protocol == transport)
        });
        found.next().map(|p| p.container_port)
    }
}

impl EndpointConditions {
    /// Ready for traffic (absent means yes).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.unwrap_or(true)
    }

    /// On its way out (absent means no).
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.terminating.unwrap_or(false)
    }
}

/// Whether every label of `selector` is among `labels`.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
