//! The immutable world, and who sees what of it.
//!
//! [`Objects`] holds the parsed inputs; [`Snapshot::build`] joins them; [`Snapshot::proxy_view`] cuts out what one proxy
//! sees. A [`ProxyView`] is the whole input of a proxy's translation and compares by content, so it is also the key of
//! every cache of translations. Endpoints have a view of their own ([`EndpointView`]), so that their churn changes no
//! [`ProxyView`].
//!
//! Broken objects and dangling references become [`diagnostics::Diagnostic`]s; nothing here fails.

mod accounts;
mod config;
mod credential_name;
mod credential_references;
mod credentials;
mod delegates;
mod destination_rules;
mod endpoint_changes;
mod gateways;
mod grants;
mod hash_tables;
pub mod host;
mod inbound;
mod incoming;
mod kind;
pub mod kubernetes;
pub mod limits;
pub mod mesh;
mod objects;
mod peer_authentication;
mod protocol;
mod proxy;
mod references;
mod registry;
mod server_tls;
mod service;
mod service_views;
mod shared;
mod sidecar;
mod snapshot;
pub mod spread;
mod stream_rules;
mod table;
mod tls_conflicts;
mod view;
mod virtual_services;
mod without_effect;

pub use config::{Config, ConfigMeta};
pub use credential_name::{CredentialName, Holder};
pub use credentials::{Credential, CredentialError, KeyPair, TrustedAuthorities};
pub use destination_rules::{DestinationRules, Rule};
pub use endpoint_changes::EndpointChanges;
pub use gateways::{GatewayPort, GatewayServer};
pub use inbound::InboundPort;
pub use incoming::Incoming;
pub use kind::Kind;
pub use mesh::Mesh;
pub use objects::{Key, Objects, Settings};
pub use peer_authentication::{PeerAuthentications, PeerMode, PeerPolicy};
pub use protocol::Protocol;
pub use proxy::{Interception, NodeError, Profile, Proxy, ProxyKind, canonical_name, canonical_revision};
pub use registry::{Instance, PortNames, Registry, Selector, ServiceKey, Target, Workloads};
pub use server_tls::{
    ClientAuthorities, ClientCertificates, ClientVerification, Finding, ServerCertificates, ServerTls,
    Termination,
};
pub use service::{
    Address, Endpoint, Health, Locality, Origin, Resolution, Service, ServiceEndpoints, ServicePort,
    TrafficDistribution, Visibility, Workload,
};
pub use shared::Shared;
pub use sidecar::SidecarScope;
pub use snapshot::Snapshot;
pub use view::{EndpointView, FailoverSpread, ProxyView, ServiceView, Services, Spread};
pub use virtual_services::{MESH_GATEWAY, Routing, VirtualServices};
