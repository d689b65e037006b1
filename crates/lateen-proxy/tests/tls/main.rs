//! TLS on both sides of the proxy.

mod certificates;
mod downstream;
mod envoy;
#[path = "../harness/mod.rs"]
mod harness;
mod upstream;
mod world;
