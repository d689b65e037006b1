//! HTTP/2 on both sides of the proxy, by the `h2` crate as client and upstream, and by raw frames where a client means
//! harm.

#[path = "../tls/certificates.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod certificates;
mod downstream;
mod floods;
mod grpc;
mod grpc_echo;
mod grpc_filters;
#[path = "../harness/mod.rs"]
mod harness;
mod negotiation;
mod peer;
mod raw;
mod tunnels;
mod upstream;
