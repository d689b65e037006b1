//! TLS on both sides of the proxy.

mod certificates;
mod downstream;
mod envoy;
#[path = "../harness/mod.rs"]
mod harness;
mod metadata_exchange;
mod proxy_protocol;
mod upstream;
mod world;
