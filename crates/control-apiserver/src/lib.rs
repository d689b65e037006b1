//! The embedded Kubernetes-style API server: kubectl's and kube-rs' contract, without Kubernetes.
//!
//! A request passes `service` (who asks, what for), `rest` (one file per verb), `rest::admission` (decode, prune,
//! default, validate) and ends in `store`, which writes it to disk before it is acknowledged. What is served is in
//! `catalog`: the kinds in `kinds`, and one resource for every CRD. Sources: the Kubernetes API conventions and the
//! behaviour of kube-apiserver 1.36 as recorded with kubectl.

mod api;
mod auth;
mod catalog;
#[cfg(feature = "conformance")]
pub mod conformance;
mod controllers;
mod decode;
mod discovery;
mod files;
mod kinds;
pub mod limits;
mod names;
mod openapi;
mod patch;
mod protobuf;
mod request;
mod response;
mod rest;
mod rules;
mod schema;
mod seed;
mod selectors;
mod server;
mod service;
mod status;
mod store;
mod table;
mod trusted;

use time::OffsetDateTime;

pub use api::Clock;
pub use response::Body;
pub use server::{ApiServer, Config, Handle, StartError};
pub use service::ApiService;
pub use status::{Cause, Status};
pub use trusted::TrustedWriter;

/// RFC 3339 in UTC with whole seconds, as `metadata.creationTimestamp` is written.
pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}
