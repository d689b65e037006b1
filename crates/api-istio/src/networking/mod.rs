//! The kinds of `networking.istio.io`: how traffic is named, routed and carried.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod load_balancer;
mod proxy_config;
mod service_entry;
mod sidecar;
mod traffic_policy;
mod virtual_service;
mod virtual_service_http;
mod workload_entry;
mod workload_group;

pub use destination_rule::*;
pub use envoy_filter::*;
pub use gateway::*;
pub use load_balancer::*;
pub use proxy_config::*;
pub(crate) use service_entry::UDS_WITHOUT_PORTS;
pub use service_entry::*;
pub use sidecar::*;
pub use traffic_policy::*;
pub use virtual_service::*;
pub use virtual_service_http::*;
pub use workload_entry::*;
pub use workload_group::*;
