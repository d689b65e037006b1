//! From Envoy's configuration to the configuration that the workers run, or a refusal that names the field.
//!
//! A resource is accepted whole or not at all: nothing is parsed and then ignored. What is accepted is compiled into
//! immutable values that threads share: names become numbers ([`context`]), filters are looked up in the tables of
//! [`filters`].

pub mod access_log;
pub mod address;
pub mod bootstrap;
pub mod context;
pub mod downstream_tls;
pub mod filter_chain;
pub mod filters;
pub mod inspector;
pub mod limits;
pub mod listener;
pub mod listener_filter;
pub mod listener_stats;
pub mod proxy_protocol;
pub mod state;
pub mod tcp_proxy;

pub use context::{CompileContext, LocalNode, NameTables, RouteSlot};
pub use listener::ListenerConfig;
