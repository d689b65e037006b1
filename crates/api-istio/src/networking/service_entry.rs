//! ServiceEntry: `networking/v1alpha3/service_entry.proto`.

use super::{LabelSelector, WorkloadEntry};
use crate::proto::{message, proto_enum};

message! {
    /// Adds a service to the registry that Kubernetes does not know.
    pub struct ServiceEntry [
        Cel("(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1",
            "only one of WorkloadSelector or Endpoints can be set"),
        Cel("!((has(self.addresses) ? self.addresses : []).exists(k, k.contains(\"/\")) && !((has(self.resolution) ? self.resolution : \"NONE\") in [\"STATIC\", \"NONE\"]))",
            "CIDR addresses are allowed only for NONE/STATIC resolution types"),
        Cel("((has(self.resolution) ? self.resolution : \"NONE\") == \"NONE\") ? !has(self.endpoints) : true",
            "NONE mode cannot set endpoints"),
        Cel("((has(self.resolution) ? self.resolution : \"\") == \"DNS_ROUND_ROBIN\") ? ((has(self.endpoints) ? self.endpoints : []).size() <= 1) : true",
            "DNS_ROUND_ROBIN mode cannot have multiple endpoints"),
    ] {
        /// Names of the service; a wildcard may be the first label when resolution is NONE.
        pub hosts: Vec<String> [
            Required, MinItems(1), MaxItems(256), Each(&[Cel("self != \"*\"", "hostname cannot be wildcard")]),
        ],
        /// Virtual addresses of the service, with or without prefix length.
        pub addresses: Vec<String> [MaxItems(256), Each(&[MaxLength(64)])],
        /// Ports of the service.
        pub ports: Vec<ServicePort> [
            MaxItems(256), ListMap("name"),
            Cel("self.all(l1, self.exists_one(l2, l1.number == l2.number))", "port number cannot be duplicated"),
        ],
        /// Whether the service is part of the mesh.
        pub location: Location,
        /// How addresses of endpoints are found.
        pub resolution: Resolution,
        /// Endpoints; the hosts themselves when there are none and resolution is DNS.
        pub endpoints: Vec<WorkloadEntry> [
            MaxItems(4096),
            Each(&[Cel("has(self.address) || has(self.network)", "Address is required"), UDS_WITHOUT_PORTS]),
        ],
        /// Chooses WorkloadEntries and Pods of this namespace as endpoints.
        pub workload_selector: Option<LabelSelector>,
        /// Namespaces that see this object: `.` for its own, `*` for all, which is also the default.
        pub export_to: Vec<String>,
        /// Names of which the server's certificate must carry one.
        pub subject_alt_names: Vec<String>,
    }
}

/// The rule that an endpoint with a Unix socket names no ports.
pub(crate) const UDS_WITHOUT_PORTS: crate::schema::Rule = crate::schema::Rule::Cel(
    "(has(self.address) ? self.address : \"\").startsWith(\"unix://\") ? !has(self.ports) : true",
    "UDS may not include ports",
);

/// The rule that a number is a port.
pub(super) const PORT: crate::schema::Rule =
    crate::schema::Rule::Cel("0 < self && self <= 65535", "port must be between 1-65535");

proto_enum! {
    /// Whether a service is part of the mesh.
    pub enum Location {
        /// It is outside: no mutual TLS, policies at the client.
        MeshExternal = "MESH_EXTERNAL" = 0,
        /// It is inside, as if it were in Kubernetes.
        MeshInternal = "MESH_INTERNAL" = 1,
    }
}

proto_enum! {
    /// How addresses of endpoints are found.
    pub enum Resolution {
        /// Connections go to the address that the client called.
        None = "NONE" = 0,
        /// The endpoints are addresses.
        Static = "STATIC" = 1,
        /// The proxy asks DNS all the time and uses every address.
        Dns = "DNS" = 2,
        /// The proxy asks DNS and uses the first address for new connections.
        DnsRoundRobin = "DNS_ROUND_ROBIN" = 3,
        /// The proxy asks DNS for the host of each request; for wildcard hosts.
        DynamicDns = "DYNAMIC_DNS" = 4,
    }
}

message! {
    /// A port of a service.
    pub struct ServicePort {
        /// Its number.
        pub number: u32 [Required, PORT],
        /// HTTP, HTTPS, HTTP2, GRPC, MONGO, TCP or TLS; TLS is routed by server name unopened.
        pub protocol: String [MaxLength(256)],
        /// Its label, which endpoints refer to.
        pub name: String [Required, MaxLength(256)],
        /// Port of the endpoints; the same number by default.
        pub target_port: u32 [PORT],
    }
}
