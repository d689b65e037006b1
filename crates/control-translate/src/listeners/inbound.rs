//! `virtualInbound`: where captured inbound connections arrive, one set of filter chains per port of the workload and
//! one for all other ports.

use api_envoy::envoy::config::core::v3::TrafficDirection;
use api_envoy::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use api_envoy::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use api_envoy::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use api_envoy::wkt;
use control_snapshot::{Interception, Protocol, ProxyView};

use super::chain::{self, Conditions, RAW_BUFFER, TLS};
use crate::extension::{listener_filter, socket_address};
use crate::http_connection_manager::{Manager, Routes};
use crate::mutual_tls::{self, ALL_ALPN, HTTP_ALPN, TCP_ALPN};
use crate::role::Role;
use crate::tcp::{self, Stream};
use crate::{access_log, limits, names, routes};

/// The packet mark of the proxy's transparent connections (Istio's iptables rules know it).
const TPROXY_MARK: u32 = 1337;

/// The listener.
pub(super) fn build(view: &ProxyView) -> Listener {
    let transparent = view.profile.interception == Interception::Tproxy;
    let mut filter_chains = vec![black_hole(view)];
    filter_chains.extend(Target::catch_all(view).chains());
    for port in &view.inbound {
        filter_chains.extend(Target::of_port(view, port).chains());
    }
    Listener {
        name: names::VIRTUAL_INBOUND.to_owned(),
        address: Some(socket_address(names::WILDCARD, view.mesh.inbound_capture_port())),
        filter_chains,
        listener_filters: listener_filters(view, transparent),
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

fn listener_filters(view: &ProxyView, transparent: bool) -> Vec<ListenerFilter> {
    let capture = view.mesh.inbound_capture_port();
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
    if view.identity {
        filters.push(chain::disabled_on(chain::tls_inspector(), &[capture]));
    }
    // Where the protocol is declared nothing needs to be sniffed, and the server may be the first to speak.
    let declared = view
        .inbound
        .iter()
        .filter(|p| !p.port.protocol.is_sniffed())
        .map(|p| p.target_port);
    let ports: Vec<u32> = declared.chain([capture]).collect();
    filters.push(chain::disabled_on(chain::http_inspector(), &ports));
    filters
}

/// Connections to the capture port itself would go round in circles.
fn black_hole(view: &ProxyView) -> FilterChain {
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
        port: Some(view.mesh.inbound_capture_port()),
        ..Conditions::default()
    };
    FilterChain {
        name: "virtualInbound-blackhole".to_owned(),
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
    cluster: String,
    /// The statistics name of its connection manager.
    http_stat_prefix: String,
}

impl<'a> Target<'a> {
    fn catch_all(view: &'a ProxyView) -> Self {
        let cluster = names::INBOUND_PASSTHROUGH_CLUSTER;
        Self {
            view,
            names: (
                names::VIRTUAL_INBOUND.to_owned(),
                format!("{}-catchall-http", names::VIRTUAL_INBOUND),
            ),
            port: None,
            service_port: 0,
            host: "",
            protocol: Protocol::Unsupported,
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
            cluster: names::inbound(inbound.target_port),
            http_stat_prefix: format!("inbound_{name}"),
        }
    }

    /// With an identity both mutual TLS and plain text are taken (Istio's PERMISSIVE), without one only plain text.
    fn chains(&self) -> Vec<FilterChain> {
        let alpn = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let sniffed = chain::plaintext_http(self.view);
        let mut chains = Vec::new();
        let mut mutual = |http: bool, protocols: Vec<String>| {
            if self.view.identity {
                chains.push(self.chain(http, TLS, protocols, true));
            }
        };
        if self.protocol.is_sniffed() {
            mutual(true, alpn(&HTTP_ALPN));
            chains.push(self.chain(true, RAW_BUFFER, sniffed, false));
            if self.view.identity {
                chains.push(self.chain(false, TLS, alpn(&TCP_ALPN), true));
            }
            chains.push(self.chain(false, RAW_BUFFER, Vec::new(), false));
            self.application_tls(&mut chains);
        } else if self.protocol.is_http() {
            mutual(true, alpn(&ALL_ALPN));
            chains.push(self.chain(true, RAW_BUFFER, Vec::new(), false));
        } else {
            mutual(false, alpn(&ALL_ALPN));
            self.application_tls(&mut chains);
            chains.push(self.chain(false, RAW_BUFFER, Vec::new(), false));
        }
        chains
    }

    /// TLS that is not the mesh's is the application's own affair. Without a TLS inspector it looks like any bytes.
    fn application_tls(&self, chains: &mut Vec<FilterChain>) {
        if self.view.identity {
            chains.push(self.chain(false, TLS, Vec::new(), false));
        }
    }

    fn chain(
        &self,
        http: bool,
        transport: &'static str,
        protocols: Vec<String>,
        mutual: bool,
    ) -> FilterChain {
        let conditions = Conditions {
            transport,
            application_protocols: protocols,
            port: self.port,
            ..Conditions::default()
        };
        FilterChain {
            name: if http {
                self.names.1.clone()
            } else {
                self.names.0.clone()
            },
            filter_chain_match: conditions.to_match(),
            filters: if http {
                self.http_filters()
            } else {
                self.tcp_filters()
            },
            transport_socket: mutual.then(|| mutual_tls::server(&self.view.mesh, http)),
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
