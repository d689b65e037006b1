//! Clusters: endpoint sets, load balancing, circuit breakers, connection pools, DNS, outlier detection.
//!
//! Two halves. On the main thread [`ClusterConfig::compile`] and [`Assignment::compile`] turn xDS resources into
//! immutable values, and [`dns`] resolves names. On each worker a [`ClusterManager`] holds what a request touches:
//! [`Cluster`] and [`Host`], reference counted without atomics, and never shared with another thread. A
//! [`ClusterUpdate`] carries the first to the second; hosts that an update does not change keep their pools and counts.
//!
//! Sources: `envoy.config.cluster.v3`, `envoy.config.endpoint.v3`, and Envoy's "Upstream clusters" architecture pages.

pub mod circuit_breaker;
pub mod config;
pub mod connect;
pub mod dns;
pub mod grpc_source;
pub mod grpc_stats;
pub mod http2_stats;
pub mod limits;
pub mod load_balancer;
pub mod metadata_exchange;
pub mod outlier;
pub mod proxy_protocol;
pub mod secrets;
pub mod snapshot;
pub mod stats;
pub mod tls_context;
pub mod transport;

mod checkout;
mod cluster;
mod cluster_manager;
mod endpoints;
mod host;
mod host_set;
mod original_dst;
mod pool;
mod pool_key;
mod priority_load;
mod retry_budget;
mod shared_checkout;
mod shared_pool;
mod slot;
mod ssl_stats;
mod stream;
mod wait_queue;

pub use checkout::{Acquired, ConnectionPermit, acquire};
pub use circuit_breaker::RequestPriority;
pub use cluster::{ActiveRequest, ActiveRetry, Cluster, Overflow, PickContext, PickError};
pub use cluster_manager::{ClusterManager, ClusterUpdate};
pub use config::ClusterConfig;
pub use connect::{ConnectError, Dialer, HandshakeOptions, connect, connect_with};
pub use endpoints::{Assignment, Health, HostAddress, HostSpec, LocalitySpec, PrioritySpec};
pub use grpc_stats::GrpcCounters;
pub use host::Host;
pub use load_balancer::hash_address;
pub use metadata_exchange::MetadataExchange;
pub use pool::Pool;
pub use pool_key::{HttpVersions, PoolKey};
pub use proxy_core::ClusterSlot;
pub use proxy_protocol::PassThrough;
pub use shared_checkout::{Attempt, SharedError, acquire_shared};
pub use shared_pool::{Multiplexed, SharedPool};
pub use slot::SlotTable;
pub use ssl_stats::SslStats;
pub use stream::{Stream, TlsStream};
