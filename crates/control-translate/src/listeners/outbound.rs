//! Listeners of the services a sidecar's application may call.
//!
//! HTTP services share the listener `0.0.0.0_<port>`; TCP services, and those whose protocol is sniffed, have one per
//! address (`<address>_<port>`), or share the wildcard listener when they have none. They are not bound: `virtualOutbound`
//! hands connections to them. A proxy without interception binds them all on loopback. One with explicit ports binds a
//! listener per address and port for HTTP, too: applications then send any host, so the listener must tell the service.

use std::collections::BTreeMap;

use api_envoy::envoy::config::core::v3::TrafficDirection;
use api_envoy::envoy::config::listener::v3::{FilterChain, Listener};
use api_envoy::wkt;
use control_snapshot::{Interception, Protocol, ProxyView, Resolution, ServicePort, ServiceView};

use super::chain::{self, Conditions, RAW_BUFFER};
use super::service_chains::{Draft, Port};
use crate::extension::socket_address;
use crate::http_connection_manager::{Manager, Routes};
use crate::names;
use crate::role::Role;

/// All listeners of services.
pub(super) fn build(view: &ProxyView) -> Vec<Listener> {
    let mut drafts = Drafts {
        view,
        listeners: BTreeMap::new(),
    };
    for service in &view.services {
        for port in service
            .service
            .ports
            .iter()
            .filter(|p| p.protocol != Protocol::Udp)
        {
            drafts.add(service, port);
        }
    }
    drafts.finish()
}

/// A listener under construction.
#[derive(Default)]
struct ListenerDraft {
    /// The route configuration of its HTTP chain, if it has one.
    routes: Option<String>,
    /// Chains of byte streams.
    streams: Vec<Draft>,
}

/// Listeners by address and port.
struct Drafts<'a> {
    view: &'a ProxyView,
    listeners: BTreeMap<(String, u32), ListenerDraft>,
}

impl<'a> Drafts<'a> {
    fn add(&mut self, service: &'a ServiceView, port: &'a ServicePort) {
        if self.view.profile.interception == Interception::Ports {
            self.add_explicit(service, port);
            return;
        }
        if port.protocol.is_http() {
            let draft = self.at(names::WILDCARD, port.port);
            draft.routes.get_or_insert_with(|| port.port.to_string());
            return;
        }
        let addresses = self.addresses(service);
        if addresses.is_empty() {
            self.add_stream(service, port, names::WILDCARD, None);
        }
        for address in addresses {
            if address.contains('/') {
                self.add_stream(service, port, names::WILDCARD, Some(address));
            } else {
                self.add_stream(service, port, address, None);
            }
        }
    }

    /// One listener per address. Services without any have nothing that the application could be told.
    fn add_explicit(&mut self, service: &'a ServiceView, port: &'a ServicePort) {
        let addresses = &service.service.addresses;
        for address in addresses.iter().filter(|address| !address.contains('/')) {
            if port.protocol.is_http() {
                let name = own_routes(service, port);
                self.at(address, port.port).routes.get_or_insert(name);
            } else {
                self.add_stream(service, port, address, None);
            }
        }
    }

    /// The addresses a service is called at: those of its workloads when it is headless, without the proxy's own.
    fn addresses(&self, service: &'a ServiceView) -> Vec<&'a str> {
        if service.service.headless && service.service.resolution == Resolution::Passthrough {
            let others = service
                .workload_addresses
                .iter()
                .filter(|a| !service.own_addresses.contains(a));
            return others.map(|a| &**a).collect();
        }
        service.service.addresses.iter().map(|a| &**a).collect()
    }

    /// The listener of an address. Without interception everything is dialled on loopback.
    fn at(&mut self, address: &str, port: u32) -> &mut ListenerDraft {
        let bind = match self.view.profile.interception {
            Interception::None => names::LOCALHOST,
            Interception::Redirect | Interception::Tproxy | Interception::Ports => address,
        };
        self.listeners.entry((bind.to_owned(), port)).or_default()
    }

    fn add_stream(
        &mut self,
        service: &'a ServiceView,
        port: &'a ServicePort,
        address: &str,
        range: Option<&'a str>,
    ) {
        let wildcard = address == names::WILDCARD;
        let chains = Port {
            view: self.view,
            service,
            port,
            range,
            wildcard,
        }
        .chains();
        let draft = self.at(address, port.port);
        if port.protocol.is_sniffed() {
            // On a listener of its own the service is known, whatever host the request names.
            let shared = wildcard && range.is_none();
            let name = if shared {
                port.port.to_string()
            } else {
                own_routes(service, port)
            };
            draft.routes.get_or_insert(name);
        }
        for chain in chains {
            // Two chains with one condition would be refused; the older service keeps it.
            if draft
                .streams
                .iter()
                .all(|known| known.conditions != chain.conditions)
            {
                draft.streams.push(chain);
            }
        }
    }

    fn finish(self) -> Vec<Listener> {
        let view = self.view;
        self.listeners
            .into_iter()
            .map(|((address, port), draft)| listener(view, &address, port, draft))
            .collect()
    }
}

fn listener(view: &ProxyView, address: &str, port: u32, draft: ListenerDraft) -> Listener {
    let name = format!("{address}_{port}");
    let tls = draft
        .streams
        .iter()
        .any(|s| !s.conditions.server_names.is_empty() || s.conditions.transport == chain::TLS);
    let sniffs = draft.routes.is_some();
    let mut chains: Vec<FilterChain> = Vec::new();
    let mut default = None;
    for stream in draft.streams {
        let everything = stream.conditions.is_empty();
        let chain = chain::outbound(&stream.conditions, stream.filters, stream.metadata);
        // Next to HTTP, what takes everything is the default, so that HTTP is looked for first.
        if everything && sniffs {
            default = Some(chain)
        } else {
            chains.push(chain)
        }
    }
    if let Some(routes) = draft.routes {
        let conditions = Conditions {
            transport: RAW_BUFFER,
            application_protocols: chain::plaintext_http(view),
            ..Conditions::default()
        };
        let manager = Manager {
            view,
            role: Role::SidecarOutbound,
            protocol: http_protocol(view, port),
            stat_prefix: format!("outbound_{name}"),
            routes: Routes::Discovered(routes),
        };
        chains.insert(0, chain::outbound(&conditions, vec![manager.filter()], None));
    }
    if default.is_none() && chains.iter().all(|c| c.filter_chain_match.is_some()) {
        default = Some(chain::passthrough(view));
    }
    let inspectors = [tls.then(chain::tls_inspector), sniffs.then(chain::http_inspector)];
    // Where nothing is inspected nothing is waited for.
    let detection = if tls || sniffs {
        view.mesh.protocol_detection_timeout
    } else {
        None
    };
    Listener {
        name,
        address: Some(socket_address(address, port)),
        filter_chains: chains,
        default_filter_chain: default,
        listener_filters: inspectors.into_iter().flatten().collect(),
        listener_filters_timeout: Some(wkt::duration(detection.unwrap_or_default().0)),
        continue_on_listener_filters_timeout: true,
        bind_to_port: Some(matches!(
            view.profile.interception,
            Interception::None | Interception::Ports
        )),
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    }
}

/// The route configuration of a listener that is one service's alone.
fn own_routes(service: &ServiceView, port: &ServicePort) -> String {
    format!("{}:{}", service.service.hostname, port.port)
}

/// The protocol that decides about HTTP filters: that of the oldest HTTP service on the port.
fn http_protocol(view: &ProxyView, port: u32) -> Protocol {
    let mut ports = view.services.iter().filter_map(|s| s.service.port(port));
    ports
        .find(|p| p.protocol.is_http())
        .map_or(Protocol::Unsupported, |p| p.protocol)
}
