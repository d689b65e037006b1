//! Connections that carry bytes: what is made of their first ones, how they end, and what is told of them. Where a check
//! runs on both, a real Envoy says whether it is right.

mod closing;
#[path = "../harness/mod.rs"]
mod harness;
mod proxy_protocol;
mod settings;
mod sniffing;
mod spread;
mod world;
