//! The embedded Kubernetes-style API server: kubectl's and kube-rs' contract, without Kubernetes.
//!
//! A request passes `service` (who asks, what for), `rest` (one file per verb), `rest::admission` (decode, prune,
//! default, validate) and ends in `store`, which writes it to disk before it is acknowledged. What is served is in
//! `catalog`: the kinds in `kinds`, and one resource for every CRD. Sources: the Kubernetes API conventions and the
//! behaviour of kube-apiserver 1.36 as recorded with kubectl.

mod api;
mod auth;
mod catalog;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod controllers;
mod decode;
mod discovery;
mod expressions;
mod files;
mod formats;
mod json_path;
mod kinds;
pub mod limits;
mod names;
mod openapi;
mod patch;
mod protobuf;
mod request;
mod response;
mod rest;
mod reviews;
mod rules;
mod schema;
mod seed;
mod selectors;
mod server;
mod service;
mod start_error;
mod status;
mod store;
mod table;
mod trusted;

pub use clock::Clock;
pub use response::Body;
pub use server::{ApiServer, Config, Handle};
pub use service::ApiService;
pub use start_error::StartError;
pub use status::{Cause, Status};
pub use trusted::TrustedWriter;
