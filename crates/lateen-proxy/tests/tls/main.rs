//! TLS on both sides of the proxy.

mod certificates;
mod downstream;
mod envoy;
#[path = "../harness/mod.rs"]
mod harness;
mod mesh;
mod secrets;
mod upstream;
mod world;
