//! Routes: from a request's head to a cluster, a redirect or an answer, and all that a route changes on the way.
//!
//! [`RouteTable::compile`] turns an `envoy.config.route.v3.RouteConfiguration` into an immutable table that all workers
//! share; [`RouteTable::find`] gives the [`Match`] of a request. Before the request goes upstream the connection manager
//! calls, in this order, [`Match::cluster`], [`Match::timeouts`], [`Match::rewrite_request`], [`Match::begin_retries`],
//! and for each try [`Match::rewrite_host`]; for every answer [`Match::finalize_response`]. That is the order of Envoy's
//! router filter, and it can be observed: a header that a route adds may itself ask for retries.

pub mod direct_response;
pub mod filter_config;
pub mod forward;
pub mod hash_policy;
pub mod header_matcher;
pub mod header_mutation;
pub mod limits;
pub mod mirror;
pub mod redirect;
pub mod retry;
pub mod route;
pub mod route_match;
pub mod string_matcher;
pub mod table;
pub mod timeout;
pub mod virtual_host;

mod cluster_ref;
mod domains;
mod level;
mod path_tree;
mod rewrite;
#[cfg(test)]
mod testing;
mod weighted_cluster;

pub use cluster_ref::{ClusterRef, NamedCluster};
pub use direct_response::DirectResponse;
pub use filter_config::{FilterConfig, RouteContext};
pub use forward::{Forward, Terminate, UpgradeRule};
pub use hash_policy::RequestHash;
pub use mirror::MirrorPolicy;
pub use redirect::Redirect;
pub use retry::{RetryDecision, RetryPolicy, RetryState, TryFailure};
pub use route::{Action, Decorator, Route};
pub use table::{Match, RouteResult, RouteTable};
pub use timeout::RequestTimeouts;
pub use virtual_host::VirtualHost;
pub use weighted_cluster::WeightedCluster;
