//! HTTP filters, one module per filter, named as Envoy names it (`envoy.extensions.filters.http`).
//!
//! A filter's configuration is compiled once, or refused. What a filter does to a call stands here as far as it needs no
//! connection: [`grpc_web`] translates, [`grpc_stats`] names what is counted, [`alpn`] chooses what is offered to the
//! host; the connection manager carries it out. The router is not among the filters of a chain: it is the chain's end,
//! and its behaviour belongs to the connection manager.

pub mod alpn;
pub mod chain;
pub mod cors;
pub mod fault;
pub mod grpc_frames;
pub mod grpc_stats;
pub mod grpc_web;
pub mod peer_metadata;
pub mod router;

pub use chain::{FilterChain, HttpFilter, route_config};
pub use router::RouterConfig;
