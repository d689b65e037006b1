//! The certificate authority in its Secrets, the secure port, and Secrets for gateways, over the embedded API server and
//! real sockets of loopback.

mod authority;
mod envoy;
mod host;
mod issuer;
mod mesh;
mod port;
mod secrets;
mod workload_api;
