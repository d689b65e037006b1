//! Listeners of a gateway: plain HTTP, plain TCP, and TLS that is passed through by server name.

use api_envoy::envoy::config::core::v3::TrafficDirection;
use api_envoy::envoy::config::listener::v3::{FilterChain, Listener};
use api_istio::networking::ServerTlsMode;
use control_snapshot::{GatewayPort, GatewayServer, ProxyView, Routing, host};
use diagnostics::{Code, Diagnostic, ResourceRef};

use super::chain::{self, Conditions};
use super::service_chains::{destinations, policy};
use crate::extension::socket_address;
use crate::features::gateway_topology;
use crate::features::request_matching::source_applies;
use crate::http_connection_manager::{Manager, Routes};
use crate::role::Role;
use crate::tcp::Stream;
use crate::{access_log, limits};

/// All listeners.
pub(super) fn build(view: &ProxyView, diagnostics: &mut Vec<Diagnostic>) -> Vec<Listener> {
    view.gateways
        .iter()
        .filter_map(|port| listener(view, port, diagnostics))
        .collect()
}

fn listener(view: &ProxyView, port: &GatewayPort, diagnostics: &mut Vec<Diagnostic>) -> Option<Listener> {
    let name = format!("{}_{}", port.bind, port.port);
    let mut chains: Vec<FilterChain> = Vec::new();
    for server in &port.servers {
        if server.protocol.is_http() {
            // All HTTP servers of a port share one chain; their route configuration has one name.
            if chains.is_empty() {
                chains.push(http(view, server, &name));
            }
        } else if let Some(diagnostic) = unsupported(server) {
            diagnostics.push(diagnostic);
        } else {
            for chain in streams(view, server) {
                if chains
                    .iter()
                    .all(|c| c.filter_chain_match != chain.filter_chain_match)
                {
                    chains.push(chain);
                }
            }
        }
    }
    if chains.is_empty() {
        return None;
    }
    let names_matter = chains.iter().any(|c| {
        c.filter_chain_match
            .as_ref()
            .is_some_and(|m| !m.server_names.is_empty())
    });
    Some(Listener {
        name,
        address: Some(socket_address(&port.bind, port.port)),
        filter_chains: chains,
        listener_filters: gateway_topology::proxy_protocol(&view.profile)
            .into_iter()
            .chain(names_matter.then(chain::tls_inspector))
            .collect(),
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::of_listener(&view.mesh),
        max_connections_to_accept_per_socket_event: Some(limits::MAX_CONNECTIONS_PER_SOCKET_EVENT),
        ..Listener::default()
    })
}

fn http(view: &ProxyView, server: &GatewayServer, listener: &str) -> FilterChain {
    let manager = Manager {
        view,
        role: Role::Gateway,
        protocol: server.protocol,
        stat_prefix: format!("outbound_{listener}"),
        routes: Routes::Discovered(server.route_name.to_string()),
    };
    chain::outbound(&Conditions::default(), vec![manager.filter()], None)
}

/// The chains of TCP rules (plain servers), or of TLS rules (passed-through ones).
fn streams(view: &ProxyView, server: &GatewayServer) -> Vec<FilterChain> {
    let passthrough = server
        .server
        .tls
        .as_ref()
        .is_some_and(|t| t.mode == ServerTlsMode::Passthrough);
    let number = server.server.port.as_ref().map_or(0, |p| p.number);
    let mut chains = Vec::new();
    for routing in view
        .routing
        .iter()
        .filter(|r| r.config.spec.gateways.iter().any(|g| **g == *server.gateway))
    {
        if !shares_host(server, routing) {
            continue;
        }
        let spec = &routing.config.spec;
        if passthrough {
            for rule in &spec.tls {
                for m in &rule.r#match {
                    let here = (m.port == 0 || m.port == number)
                        && applies(view, server, &m.gateways, &m.source_labels, &m.source_namespace);
                    if here {
                        let conditions = Conditions {
                            server_names: m.sni_hosts.clone(),
                            ranges: m.destination_subnets.clone(),
                            ..Conditions::default()
                        };
                        chains.push(stream(view, server, routing, &rule.route, &conditions, number));
                    }
                }
            }
            continue;
        }
        for rule in &spec.tcp {
            let mut matching = rule.r#match.iter().filter(|m| {
                (m.port == 0 || m.port == number)
                    && applies(view, server, &m.gateways, &m.source_labels, &m.source_namespace)
            });
            if rule.r#match.is_empty() || matching.next().is_some() {
                // Without server names nothing tells rules apart, so the first takes every connection.
                chains.push(stream(
                    view,
                    server,
                    routing,
                    &rule.route,
                    &Conditions::default(),
                    number,
                ));
                break;
            }
        }
    }
    chains
}

fn applies(
    view: &ProxyView,
    server: &GatewayServer,
    gateways: &[String],
    labels: &std::collections::BTreeMap<String, String>,
    namespace: &str,
) -> bool {
    source_applies(gateways, labels, namespace, &view.profile, &[&server.gateway])
}

fn shares_host(server: &GatewayServer, routing: &Routing) -> bool {
    let hosts = &routing.config.spec.hosts;
    server
        .hosts_for(&routing.config.meta.namespace)
        .any(|s| hosts.iter().any(|h| host::matches(s, h)))
}

fn stream(
    view: &ProxyView,
    server: &GatewayServer,
    routing: &Routing,
    routes: &[api_istio::networking::RouteDestination],
    conditions: &Conditions,
    port: u32,
) -> FilterChain {
    let (stat_prefix, destinations) = destinations(view, routing, routes, port);
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
    chain::outbound(conditions, stream.filters(), None)
}

/// Why a server is left out; `None` for one that is served.
fn unsupported(server: &GatewayServer) -> Option<Diagnostic> {
    let what = match server.server.tls.as_ref().map(|tls| tls.mode) {
        Some(ServerTlsMode::AutoPassthrough) => "TLS mode AUTO_PASSTHROUGH",
        _ if server.terminates_tls() => "ending TLS",
        _ => return None,
    };
    let (namespace, name) = server.gateway.split_once('/').unwrap_or(("", &server.gateway));
    let port = server.server.port.clone().unwrap_or_default();
    let message = format!(
        "{what} at a gateway (port {} {}) is not available in this version",
        port.number, port.name
    );
    let resource = ResourceRef::new("Gateway", namespace, name);
    Some(
        Diagnostic::new(Code::SchemaWarning, resource, message)
            .at("spec.servers")
            .hint("the server is left out; servers without TLS and with mode PASSTHROUGH work"),
    )
}
