//! The xDS transport protocol (Envoy's "xDS REST and gRPC protocol" page), aggregated, in both variants.
//!
//! - [`client`] is what a proxy or an agent runs: subscriptions, nonces, ACK and NACK, reconnect with what it holds.
//! - [`server`] is what the control plane runs, one value per stream, with Istio's rules for who is answered when.
//! - [`grpc`] is the thin shell that moves the messages: TCP, Unix sockets, and the ADS service.
//!
//! The state machines do no I/O, own no clock and no random source. A message goes in, decisions and messages come out.

pub mod client;
pub mod grpc;
pub mod limits;
mod resource;
pub mod server;

pub use resource::{Resource, resource_name};

/// Which of the two ADS methods a stream uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `StreamAggregatedResources`: each request names everything that is wanted.
    StateOfTheWorld,
    /// `DeltaAggregatedResources`: requests and responses carry changes. Istio's default.
    #[default]
    Delta,
}
