//! Istio's API as Rust types: the fifteen kinds, MeshConfig, and the CRDs generated from them.
//!
//! - [`networking`], [`security`], [`telemetry`], [`extensions`]: the `spec` of each kind.
//! - [`selector`], [`meta`]: what the kinds share; [`meta::IstioStatus`] is their `status`.
//! - [`mesh`]: MeshConfig, the mesh-wide ProxyConfig and MeshNetworks.
//! - [`kinds`]: names, groups and versions of the kinds; [`crds`]: their CustomResourceDefinitions.
//!
//! The types are declared in [`proto`]'s macros and follow the JSON form of Istio's protobuf API ([`json`]); names and meaning are those of
//! <https://github.com/istio/api>, the sentences are our own.

pub mod crd;
pub mod extensions;
pub mod json;
pub mod kinds;
pub mod mesh;
pub mod meta;
pub mod networking;
pub mod proto;
pub mod schema;
pub mod security;
pub mod selector;
pub mod telemetry;
mod well_known;

pub use crd::crds;
pub use proto::Duration;
