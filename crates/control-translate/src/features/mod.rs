//! One module per feature, named by the slug that its page and its part of the proxy have too.

pub(crate) mod cluster_names;
pub(crate) mod connection_pool;
pub(crate) mod consistent_hash;
pub(crate) mod cors;
pub(crate) mod direct_response;
pub(crate) mod fault_injection;
pub(crate) mod gateway_topology;
pub(crate) mod header_operations;
pub(crate) mod load_balancing;
pub(crate) mod mirroring;
pub(crate) mod outlier_detection;
pub(crate) mod redirect;
pub(crate) mod request_matching;
pub(crate) mod retry;
pub(crate) mod rewrite;
pub(crate) mod timeout;
pub(crate) mod tls_origination;
pub(crate) mod traffic_splitting;
