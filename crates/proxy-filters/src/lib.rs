//! HTTP filters, one module per filter, named as Envoy names it (`envoy.extensions.filters.http`).
//!
//! A filter's configuration is compiled once, or refused. The filters here are accepted where they change no traffic,
//! or only what the connection to the host is like ([`alpn`]), so a request passes none of them. The router is not among the filters of a chain: it is the chain's end, and its
//! behaviour belongs to the connection manager.

pub mod alpn;
pub mod chain;
pub mod cors;
pub mod fault;
pub mod grpc_stats;
pub mod router;

pub use chain::{FilterChain, HttpFilter, route_config};
pub use router::RouterConfig;
