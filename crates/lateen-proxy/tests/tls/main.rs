//! TLS on both sides of the proxy.

mod certificates;
mod downstream;
mod envoy;
#[path = "../harness/mod.rs"]
mod harness;
mod mesh;
mod metadata_exchange;
mod proxy_protocol;
mod secrets;
mod upstream;
mod world;
