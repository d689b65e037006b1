//! The kinds of objects that the control plane watches.

/// The kinds that the mesh watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1/Namespace`.
    Namespace,
    /// `v1/Node`.
    Node,
    /// `v1/Service`.
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    EndpointSlice,
    /// `v1/Pod`.
    Pod,
    /// `v1/ConfigMap`, of which MeshConfig and authorities are read.
    ConfigMap,
    /// `v1/Secret`, of which only credentials of gateways are read.
    Secret,
    /// `gateway.networking.k8s.io/ReferenceGrant`, of which only grants of Secrets are read.
    ReferenceGrant,
    /// `networking.istio.io/VirtualService`.
    VirtualService,
    /// `networking.istio.io/DestinationRule`.
    DestinationRule,
    /// `networking.istio.io/Gateway`.
    Gateway,
    /// `networking.istio.io/ServiceEntry`.
    ServiceEntry,
    /// `networking.istio.io/WorkloadEntry`.
    WorkloadEntry,
    /// `networking.istio.io/WorkloadGroup`.
    WorkloadGroup,
    /// `networking.istio.io/Sidecar`.
    Sidecar,
    /// `networking.istio.io/EnvoyFilter`, without effect yet.
    EnvoyFilter,
    /// `networking.istio.io/ProxyConfig`, without effect yet.
    ProxyConfig,
    /// `security.istio.io/AuthorizationPolicy`, without effect yet.
    AuthorizationPolicy,
    /// `security.istio.io/PeerAuthentication`.
    PeerAuthentication,
    /// `security.istio.io/RequestAuthentication`, without effect yet.
    RequestAuthentication,
    /// `telemetry.istio.io/Telemetry`, without effect yet.
    Telemetry,
    /// `extensions.istio.io/WasmPlugin`, without effect yet.
    WasmPlugin,
    /// `extensions.istio.io/TrafficExtension`, without effect yet.
    TrafficExtension,
}

impl Kind {
    /// Every kind, with its API group and name.
    pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Namespace, "", "Namespace"),
        (Self::Node, "", "Node"),
        (Self::Service, "", "Service"),
        (Self::EndpointSlice, "discovery.k8s.io", "EndpointSlice"),
        (Self::Pod, "", "Pod"),
        (Self::ConfigMap, "", "ConfigMap"),
        (Self::Secret, "", "Secret"),
        (
            Self::ReferenceGrant,
            "gateway.networking.k8s.io",
            "ReferenceGrant",
        ),
        (Self::VirtualService, "networking.istio.io", "VirtualService"),
        (Self::DestinationRule, "networking.istio.io", "DestinationRule"),
        (Self::Gateway, "networking.istio.io", "Gateway"),
        (Self::ServiceEntry, "networking.istio.io", "ServiceEntry"),
        (Self::WorkloadEntry, "networking.istio.io", "WorkloadEntry"),
        (Self::WorkloadGroup, "networking.istio.io", "WorkloadGroup"),
        (Self::Sidecar, "networking.istio.io", "Sidecar"),
        (Self::EnvoyFilter, "networking.istio.io", "EnvoyFilter"),
        (Self::ProxyConfig, "networking.istio.io", "ProxyConfig"),
        (
            Self::AuthorizationPolicy,
            "security.istio.io",
            "AuthorizationPolicy",
        ),
        (
            Self::PeerAuthentication,
            "security.istio.io",
            "PeerAuthentication",
        ),
        (
            Self::RequestAuthentication,
            "security.istio.io",
            "RequestAuthentication",
        ),
        (Self::Telemetry, "telemetry.istio.io", "Telemetry"),
        (Self::WasmPlugin, "extensions.istio.io", "WasmPlugin"),
        (Self::TrafficExtension, "extensions.istio.io", "TrafficExtension"),
    ];

    /// The kind of this `apiVersion` (any version of the group) and name, if the mesh watches it.
    #[must_use]
    pub fn parse(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        Self::ALL
            .iter()
            .find(|(_, g, k)| *g == group && *k == kind)
            .map(|(this, ..)| *this)
    }

    /// The kind of this name, if the mesh watches it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(.., n)| *n == name)
            .map(|(this, ..)| *this)
    }

    /// The name, for example `VirtualService`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().map_or("", |(.., name)| name)
    }

    /// The API group; empty for Kubernetes' core.
    #[must_use]
    pub fn group(self) -> &'static str {
        self.row().map_or("", |(_, group, _)| group)
    }

    fn row(self) -> Option<&'static (Self, &'static str, &'static str)> {
        Self::ALL.iter().find(|(this, ..)| *this == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_group_and_name_in_every_version() {
        assert_eq!(
            Kind::parse("networking.istio.io/v1alpha3", "VirtualService"),
            Some(Kind::VirtualService)
        );
        assert_eq!(Kind::parse("v1", "Service"), Some(Kind::Service));
        assert_eq!(Kind::parse("serving.knative.dev/v1", "Service"), None);
    }
}
