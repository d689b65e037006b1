//! Envoy's administration interface ("Administration interface" in Envoy's operations guide): what people and Istio's
//! tools ask a running proxy.
//!
//! - [`source`]: what the rest of the proxy tells this module.
//! - [`server`]: HTTP on the admin address.
//! - [`handlers`]: one table of paths.
//! - [`certs`], [`config_dump`], [`clusters`], [`stats`], [`info`], [`logging`]: the formats.

pub mod certs;
pub mod clusters;
pub mod config_dump;
pub mod handlers;
pub mod info;
pub mod logging;
pub mod reply;
pub mod server;
pub mod source;
pub mod stats;

mod redaction;

pub use server::serve;
pub use source::AdminSource;
