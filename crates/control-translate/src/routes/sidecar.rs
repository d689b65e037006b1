//! The route configurations of a sidecar's outbound side: one per HTTP port, and one per host and port where the
//! protocol is sniffed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use api_envoy::envoy::config::route::v3::{DirectResponseAction, VirtualHost, route::Action};
use api_istio::mesh::MeshOutboundTrafficPolicyMode as OutboundMode;
use control_snapshot::{MESH_GATEWAY, ProxyView, Routing, ServicePort, ServiceView, Shared, host};
use diagnostics::Diagnostic;
use foldhash::fast::RandomState;

use super::http_route::{self, Context};
use super::virtual_host::{self, Host, MadeHost, Routes, ServiceHost};
use super::{catch_all, configuration};
use crate::memo::Memo;
use crate::names;
use crate::packed::Packed;

/// The port on which hosts without any service are routed as well.
const HTTP_PORT: u32 = 80;

/// Services by port and host, made once for all route configurations of a proxy.
pub(crate) struct Ports<'a> {
    view: &'a ProxyView,
    by_port: BTreeMap<u32, OnPort<'a>>,
    nobody: OnPort<'a>,
}

type OnPort<'a> = BTreeMap<&'a str, Listening<'a>>;

/// A service on a port.
struct Listening<'a> {
    service: &'a ServiceView,
    port: &'a ServicePort,
    /// Its virtual host, if requests on the port are routed.
    host: Option<Arc<MadeHost>>,
}

impl<'a> Ports<'a> {
    pub(crate) fn new(view: &'a ProxyView, memo: &Memo<ServiceHost, MadeHost>) -> Self {
        let mut by_port: BTreeMap<u32, OnPort<'_>> = BTreeMap::new();
        for service in &view.services {
            for port in &service.service.ports {
                let hosts = by_port.entry(port.port).or_default();
                hosts.entry(&*service.service.hostname).or_insert_with(|| {
                    let key = || ServiceHost::new(view, service, port.port);
                    Listening {
                        service,
                        port,
                        host: is_routed(port).then(|| memo.get(key(), ServiceHost::make)),
                    }
                });
            }
        }
        Self {
            view,
            by_port,
            nobody: OnPort::new(),
        }
    }

    /// The parts that others may share.
    pub(crate) fn parts(&self) -> Vec<Arc<MadeHost>> {
        let all = self.by_port.values().flat_map(BTreeMap::values);
        all.filter_map(|listening| listening.host.clone()).collect()
    }

    /// The route configurations of these names: each a port, or `host:port`.
    pub(crate) fn configurations<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Vec<Packed> {
        let last = self.unknown_hosts();
        // Where protocols are sniffed, every service of a port has a route configuration of its own.
        let mut hosts_of: BTreeMap<u32, Vec<Host<'_>>> = BTreeMap::new();
        let one = |name: &str| {
            let frame = configuration(name, Vec::new());
            let (sniffed, number) = match name.rsplit_once(':') {
                Some((_, port)) => (true, port.parse()),
                None => (false, name.parse()),
            };
            let Ok(number) = number else {
                return virtual_host::configuration(frame, &[], Some(&last));
            };
            let hosts = hosts_of
                .entry(number)
                .or_insert_with(|| self.virtual_hosts(number, diagnostics));
            let own = hosts.binary_search_by(|host| host.name.as_str().cmp(name));
            if let (true, Ok(own)) = (sniffed, own) {
                // The listener is this service's alone, so whatever host is asked for means it.
                let own = Host {
                    domains: vec!["*"],
                    ..hosts[own].clone()
                };
                return virtual_host::configuration(frame, &[own], None);
            }
            virtual_host::configuration(frame, hosts, Some(&last))
        };
        names.map(one).collect()
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

    /// The virtual hosts of a port, sorted by name.
    fn virtual_hosts(&self, number: u32, diagnostics: &mut Vec<Diagnostic>) -> Vec<Host<'_>> {
        let on_port = self.by_port.get(&number).unwrap_or(&self.nobody);
        let mut hosts = VirtualHosts {
            number,
            names: HashSet::default(),
            taken: HashSet::default(),
            list: Vec::new(),
        };
        let mut routed: BTreeSet<&str> = BTreeSet::new();
        for routing in &self.view.routing {
            let (services, others) = split_hosts(routing, on_port);
            let known = services.iter().any(|listening| listening.host.is_some());
            let nowhere = services.is_empty() && number == HTTP_PORT;
            if !known && !nowhere {
                continue;
            }
            let lookup = |host: &str| {
                on_port
                    .get(host)
                    .map(|listening| (listening.service, Some(listening.port.port)))
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
            let routes = Routes::new(routes);
            for other in others {
                hosts.add(other, [other].into_iter(), &routes);
            }
            for listening in services {
                let Some(host) = &listening.host else { continue };
                let hostname = &*listening.service.service.hostname;
                routed.insert(hostname);
                hosts.add(hostname, host.domains.iter().map(String::as_str), &routes);
            }
        }
        for (hostname, listening) in on_port {
            if let Some(host) = &listening.host
                && !routed.contains(hostname)
            {
                hosts.add(hostname, host.domains.iter().map(String::as_str), &host.routes);
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

/// The services a VirtualService is for among those on a port, and its hosts that are no service there.
fn split_hosts<'a, 'r>(
    routing: &'r Shared<Routing>,
    on_port: &'r OnPort<'a>,
) -> (Vec<&'r Listening<'a>>, Vec<&'r str>) {
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
            Some(found) => services.push(found),
            None => others.push(name),
        }
    }
    for pattern in wildcards {
        let before = services.len();
        services.extend(
            on_port
                .iter()
                .filter(|(h, _)| host::is_subset(h, pattern))
                .map(|(_, found)| found),
        );
        if services.len() == before {
            others.push(pattern);
        }
    }
    (services, others)
}

/// Virtual hosts under construction: a name or domain that is taken stays with whom it belongs to.
struct VirtualHosts<'a> {
    number: u32,
    names: HashSet<&'a str, RandomState>,
    /// In lower case, as the proxy compares them.
    taken: HashSet<Cow<'a, str>, RandomState>,
    list: Vec<Host<'a>>,
}

fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

impl<'a> VirtualHosts<'a> {
    fn add(&mut self, hostname: &'a str, domains: impl Iterator<Item = &'a str>, routes: &Routes) {
        if self.names.contains(hostname) {
            return;
        }
        let domains: Vec<&str> = domains
            .filter(|domain| self.taken.insert(lower(domain)))
            .collect();
        if domains.is_empty() {
            return;
        }
        self.names.insert(hostname);
        self.list.push(Host {
            name: format!("{hostname}:{}", self.number),
            domains,
            routes: routes.clone(),
        });
    }
}

/// The status of requests to hosts that are not in the registry.
const BLOCKED_STATUS: u32 = 502;

fn block_all() -> VirtualHost {
    let mut host = catch_all(names::BLOCK_ALL, names::BLACK_HOLE_CLUSTER);
    for route in &mut host.routes {
        route.action = Some(Action::DirectResponse(DirectResponseAction {
            status: BLOCKED_STATUS,
            ..DirectResponseAction::default()
        }));
    }
    host
}
