//! The route configurations of a sidecar's outbound side: one per HTTP port, and one per host and port where the
//! protocol is sniffed.

use std::collections::{BTreeMap, BTreeSet};

use api_envoy::envoy::config::route::v3::{
    Decorator, Route, RouteAction, RouteConfiguration, VirtualHost, route::Action, route_action,
};
use api_istio::mesh::MeshOutboundTrafficPolicyMode as OutboundMode;
use control_snapshot::{MESH_GATEWAY, ProxyView, Routing, ServicePort, ServiceView, Shared, host};
use diagnostics::Diagnostic;

use super::http_route::{self, Context};
use super::{catch_all, configuration, domains, everything};
use crate::features::{consistent_hash, retry, timeout};
use crate::names;

/// The port on which hosts without any service are routed as well.
const HTTP_PORT: u32 = 80;

/// Services by port and host, made once for all route configurations of a proxy.
pub(crate) struct Ports<'a> {
    view: &'a ProxyView,
    by_port: BTreeMap<u32, BTreeMap<&'a str, (&'a ServiceView, &'a ServicePort)>>,
}

impl<'a> Ports<'a> {
    pub(crate) fn new(view: &'a ProxyView) -> Self {
        let mut by_port: BTreeMap<u32, BTreeMap<&str, _>> = BTreeMap::new();
        for service in &view.services {
            for port in &service.service.ports {
                let hosts = by_port.entry(port.port).or_default();
                hosts
                    .entry(&*service.service.hostname)
                    .or_insert((&**service, port));
            }
        }
        Self { view, by_port }
    }

    /// The route configuration of this name: a port, or `host:port`.
    pub(crate) fn configuration(&self, name: &str, diagnostics: &mut Vec<Diagnostic>) -> RouteConfiguration {
        let (sniffed, number) = match name.rsplit_once(':') {
            Some((_, port)) => (true, port.parse()),
            None => (false, name.parse()),
        };
        let Ok(number) = number else {
            return configuration(name, vec![self.unknown_hosts()]);
        };
        let mut hosts = self.virtual_hosts(number, diagnostics);
        if sniffed && let Some(own) = hosts.iter().position(|h| h.name == name) {
            // The listener is this service's alone, so whatever host is asked for means it.
            let own = VirtualHost {
                domains: vec!["*".to_owned()],
                ..hosts.swap_remove(own)
            };
            return configuration(name, vec![own]);
        }
        hosts.push(self.unknown_hosts());
        configuration(name, hosts)
    }

    fn unknown_hosts(&self) -> VirtualHost {
        match self.view.outbound {
            OutboundMode::AllowAny => catch_all(names::ALLOW_ANY, names::PASSTHROUGH_CLUSTER),
            OutboundMode::AllowAnyDynamicDns => {
                catch_all(names::ALLOW_ANY_DYNAMIC_DNS, names::DYNAMIC_DNS_CLUSTER)
            }
            OutboundMode::RegistryOnly => block_all(),
        }
    }

    fn virtual_hosts(&self, number: u32, diagnostics: &mut Vec<Diagnostic>) -> Vec<VirtualHost> {
        let empty = BTreeMap::new();
        let on_port = self.by_port.get(&number).unwrap_or(&empty);
        let mut hosts = VirtualHosts {
            view: self.view,
            number,
            names: BTreeSet::new(),
            taken: BTreeSet::new(),
            list: Vec::new(),
        };
        let mut routed: BTreeSet<&str> = BTreeSet::new();
        for routing in &self.view.routing {
            let (services, others) = split_hosts(routing, on_port);
            let known = services.iter().any(|(_, port)| is_routed(port));
            let nowhere = services.is_empty() && number == HTTP_PORT;
            if !known && !nowhere {
                continue;
            }
            let lookup = |host: &str| {
                on_port
                    .get(host)
                    .map(|(service, port)| (*service, Some(port.port)))
            };
            let context = Context {
                view: self.view,
                gateways: &[MESH_GATEWAY],
                port: number,
                tls: false,
                lookup: &lookup,
            };
            let routes = http_route::build(&context, routing, diagnostics);
            if routes.is_empty() {
                continue;
            }
            for other in others {
                hosts.add(other, vec![other.to_owned()], &routes);
            }
            for (service, _) in services.iter().filter(|(_, port)| is_routed(port)) {
                routed.insert(&service.service.hostname);
                hosts.add_service(service, &routes);
            }
        }
        for (hostname, (service, port)) in on_port {
            if is_routed(port) && !routed.contains(hostname) {
                hosts.add_service(service, &[default_route(self.view, service, port)]);
            }
        }
        hosts.list.sort_by(|a, b| a.name.cmp(&b.name));
        hosts.list
    }
}

/// Whether requests on a port are routed: it speaks HTTP, or might.
fn is_routed(port: &ServicePort) -> bool {
    port.protocol.is_http() || port.protocol.is_sniffed()
}

type OnPort<'a> = BTreeMap<&'a str, (&'a ServiceView, &'a ServicePort)>;

/// The services a VirtualService is for among those on a port, and its hosts that are no service there.
fn split_hosts<'a, 'r>(
    routing: &'r Shared<Routing>,
    on_port: &OnPort<'a>,
) -> (Vec<(&'a ServiceView, &'a ServicePort)>, Vec<&'r str>) {
    let mut services = Vec::new();
    let mut others = Vec::new();
    let (wildcards, exact): (Vec<&str>, Vec<&str>) = routing
        .config
        .spec
        .hosts
        .iter()
        .map(String::as_str)
        .partition(|h| host::is_wildcard(h));
    for name in exact {
        match on_port.get(name) {
            Some(found) => services.push(*found),
            None => others.push(name),
        }
    }
    for pattern in wildcards {
        let before = services.len();
        services.extend(
            on_port
                .iter()
                .filter(|(h, _)| host::is_subset(h, pattern))
                .map(|(_, found)| *found),
        );
        if services.len() == before {
            others.push(pattern);
        }
    }
    (services, others)
}

/// Virtual hosts under construction: a name or domain that is taken stays with whom it belongs to.
struct VirtualHosts<'a> {
    view: &'a ProxyView,
    number: u32,
    names: BTreeSet<String>,
    taken: BTreeSet<String>,
    list: Vec<VirtualHost>,
}

impl VirtualHosts<'_> {
    fn add_service(&mut self, service: &ServiceView, routes: &[Route]) {
        let profile = &self.view.profile;
        let domains = domains::of_service(&service.service, &profile.namespace, &profile.domain);
        self.add(&service.service.hostname, domains, routes);
    }

    fn add(&mut self, hostname: &str, mut domains: Vec<String>, routes: &[Route]) {
        let name = format!("{hostname}:{}", self.number);
        if self.names.contains(&name) {
            return;
        }
        domains.retain(|d| self.taken.insert(d.clone()));
        if domains.is_empty() {
            return;
        }
        self.names.insert(name.clone());
        self.list.push(VirtualHost {
            name,
            domains,
            routes: routes.to_vec(),
            include_request_attempt_count: true,
            ..VirtualHost::default()
        });
    }
}

/// The route of a service that no VirtualService is for.
fn default_route(view: &ProxyView, service: &ServiceView, port: &ServicePort) -> Route {
    let hostname = &service.service.hostname;
    let hash = consistent_hash::of_destination(service, "", port.port);
    let mut action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(names::outbound(
            port.port, "", hostname,
        ))),
        retry_policy: retry::of_route(None, &view.mesh, hash.is_some()),
        hash_policy: hash.into_iter().collect(),
        ..RouteAction::default()
    };
    timeout::apply(&mut action, None);
    Route {
        name: "default".to_owned(),
        r#match: Some(everything()),
        decorator: Some(Decorator {
            operation: format!("{hostname}:{}/*", port.port),
            ..Decorator::default()
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}

/// The status of requests to hosts that are not in the registry.
const BLOCKED_STATUS: u32 = 502;

fn block_all() -> VirtualHost {
    let mut host = catch_all(names::BLOCK_ALL, names::BLACK_HOLE_CLUSTER);
    for route in &mut host.routes {
        route.action = Some(Action::DirectResponse(
            api_envoy::envoy::config::route::v3::DirectResponseAction {
                status: BLOCKED_STATUS,
                ..Default::default()
            },
        ));
    }
    host
}
