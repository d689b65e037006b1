//! From what a proxy sees ([`control_snapshot::ProxyView`]) to what it gets: listeners, routes, clusters, endpoints and
//! the name table, with the names and structure of Istio.
//!
//! Translation is pure: no clock, no environment, no randomness, no I/O. Equal views give equal resources. What of the
//! user's input cannot be translated is left out alone and reported as a [`diagnostics::Diagnostic`].

use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api_envoy::envoy::config::listener::v3::Listener;
use api_envoy::envoy::config::route::v3::RouteConfiguration;
use api_envoy::istio::networking::nds::v1::NameTable;
use control_snapshot::{EndpointView, ProxyView};
use diagnostics::Diagnostic;

/// Everything one proxy gets, except endpoints (see [`endpoints`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// CDS, sorted by name.
    pub clusters: Vec<Cluster>,
    /// LDS, sorted by name.
    pub listeners: Vec<Listener>,
    /// RDS: every route configuration a listener refers to, sorted by name.
    pub routes: Vec<RouteConfiguration>,
    /// NDS.
    pub name_table: NameTable,
}

/// Translates a view.
#[must_use]
pub fn translate(_view: &ProxyView) -> (Resources, Vec<Diagnostic>) {
    (Resources::default(), Vec::new())
}

/// One route configuration by name, be it one a listener refers to or not; an unknown name gives one that holds the
/// catch-all only.
#[must_use]
pub fn route(_view: &ProxyView, name: &str) -> (RouteConfiguration, Vec<Diagnostic>) {
    (RouteConfiguration { name: name.to_owned(), ..RouteConfiguration::default() }, Vec::new())
}

/// Translates the endpoints of one cluster.
#[must_use]
pub fn endpoints(view: &EndpointView) -> ClusterLoadAssignment {
    ClusterLoadAssignment { cluster_name: view.cluster.to_string(), ..ClusterLoadAssignment::default() }
}
