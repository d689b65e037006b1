//! `virtualInbound`: where captured inbound connections arrive, one set of filter chains per port of the workload and
//! one for all other ports.

use api_envoy::envoy::config::core::v3::TrafficDirection;
use api_envoy::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use api_envoy::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use api_envoy::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use api_envoy::wkt;
use control_snapshot::{Interception, PeerMode, Protocol, ProxyView};

use super::chain::Conditions;
use super::inspection;
use super::peer_chains::{self, Variant};
use crate::extension::{listener_filter, socket_address};
use crate::http_connection_manager::{Manager, Routes};
use crate::mutual_tls;
use crate::role::Role;
use crate::tcp::{self, Stream};
use crate::{access_log, limits, names, routes};

/// The packet mark of the proxy's transparent connections (Istio's iptables rules know it).
const TPROXY_MARK: u32 = 1337;

/// The listener.
pub(super) fn build(view: &ProxyView) -> Listener {
    let transparent = view.profile.interception == Interception::Tproxy;
    let mut filter_chains = vec![black_hole(view)];
    filter_chains.extend(Target::catch_all(view, None).chains());
    // Ports with a mode of their own that no service leads to.
    let served = |port: &u32| view.inbound.iter().any(|p| p.target_port == *port);
    for port in view.peers.ports.keys().filter(|port| !served(port)) {
        filter_chains.extend(Target::catch_all(view, Some(*port)).chains());
    }
    for port in &view.inbound {
        filter_chains.extend(Target::of_port(view, port).chains());
    }
    let listener_filters = listener_filters(transparent, &filter_chains);
    Listener {
        name: names::VIRTUAL_INBOUND.to_owned(),
        address: Some(socket_address(names::WILDCARD, view.mesh.inbound_capture_port())),
        filter_chains,
        listener_filters,
        listener_filters_timeout: Some(wkt::duration(
            view.mesh.protocol_detection_timeout.unwrap_or_default().0,
        )),
        continue_on_listener_filters_timeout: true,
        transparent: transparent.then_some(true),
        traffic_direction: TrafficDirection::Inbound.into(),
        access_log: access_log::of_listener(&view.mesh),
        max_connections_to_accept_per_socket_event: Some(limits::MAX_CONNECTIONS_PER_SOCKET_EVENT),
        ..Listener::default()
    }
}

fn listener_filters(transparent: bool, chains: &[FilterChain]) -> Vec<ListenerFilter> {
    let mut filters = vec![listener_filter(
        "envoy.filters.listener.original_dst",
        &OriginalDst {},
    )];
    if transparent {
        let config = OriginalSrc {
            mark: TPROXY_MARK,
            ..OriginalSrc::default()
        };
        filters.push(listener_filter("envoy.filters.listener.original_src", &config));
    }
    filters.extend(inspection::inspectors(chains));
    filters
}

/// Connections to the capture port itself would go round in circles.
fn black_hole(view: &ProxyView) -> FilterChain {
    nowhere(
        view,
        "virtualInbound-blackhole",
        Some(view.mesh.inbound_capture_port()),
    )
}

/// A chain that closes the connections to a port, or to all that no other chain takes.
fn nowhere(view: &ProxyView, name: &str, port: Option<u32>) -> FilterChain {
    let stream = Stream {
        view,
        role: Role::SidecarInbound,
        protocol: Protocol::Tcp,
        stat_prefix: names::BLACK_HOLE_CLUSTER.to_owned(),
        destinations: vec![(names::BLACK_HOLE_CLUSTER.to_owned(), 1)],
        logged: false,
        policy: None,
    };
    let conditions = Conditions {
        port,
        ..Conditions::default()
    };
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: conditions.to_match(),
        filters: stream.filters(),
        ..FilterChain::default()
    }
}

/// What a set of chains leads to.
struct Target<'a> {
    view: &'a ProxyView,
    /// The names of its TCP and HTTP chains.
    names: (String, String),
    /// The destination port; none for all others.
    port: Option<u32>,
    /// The port of the service in front of it, for names of routes.
    service_port: u32,
    host: &'a str,
    protocol: Protocol,
    /// What the workload demands of callers there.
    mode: PeerMode,
    cluster: String,
    /// The statistics name of its connection manager.
    http_stat_prefix: String,
}

impl<'a> Target<'a> {
    /// Everything that no service leads to, or one port of it.
    fn catch_all(view: &'a ProxyView, port: Option<u32>) -> Self {
        let cluster = names::INBOUND_PASSTHROUGH_CLUSTER;
        Self {
            view,
            names: (
                names::VIRTUAL_INBOUND.to_owned(),
                format!("{}-catchall-http", names::VIRTUAL_INBOUND),
            ),
            port,
            service_port: 0,
            host: "",
            protocol: Protocol::Unsupported,
            mode: port.map_or(view.peers.mode, |port| view.peers.at(port)),
            cluster: cluster.to_owned(),
            http_stat_prefix: cluster.to_owned(),
        }
    }

    fn of_port(view: &'a ProxyView, inbound: &'a control_snapshot::InboundPort) -> Self {
        let name = format!("{}_{}", names::WILDCARD, inbound.target_port);
        Self {
            view,
            names: (name.clone(), name.clone()),
            port: Some(inbound.target_port),
            service_port: inbound.port.port,
            host: &inbound.service.hostname,
            protocol: inbound.port.protocol,
            mode: view.peers.at(inbound.target_port),
            cluster: names::inbound(inbound.target_port),
            http_stat_prefix: format!("inbound_{name}"),
        }
    }

    fn chains(&self) -> Vec<FilterChain> {
        match peer_chains::variants(self.mode, self.view.identity, self.protocol) {
            Some(variants) => variants.iter().map(|variant| self.chain(variant)).collect(),
            // The catch-all's chains would take what this port refuses.
            None => vec![nowhere(self.view, &self.names.0, self.port)],
        }
    }

    fn chain(&self, variant: &Variant) -> FilterChain {
        let conditions = Conditions {
            transport: variant.transport,
            application_protocols: variant.alpn.names(self.view),
            port: self.port,
            ..Conditions::default()
        };
        FilterChain {
            name: if variant.http {
                self.names.1.clone()
            } else {
                self.names.0.clone()
            },
            filter_chain_match: conditions.to_match(),
            filters: if variant.http {
                self.http_filters()
            } else {
                self.tcp_filters()
            },
            transport_socket: variant.mutual.then(|| {
                let exchanges = self.view.profile.exchanges_metadata;
                mutual_tls::server(&self.view.mesh, variant.http, exchanges)
            }),
            ..FilterChain::default()
        }
    }

    fn http_filters(&self) -> Vec<Filter> {
        let routes = routes::inbound::build(&self.cluster, self.host, self.service_port, self.protocol);
        let manager = Manager {
            view: self.view,
            role: Role::SidecarInbound,
            protocol: self.protocol,
            stat_prefix: self.http_stat_prefix.clone(),
            routes: Routes::Inline(Box::new(routes)),
        };
        tcp::metadata_exchange(self.view)
            .into_iter()
            .chain([manager.filter()])
            .collect()
    }

    fn tcp_filters(&self) -> Vec<Filter> {
        let stream = Stream {
            view: self.view,
            role: Role::SidecarInbound,
            protocol: self.protocol,
            stat_prefix: self.cluster.clone(),
            destinations: vec![(self.cluster.clone(), 1)],
            logged: true,
            policy: None,
        };
        stream.filters()
    }
}
