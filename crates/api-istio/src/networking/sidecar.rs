//! Sidecar: `networking/v1alpha3/sidecar.proto`.

use std::collections::BTreeMap;

use super::{ConnectionPoolSettings, Destination, ServerTlsSettings};
use crate::proto::{message, proto_enum};

message! {
    /// Says what the sidecars of a namespace, or of some of its workloads, accept and can reach.
    pub struct Sidecar {
        /// Workloads that this is for; all of the namespace by default.
        pub workload_selector: Option<LabelSelector>,
        /// What the sidecar accepts for the workload; found from its services by default.
        pub ingress: Vec<IstioIngressListener>,
        /// What the workload can reach; every service that is visible by default.
        pub egress: Vec<IstioEgressListener>,
        /// Limits of the connections from the sidecar to the workload.
        pub inbound_connection_pool: Option<ConnectionPoolSettings>,
        /// What happens to traffic to unknown hosts; as the mesh says by default.
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    /// A listener for traffic to the workload.
    pub struct IstioIngressListener {
        /// The port.
        pub port: Option<SidecarPort> [Required],
        /// Address to listen on.
        pub bind: String,
        /// How traffic reaches the listener.
        pub capture_mode: CaptureMode,
        /// Where traffic goes: `127.0.0.1:port`, `[::1]:port`, `0.0.0.0:port`, `[::]:port` or `unix:///path`.
        pub default_endpoint: String,
        /// TLS on the listener.
        pub tls: Option<ServerTlsSettings>,
        /// Limits of the connections to the workload on this port.
        pub connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    /// A listener for traffic of the workload.
    pub struct IstioEgressListener {
        /// The port; those of the hosts by default.
        pub port: Option<SidecarPort>,
        /// Address to listen on.
        pub bind: String,
        /// How traffic reaches the listener.
        pub capture_mode: CaptureMode,
        /// Hosts that can be reached, as `namespace/dnsName`; `*` and `.` may stand for the namespace, a wildcard for the
        /// first label.
        pub hosts: Vec<String> [Required],
    }
}

message! {
    /// Chooses workloads by their labels.
    pub struct LabelSelector {
        /// Labels that a workload must all have.
        pub labels: BTreeMap<String, String> [
            MaxProperties(256),
            Each(&[MaxLength(63), Cel("!self.contains(\"*\")", "wildcard is not supported in selector")]),
        ],
    }
}

message! {
    /// What happens to traffic to unknown hosts.
    pub struct OutboundTrafficPolicy {
        /// The policy.
        pub mode: OutboundTrafficPolicyMode,
        /// Not supported in Istio's later versions: a proxy that unknown traffic goes to.
        pub egress_proxy: Option<Destination>,
    }
}

proto_enum! {
    /// What happens to traffic to unknown hosts.
    pub enum OutboundTrafficPolicyMode {
        /// It is refused.
        RegistryOnly = "REGISTRY_ONLY" = 0,
        /// It goes where the workload sent it.
        AllowAny = "ALLOW_ANY" = 1,
    }
}

proto_enum! {
    /// How traffic reaches a listener.
    pub enum CaptureMode {
        /// As the proxy is set up.
        Default = "DEFAULT" = 0,
        /// It is redirected.
        Iptables = "IPTABLES" = 1,
        /// The workload connects to the listener itself.
        None = "NONE" = 2,
    }
}

message! {
    /// A port of a sidecar's listener.
    pub struct SidecarPort {
        /// Its number.
        pub number: u32,
        /// HTTP, HTTPS, HTTP2, GRPC, MONGO, TCP or TLS.
        pub protocol: String,
        /// Its label.
        pub name: String,
        /// Deprecated and not used.
        pub target_port: u32,
    }
}
