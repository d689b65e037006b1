//! MeshNetworks: `mesh/v1alpha1/network.proto`.

use std::collections::BTreeMap;

use crate::proto::message;

message! {
    /// The networks of a mesh that spans several.
    pub struct MeshNetworks {
        /// Networks by name.
        pub networks: BTreeMap<String, Network>,
    }
}

message! {
    /// A network: workloads inside reach each other directly.
    pub struct Network {
        /// What belongs to it.
        pub endpoints: Vec<NetworkEndpoints>,
        /// How it is reached from outside.
        pub gateways: Vec<IstioNetworkGateway>,
    }
}

message! {
    /// What belongs to a network.
    pub struct NetworkEndpoints {
        /// Addresses of this range.
        pub from_cidr: Option<String>,
        /// Endpoints of this registry.
        pub from_registry: Option<String>,
    }
}

message! {
    /// A gateway of a network.
    pub struct IstioNetworkGateway {
        /// Service of the gateway, by full name.
        pub registry_service_name: Option<String>,
        /// Address of the gateway.
        pub address: Option<String>,
        /// Its port.
        pub port: u32,
        /// Its locality.
        pub locality: String,
    }
}
