//! The discovery server: it publishes the changing world, and keeps every connected proxy at the last state of it.
//!
//! - [`World`] gathers changes, waits for a moment of quiet, and publishes a snapshot ([`Publication`]).
//! - [`Session`] is one proxy's stream without I/O: which resources it gets, in which order, with what version.
//! - [`Discovery`] serves sessions over gRPC, and remembers them for the debug pages.
//! - [`Identities`] keeps the certificate authority, and serves certificates and ADS over TLS.
//! - [`debug::router`] is the HTTP side: Istio's `/debug` pages, `/metrics`, `/ready`, `/version`.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod connections;
mod debounce;
pub mod debug;
pub mod generate;
pub mod identities;
pub mod limits;
pub mod metrics;
pub mod secrets;
mod sending;
pub mod serve;
pub mod session;
pub mod world;

pub use generate::{Cache, Translated};
pub use identities::Identities;
pub use secrets::SecretAccess;
pub use serve::Discovery;
pub use session::{Protocol, Session};
pub use world::{Publication, World};
