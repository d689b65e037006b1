//! Listeners of a gateway: one per address and port, with a filter chain for plain HTTP, or one per server or rule that
//! a server name of TLS chooses.

use api_envoy::envoy::config::core::v3::TrafficDirection;
use api_envoy::envoy::config::listener::v3::{FilterChain, Listener};
use control_snapshot::{GatewayPort, GatewayServer, ProxyView, ServerCertificates, ServerTls};
use diagnostics::{Code, Diagnostic, ResourceRef};

use super::chain;
use super::gateway_streams::{self, Taken, conditions, ending_tls};
use crate::extension::socket_address;
use crate::features::gateway_topology;
use crate::http_connection_manager::{Manager, Routes};
use crate::role::Role;
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
    // What ends here is known beforehand; rules that pass TLS on take the names that are left.
    let mut taken = Taken::default();
    for server in port.servers.iter().filter(|server| server.terminates_tls()) {
        taken.reserve(&conditions(server));
    }
    for server in &port.servers {
        if let Some(diagnostic) = without_certificate(view, server) {
            diagnostics.push(diagnostic);
        } else if server.protocol.is_http() {
            // All HTTP servers of a port share one chain; their route configuration has one name.
            if chains.is_empty() {
                chains.push(http(view, server, &name));
            }
        } else if server.reads_http() {
            chains.push(http(view, server, &name));
        } else {
            chains.extend(gateway_streams::chains(view, server, &mut taken, diagnostics));
        }
    }
    if chains.is_empty() {
        return None;
    }
    Some(Listener {
        name,
        address: Some(socket_address(&port.bind, port.port)),
        listener_filters: gateway_topology::proxy_protocol(&view.profile)
            .into_iter()
            .chain(chains.iter().any(looks_at_tls).then(chain::tls_inspector))
            .collect(),
        filter_chains: chains,
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::of_listener(&view.mesh),
        max_connections_to_accept_per_socket_event: Some(limits::MAX_CONNECTIONS_PER_SOCKET_EVENT),
        ..Listener::default()
    })
}

/// Whether the ClientHello decides about a chain, or its TLS ends here.
fn looks_at_tls(chain: &FilterChain) -> bool {
    let by_name = |c: &FilterChain| {
        c.filter_chain_match
            .as_ref()
            .is_some_and(|m| !m.server_names.is_empty())
    };
    by_name(chain) || chain.transport_socket.is_some()
}

fn http(view: &ProxyView, server: &GatewayServer, listener: &str) -> FilterChain {
    let manager = Manager {
        view,
        role: Role::Gateway,
        protocol: server.protocol,
        stat_prefix: format!("outbound_{listener}"),
        routes: Routes::Discovered(server.route_name.to_string()),
    };
    let chain = chain::outbound(&conditions(server), vec![manager.filter()], None);
    ending_tls(view, server, chain, true)
}

/// Why a server that shows the mesh's certificate is left out: the workload has none.
fn without_certificate(view: &ProxyView, server: &GatewayServer) -> Option<Diagnostic> {
    let ServerTls::Terminated(termination) = &server.tls else {
        return None;
    };
    if view.identity || termination.certificates != ServerCertificates::Mesh {
        return None;
    }
    let (namespace, name) = server.gateway.split_once('/').unwrap_or(("", &server.gateway));
    let port = server.server.port.as_ref().map_or(0, |p| p.number);
    let message =
        format!("port {port} is in mode ISTIO_MUTUAL, and workloads of this mesh have no certificates");
    let resource = ResourceRef::new("Gateway", namespace, name);
    Some(
        Diagnostic::new(Code::SchemaWarning, resource, message)
            .at("spec.servers")
            .hint("the server is left out; a mesh with a certificate authority serves it"),
    )
}
