//! The route configurations of a gateway: one per plain HTTP port, one per server that ends TLS.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use api_envoy::envoy::config::route::v3::{
    Route, RouteConfiguration, VirtualHost, virtual_host::TlsRequirementType,
};
use control_snapshot::{GatewayServer, ProxyView, Routing, ServiceView, host};
use diagnostics::Diagnostic;

use super::configuration;
use super::http_route::{self, Context};
use crate::features::request_matching::is_catch_all;

/// The route configuration of this name.
pub(crate) fn build(view: &ProxyView, name: &str, diagnostics: &mut Vec<Diagnostic>) -> RouteConfiguration {
    let all = view.gateways.iter().flat_map(|p| &p.servers);
    let servers: Vec<&GatewayServer> = all.filter(|s| *s.route_name == *name).collect();
    let mut hosts: BTreeMap<String, Draft> = BTreeMap::new();
    for server in &servers {
        add_server(view, server, &mut hosts, diagnostics);
    }
    if hosts.is_empty() {
        return configuration(name, vec![black_hole(servers.first().map_or(0, |s| number(s)))]);
    }
    let mut list = merge_equal(hosts);
    for host in &mut list {
        catch_alls_last(&mut host.routes);
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    configuration(name, list)
}

/// A virtual host, and the rules that it has its routes from: Gateway and VirtualService, in order.
struct Draft {
    host: VirtualHost,
    rules: Vec<Rule>,
}

/// A Gateway, and the namespace and name of a VirtualService bound to it.
type Rule = (Arc<str>, String, String);

/// Hosts with the same rules become one virtual host with several domains, named after the most specific.
fn merge_equal(drafts: BTreeMap<String, Draft>) -> Vec<VirtualHost> {
    let mut drafts: Vec<(String, Draft)> = drafts.into_iter().collect();
    drafts.sort_by(|(a, _), (b, _)| host::by_specificity(a, b));
    let mut merged: Vec<VirtualHost> = Vec::new();
    let mut known: BTreeMap<(Vec<Rule>, i32), usize> = BTreeMap::new();
    for (_, Draft { host, rules }) in drafts {
        match known.entry((rules, host.require_tls)) {
            Entry::Occupied(same) => merged[*same.get()].domains.extend(host.domains),
            Entry::Vacant(new) => {
                new.insert(merged.len());
                merged.push(host);
            }
        }
    }
    merged
}

fn number(server: &GatewayServer) -> u32 {
    server.server.port.as_ref().map_or(0, |p| p.number)
}

fn add_server(
    view: &ProxyView,
    server: &GatewayServer,
    hosts: &mut BTreeMap<String, Draft>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let port = number(server);
    let redirects = server.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
    for routing in view
        .routing
        .iter()
        .filter(|r| r.config.spec.gateways.iter().any(|g| **g == *server.gateway))
    {
        let names = intersection(server, routing);
        if names.is_empty() {
            continue;
        }
        let lookup = |host: &str| view.service(host).map(|s| (&**s, only_port(s)));
        let gateways = [&*server.gateway];
        let context = Context {
            view,
            gateways: &gateways,
            port,
            tls: server.terminates_tls(),
            lookup: &lookup,
        };
        let routes = http_route::build(&context, routing, diagnostics);
        if routes.is_empty() {
            continue;
        }
        for name in names {
            let draft = hosts
                .entry(name.clone())
                .or_insert_with(|| virtual_host(&name, port));
            draft.host.routes.extend(routes.iter().cloned());
            let meta = &routing.config.meta;
            let rule = (
                Arc::clone(&server.gateway),
                meta.namespace.clone(),
                meta.name.clone(),
            );
            draft.rules.push(rule);
        }
    }
    if redirects {
        // Hosts without any rule are redirected as well.
        for name in server.server_names() {
            let draft = hosts
                .entry(name.clone())
                .or_insert_with(|| virtual_host(&name, port));
            draft.host.require_tls = TlsRequirementType::All.into();
        }
    }
}

/// The port of a service that has only one.
fn only_port(service: &ServiceView) -> Option<u32> {
    match service.service.ports.as_slice() {
        [only] => Some(only.port),
        _ => None,
    }
}

/// The hosts that both a server and a VirtualService name; of two wildcards or a wildcard and a name, the narrower.
fn intersection(server: &GatewayServer, routing: &Routing) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    // In lower case, as a proxy compares them: it refuses two spellings of one host.
    let of_rules = routing.config.spec.hosts.iter().map(|h| h.to_ascii_lowercase());
    let of_rules: Vec<String> = of_rules.collect();
    for of_server in server.hosts_for(&routing.config.meta.namespace) {
        let of_server = of_server.to_ascii_lowercase();
        for of_rule in &of_rules {
            let narrower = if host::is_subset(of_rule, &of_server) {
                of_rule
            } else if host::is_subset(&of_server, of_rule) {
                &of_server
            } else {
                continue;
            };
            if names.iter().all(|n| n != narrower) {
                names.push(narrower.clone());
            }
        }
    }
    names
}

fn virtual_host(name: &str, port: u32) -> Draft {
    Draft {
        host: VirtualHost {
            name: format!("{name}:{port}"),
            domains: vec![name.to_owned()],
            include_request_attempt_count: true,
            ..VirtualHost::default()
        },
        rules: Vec::new(),
    }
}

/// No rules: every request is answered with 404.
fn black_hole(port: u32) -> VirtualHost {
    VirtualHost {
        name: format!("blackhole:{port}"),
        domains: vec!["*".to_owned()],
        ..VirtualHost::default()
    }
}

/// Several VirtualServices may have added routes: those that take every request must not hide the others.
fn catch_alls_last(routes: &mut [Route]) {
    routes.sort_by_key(|route| route.r#match.as_ref().is_some_and(is_catch_all));
}
