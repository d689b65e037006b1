//! From what a proxy sees ([`control_snapshot::ProxyView`]) to what it gets: listeners, routes, clusters, endpoints and
//! the name table, with the names and structure of Istio.
//!
//! Translation is pure: no clock, no environment, no randomness, no I/O. Equal views give equal resources. What of the
//! user's input cannot be translated is left out alone and reported as a [`diagnostics::Diagnostic`].
//!
//! Where to look: `features/<slug>.rs` for one feature of a rule, `listeners/`, `clusters/` and `routes/` for the frame
//! around them, `http_filters.rs` for the order of HTTP filters.

mod access_log;
mod auto_passthrough;
mod clusters;
#[cfg(feature = "conformance")]
pub mod conformance;
mod dynamic_forward_proxy;
mod endpoints;
mod extension;
mod features;
mod http_connection_manager;
mod http_filters;
pub mod limits;
mod listeners;
mod mutual_tls;
mod name_table;
pub mod names;
mod role;
mod routes;
mod server_tls;
mod tcp;
mod tracing;

use std::collections::BTreeSet;

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api_envoy::envoy::config::listener::v3::{Filter, Listener, filter};
use api_envoy::envoy::config::route::v3::RouteConfiguration;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use api_envoy::istio::networking::nds::v1::NameTable;
use control_snapshot::{EndpointView, ProxyKind, ProxyView};
use diagnostics::Diagnostic;

pub use role::Role;

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
pub fn translate(view: &ProxyView) -> (Resources, Vec<Diagnostic>) {
    let mut diagnostics = view.diagnostics.clone();
    let clusters = clusters::build(view, &mut diagnostics);
    let listeners = listeners::build(view, &mut diagnostics);
    let names: BTreeSet<String> = listeners.iter().flat_map(route_names).collect();
    let routes = route_configurations(view, names.iter().map(String::as_str), &mut diagnostics);
    let resources = Resources {
        clusters,
        listeners,
        routes,
        name_table: name_table::build(view),
    };
    // A rule is translated once per port, so that its problems come as often.
    diagnostics.sort();
    diagnostics.dedup();
    (resources, diagnostics)
}

/// One route configuration by name, be it one a listener refers to or not; an unknown name gives one that holds the
/// catch-all only.
#[must_use]
pub fn route(view: &ProxyView, name: &str) -> (RouteConfiguration, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut routes = route_configurations(view, [name].into_iter(), &mut diagnostics);
    (routes.pop().unwrap_or_default(), diagnostics)
}

/// Translates the endpoints of one cluster.
#[must_use]
pub fn endpoints(view: &EndpointView) -> ClusterLoadAssignment {
    endpoints::build(view)
}

fn route_configurations<'a>(
    view: &ProxyView,
    names: impl Iterator<Item = &'a str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<RouteConfiguration> {
    match view.profile.kind {
        ProxyKind::Gateway => names
            .map(|name| routes::gateway::build(view, name, diagnostics))
            .collect(),
        ProxyKind::Sidecar => {
            let ports = routes::sidecar::Ports::new(view);
            names.map(|name| ports.configuration(name, diagnostics)).collect()
        }
    }
}

/// The route configurations that connection managers of a listener ask for.
fn route_names(listener: &Listener) -> Vec<String> {
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    chains
        .flat_map(|chain| &chain.filters)
        .filter_map(route_name)
        .collect()
}

fn route_name(filter: &Filter) -> Option<String> {
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        return None;
    };
    match any::unpack::<HttpConnectionManager>(config).ok()?.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => Some(rds.route_config_name),
        _ => None,
    }
}
