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
mod client;
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
mod memo;
mod mutual_tls;
mod name_table;
pub mod names;
mod packed;
mod role;
mod routes;
mod server_tls;
mod tcp;
mod tracing;

use std::collections::BTreeSet;
use std::sync::Arc;

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

use clusters::{MadeClusters, ServiceClusters};
use memo::Memo;
use routes::{MadeHost, ServiceHost};

pub use packed::Packed;
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

/// What of [`Resources`] is sent, ready for that. The name table is made by [`name_table`], for those who want it.
#[derive(Clone, Debug)]
pub struct Translation {
    /// CDS, sorted by name.
    pub clusters: Vec<Packed>,
    /// LDS, sorted by name.
    pub listeners: Vec<Packed>,
    /// RDS: every route configuration a listener refers to, sorted by name.
    pub routes: Vec<Packed>,
    /// Its parts stay in [`Parts`] for as long as this is held.
    pub held: Held,
}

/// Parts of translations that views have in common. Each is a function of one small value, which holds everything that
/// it is made of and by which it is found again; it is there for as long as a translation holds it.
#[derive(Debug, Default)]
pub struct Parts {
    clusters: Memo<ServiceClusters, MadeClusters>,
    hosts: Memo<ServiceHost, MadeHost>,
}

/// What a translation holds of [`Parts`].
#[derive(Clone, Debug, Default)]
#[allow(dead_code, reason = "it keeps them alive, and nobody looks at it")]
pub struct Held {
    clusters: Vec<Arc<MadeClusters>>,
    hosts: Vec<Arc<MadeHost>>,
}

/// Translates a view.
#[must_use]
pub fn translate(view: &ProxyView) -> (Resources, Vec<Diagnostic>) {
    let (translation, diagnostics) = translate_with(view, &Parts::default());
    let resources = Resources {
        clusters: translation.clusters.iter().map(Packed::message).collect(),
        listeners: translation.listeners.iter().map(Packed::message).collect(),
        routes: translation.routes.iter().map(Packed::message).collect(),
        name_table: name_table(view),
    };
    (resources, diagnostics)
}

/// Translates a view, with the parts that other translations have made already. What comes of it is the same whatever
/// those are.
#[must_use]
pub fn translate_with(view: &ProxyView, parts: &Parts) -> (Translation, Vec<Diagnostic>) {
    let mut diagnostics = view.diagnostics.clone();
    let (clusters, held) = clusters::build(view, &parts.clusters, &mut diagnostics);
    let mut held = Held {
        clusters: held,
        hosts: Vec::new(),
    };
    let listeners = listeners::build(view, &mut diagnostics);
    let names: BTreeSet<String> = listeners.iter().flat_map(route_names).collect();
    let names = names.iter().map(String::as_str);
    let routes = route_configurations(view, names, parts, &mut held, &mut diagnostics);
    // A rule is translated once per port, so that its problems come as often.
    diagnostics.sort();
    diagnostics.dedup();
    let translation = Translation {
        clusters,
        listeners: listeners.iter().map(|l| Packed::new(&l.name, l)).collect(),
        routes,
        held,
    };
    (translation, diagnostics)
}

/// One route configuration by name, be it one a listener refers to or not; an unknown name gives one that holds the
/// catch-all only.
#[must_use]
pub fn route(view: &ProxyView, name: &str, parts: &Parts) -> Packed {
    let names = std::iter::once(name);
    let mut routes = route_configurations(view, names, parts, &mut Held::default(), &mut Vec::new());
    let nothing = || Packed::new(name, &routes::configuration(name, Vec::new()));
    routes.pop().unwrap_or_else(nothing)
}

/// The name table.
#[must_use]
pub fn name_table(view: &ProxyView) -> NameTable {
    name_table::build(view)
}

/// Translates the endpoints of one cluster.
#[must_use]
pub fn endpoints(view: &EndpointView) -> ClusterLoadAssignment {
    endpoints::build(view)
}

fn route_configurations<'a>(
    view: &ProxyView,
    names: impl Iterator<Item = &'a str>,
    parts: &Parts,
    held: &mut Held,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Packed> {
    match view.profile.kind {
        ProxyKind::Gateway => names
            .map(|name| Packed::new(name, &routes::gateway::build(view, name, diagnostics)))
            .collect(),
        ProxyKind::Sidecar => {
            let ports = routes::sidecar::Ports::new(view, &parts.hosts);
            held.hosts = ports.parts();
            ports.configurations(names, diagnostics)
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
