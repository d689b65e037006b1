//! Byte streams at a gateway: TCP routes of plain servers and of those that end TLS, TLS routes of those that pass it
//! on, and the mesh's own server names.

use std::collections::{BTreeMap, BTreeSet};

use api_envoy::envoy::config::listener::v3::FilterChain;
use api_istio::networking::{RouteDestination, TlsMatchAttributes, TrafficPolicy};
use control_snapshot::spread::effective_policy;
use control_snapshot::{
    GatewayServer, ProxyView, Routing, ServerCertificates, ServerTls, ServicePort, ServiceView, host,
};
use diagnostics::{Code, Diagnostic};

use super::chain::{self, Conditions};
use super::service_chains::{destinations, policy};
use crate::features::cluster_names;
use crate::features::request_matching::source_applies;
use crate::mutual_tls::ALL_ALPN;
use crate::role::Role;
use crate::tcp::{self, Stream};
use crate::{auto_passthrough, names, server_tls};

/// The conditions that chains of one listener have already: a proxy refuses a listener with two chains for one name.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeSet<(String, String, Vec<String>)>);

/// What stands for no name and for no range.
const ANY: &str = "*";

impl Taken {
    /// Takes the conditions of a chain; the names of which there is a chain already, and then nothing is taken.
    pub(super) fn reserve(&mut self, conditions: &Conditions) -> Vec<String> {
        let any = [ANY.to_owned()];
        let or_any = |list: &'_ Vec<String>| match list.is_empty() {
            true => any.to_vec(),
            false => list.clone(),
        };
        let (names, ranges) = (or_any(&conditions.server_names), or_any(&conditions.ranges));
        // A range may be written in several ways, an address like a range of one.
        let key = |name: &str, range: &str| {
            let range = chain::range(range).map_or_else(|| range.to_owned(), |r| format!("{r:?}"));
            (name.to_owned(), range, conditions.application_protocols.clone())
        };
        let keys = |name: &String| ranges.iter().map(|range| key(name, range)).collect::<Vec<_>>();
        let is_taken = |name: &&String| keys(name).iter().any(|key| self.0.contains(key));
        let double: Vec<String> = names.iter().filter(is_taken).cloned().collect();
        if double.is_empty() {
            self.0.extend(names.iter().flat_map(keys));
        }
        double
    }
}

/// What connections a server takes whose TLS ends here; others are taken whole.
pub(super) fn conditions(server: &GatewayServer) -> Conditions {
    let names = server.server_names();
    let named = server
        .terminates_tls()
        .then(|| chain::server_names(names.iter().map(String::as_str)));
    Conditions {
        server_names: named.unwrap_or_default(),
        ..Conditions::default()
    }
}

/// The chain with the server's end of TLS, where it has one. `http` says whether requests are read inside.
pub(super) fn ending_tls(
    view: &ProxyView,
    server: &GatewayServer,
    mut chain: FilterChain,
    http: bool,
) -> FilterChain {
    if let ServerTls::Terminated(termination) = &server.tls {
        chain.transport_socket = Some(server_tls::socket(view, termination, http));
    }
    chain
}

/// The chains of a server that reads no requests, in the order of the rules.
pub(super) fn chains(
    view: &ProxyView,
    server: &GatewayServer,
    taken: &mut Taken,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<FilterChain> {
    match &server.tls {
        ServerTls::None | ServerTls::Terminated(_) => tcp_route(view, server).into_iter().collect(),
        ServerTls::Passthrough => tls_routes(view, server, taken, diagnostics),
        ServerTls::AutoPassthrough => by_mesh_names(view, server, taken),
    }
}

/// The VirtualServices that apply to a server, by Gateway and host.
fn routings<'a>(view: &'a ProxyView, server: &'a GatewayServer) -> impl Iterator<Item = &'a Routing> {
    let bound = |r: &&Routing| r.config.spec.gateways.iter().any(|g| **g == *server.gateway);
    view.routing
        .iter()
        .map(|routing| &**routing)
        .filter(bound)
        .filter(|routing| shares_host(server, routing))
}

fn shares_host(server: &GatewayServer, routing: &Routing) -> bool {
    let hosts = &routing.config.spec.hosts;
    server
        .hosts_for(&routing.config.meta.namespace)
        .any(|s| hosts.iter().any(|h| host::matches(s, h)))
}

fn number(server: &GatewayServer) -> u32 {
    server.server.port.as_ref().map_or(0, |p| p.number)
}

/// Once TLS has ended, and where there was none, nothing tells rules apart: the first takes every connection.
fn tcp_route(view: &ProxyView, server: &GatewayServer) -> Option<FilterChain> {
    let number = number(server);
    for routing in routings(view, server) {
        for rule in &routing.config.spec.tcp {
            let mut matching = rule.r#match.iter().filter(|m| {
                let here = m.port == 0 || m.port == number;
                here && applies(view, server, &m.gateways, &m.source_labels, &m.source_namespace)
            });
            if rule.r#match.is_empty() || matching.next().is_some() {
                let chain = stream(view, server, routing, &rule.route, &conditions(server));
                return Some(ending_tls(view, server, chain, false));
            }
        }
    }
    None
}

/// A chain for each match of each TLS rule.
fn tls_routes(
    view: &ProxyView,
    server: &GatewayServer,
    taken: &mut Taken,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for routing in routings(view, server) {
        for (i, rule) in routing.config.spec.tls.iter().enumerate() {
            for (j, m) in rule
                .r#match
                .iter()
                .enumerate()
                .filter(|(_, m)| chooses(view, server, m))
            {
                let names = offered(server, &routing.config.meta.namespace, &m.sni_hosts);
                if names.is_empty() {
                    continue;
                }
                let conditions = Conditions {
                    server_names: chain::server_names(names.iter().map(String::as_str)),
                    ranges: m.destination_subnets.clone(),
                    ..Conditions::default()
                };
                let double = taken.reserve(&conditions);
                if double.is_empty() {
                    chains.push(stream(view, server, routing, &rule.route, &conditions));
                    continue;
                }
                let message = format!(
                    "on port {} of Gateway {}, {} is routed or served already",
                    number(server),
                    server.gateway,
                    double.join(", ")
                );
                diagnostics.push(
                    Diagnostic::new(
                        Code::VirtualServiceUnreachableRule,
                        routing.config.resource(),
                        message,
                    )
                    .at(format!("spec.tls[{i}].match[{j}].sniHosts"))
                    .hint("the whole match is left out; older objects come first"),
                );
            }
        }
    }
    chains
}

/// Of the names that a match asks for, those that the server lets objects of the namespace serve; of two wildcards, or a
/// wildcard and a name, the narrower.
fn offered(server: &GatewayServer, namespace: &str, asked: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for host in server.hosts_for(namespace).map(str::to_ascii_lowercase) {
        for name in asked.iter().map(|name| name.to_ascii_lowercase()) {
            if host::is_subset(&name, &host) {
                names.insert(name);
            } else if host::is_subset(&host, &name) {
                names.insert(host.clone());
            }
        }
    }
    names
}

fn chooses(view: &ProxyView, server: &GatewayServer, m: &TlsMatchAttributes) -> bool {
    (m.port == 0 || m.port == number(server))
        && applies(view, server, &m.gateways, &m.source_labels, &m.source_namespace)
}

fn applies(
    view: &ProxyView,
    server: &GatewayServer,
    gateways: &[String],
    labels: &BTreeMap<String, String>,
    namespace: &str,
) -> bool {
    source_applies(gateways, labels, namespace, &view.profile, &[&server.gateway])
}

fn stream(
    view: &ProxyView,
    server: &GatewayServer,
    routing: &Routing,
    routes: &[RouteDestination],
    conditions: &Conditions,
) -> FilterChain {
    let (stat_prefix, destinations) = destinations(view, routing, routes, number(server));
    let policy = policy(view, &destinations);
    let stream = Stream {
        view,
        role: Role::Gateway,
        protocol: server.protocol,
        stat_prefix,
        destinations,
        logged: true,
        policy: Some(&policy),
    };
    let of_mesh =
        matches!(&server.tls, ServerTls::Terminated(t) if t.certificates == ServerCertificates::Mesh);
    // Peers of the mesh tell each other who they are before the stream begins.
    let exchange = of_mesh.then(|| tcp::metadata_exchange(view)).flatten();
    let filters = exchange.into_iter().chain(stream.filters()).collect();
    chain::outbound(conditions, filters, None)
}

/// A chain for each cluster that mesh clients may name (`AUTO_PASSTHROUGH`). They must offer a protocol of the mesh, so
/// that what is passed on is mutual TLS, which nobody could see here.
/// Names that another server of the port has chains for already are left to it: they would be the same.
fn by_mesh_names(view: &ProxyView, server: &GatewayServer, taken: &mut Taken) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for (service, port) in auto_passthrough::services(view, server) {
        let subsets = service
            .rule
            .iter()
            .flat_map(|r| r.config.spec.subsets.iter().map(|s| s.name.as_str()));
        for subset in std::iter::once("").chain(subsets) {
            chains.extend(by_mesh_name(view, service, port, subset, taken));
        }
    }
    chains
}

fn by_mesh_name(
    view: &ProxyView,
    service: &ServiceView,
    port: &ServicePort,
    subset: &str,
    taken: &mut Taken,
) -> Option<FilterChain> {
    let name = names::server_name(port.port, subset, &service.service.hostname);
    // A tunnel would carry the TLS of the client to a place that its name does not mean.
    let policy = TrafficPolicy {
        tunnel: None,
        ..effective_policy(service.rule.as_deref(), subset, port.port)
    };
    let stream = Stream {
        view,
        role: Role::Gateway,
        protocol: port.protocol,
        stat_prefix: cluster_names::outbound(&view.mesh, &service.service, port, subset, &name),
        destinations: vec![(name.clone(), 1)],
        logged: true,
        policy: Some(&policy),
    };
    let conditions = Conditions {
        server_names: vec![name],
        application_protocols: ALL_ALPN.map(str::to_owned).to_vec(),
        ..Conditions::default()
    };
    let is_new = taken.reserve(&conditions).is_empty();
    is_new.then(|| chain::outbound(&conditions, stream.filters(), None))
}
