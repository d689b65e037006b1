//! Envoy v3 protobufs we speak, with their canonical JSON and YAML.
//!
//! The message types are generated (`cargo xtask codegen`) from the descriptor set of Envoy's own API: package
//! `envoy.config.cluster.v3` is module [`envoy::config::cluster::v3`], and so on. Maps are ordered and bytes are
//! [`bytes::Bytes`], so equal messages encode to equal bytes.
//!
//! - [`any`] packs and unpacks `google.protobuf.Any`.
//! - [`json`] reads and prints the protobuf JSON mapping, `Any` expanded at any depth, as Envoy does.
//! - [`type_url`] names the resource types of xDS.
//! - [`wkt`] makes durations, wrappers and structs less laborious.

#![allow(clippy::module_name_repetitions)]

#[allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    rust_2018_idioms
)]
mod generated {
    include!("gen/mod.rs");
}

/// The `xds.*` packages (CNCF xDS), renamed because a crate of this workspace is called `xds`.
pub use generated::xds as cncf_xds;
pub use generated::{envoy, google, istio, stats, udpa};

pub mod any;
mod canonical;
pub mod json;
pub mod type_url;
pub mod wkt;

pub use prost::{Message, Name};
pub use prost_types::{Any, Duration, Struct, Timestamp};
