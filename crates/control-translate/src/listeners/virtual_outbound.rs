//! `virtualOutbound`: where captured outbound connections arrive. They are handed to the listener of their original
//! destination; what has none goes to the catch-all chains.

use api_envoy::envoy::config::core::v3::TrafficDirection;
use api_envoy::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use api_istio::mesh::MeshOutboundTrafficPolicyMode as OutboundMode;
use control_snapshot::{Interception, Protocol, ProxyView};

use super::chain;
use crate::extension::socket_address;
use crate::http_connection_manager::{Manager, Routes};
use crate::role::Role;
use crate::tcp::Stream;
use crate::{access_log, limits, names, routes};

/// The listener.
pub(super) fn build(view: &ProxyView) -> Listener {
    let port = view.mesh.capture_port();
    let dynamic = view.outbound == OutboundMode::AllowAnyDynamicDns;
    let mut filter_chains = vec![black_hole(view, port)];
    if dynamic {
        filter_chains.push(dynamic_dns(view));
    }
    filter_chains.push(FilterChain {
        name: "virtualOutbound-catchall-tcp".to_owned(),
        filters: chain::unclaimed(view).filters(),
        ..FilterChain::default()
    });
    Listener {
        name: names::VIRTUAL_OUTBOUND.to_owned(),
        address: Some(socket_address(names::WILDCARD, port)),
        filter_chains,
        listener_filters: if dynamic {
            vec![chain::http_inspector()]
        } else {
            Vec::new()
        },
        use_original_dst: Some(true),
        transparent: (view.profile.interception == Interception::Tproxy).then_some(true),
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::of_listener(&view.mesh),
        max_connections_to_accept_per_socket_event: Some(limits::MAX_CONNECTIONS_PER_SOCKET_EVENT),
        ..Listener::default()
    }
}

/// Connections to the capture port itself would go round in circles.
fn black_hole(view: &ProxyView, port: u32) -> FilterChain {
    let stream = Stream {
        view,
        role: Role::SidecarOutbound,
        protocol: Protocol::Tcp,
        stat_prefix: names::BLACK_HOLE_CLUSTER.to_owned(),
        destinations: vec![(names::BLACK_HOLE_CLUSTER.to_owned(), 1)],
        logged: false,
        policy: None,
    };
    FilterChain {
        name: "virtualOutbound-blackhole".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(port),
            ..FilterChainMatch::default()
        }),
        filters: stream.filters(),
        ..FilterChain::default()
    }
}

fn dynamic_dns(view: &ProxyView) -> FilterChain {
    let name = names::ALLOW_ANY_DYNAMIC_DNS;
    let hosts = vec![routes::catch_all(name, names::DYNAMIC_DNS_CLUSTER)];
    let manager = Manager {
        view,
        role: Role::SidecarOutbound,
        protocol: Protocol::Http,
        stat_prefix: format!("outbound_{}_{name}", names::VIRTUAL_OUTBOUND),
        routes: Routes::Inline(Box::new(routes::configuration(name, hosts))),
    };
    FilterChain {
        name: "virtualOutbound-catchall-tcp-http".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            application_protocols: chain::plaintext_http(view),
            ..FilterChainMatch::default()
        }),
        filters: vec![manager.filter()],
        ..FilterChain::default()
    }
}
