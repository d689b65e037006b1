//! Filter chains for one TCP or TLS port of a service: rules of VirtualServices first, then the service itself.

use api_envoy::envoy::config::core::v3::Metadata;
use api_envoy::envoy::config::listener::v3::Filter;
use api_istio::networking::{Destination, RouteDestination, TrafficPolicy};
use control_snapshot::spread::effective_policy;
use control_snapshot::{MESH_GATEWAY, ProxyView, Routing, ServicePort, ServiceView, host};
use serde_json::json;

use super::chain::{self, Conditions};
use crate::extension;
use crate::features::request_matching::source_applies;
use crate::names;
use crate::role::Role;
use crate::tcp::Stream;

/// A chain before it is part of a listener.
pub(super) struct Draft {
    pub(super) conditions: Conditions,
    pub(super) filters: Vec<Filter>,
    pub(super) metadata: Option<Metadata>,
}

/// One port of a service on one listener.
pub(super) struct Port<'a> {
    pub(super) view: &'a ProxyView,
    pub(super) service: &'a ServiceView,
    pub(super) port: &'a ServicePort,
    /// The range of addresses the listener stands for, when it is more than one.
    pub(super) range: Option<&'a str>,
    /// Whether the listener is shared by all addresses, so that only server names tell TLS services apart.
    pub(super) wildcard: bool,
}

impl Port<'_> {
    /// All chains, in the order in which they are tried.
    pub(super) fn chains(&self) -> Vec<Draft> {
        let routings: Vec<&Routing> = self
            .view
            .routing
            .iter()
            .map(|r| &**r)
            .filter(|r| self.concerns(r))
            .collect();
        let mut drafts = self.tls_rules(&routings);
        if self.port.protocol.is_tls() {
            if drafts.is_empty() {
                drafts.push(self.default(self.server_names()));
            }
            return drafts;
        }
        let (rules, everything) = self.tcp_rules(&routings);
        drafts.extend(rules);
        if !everything {
            drafts.push(self.default(Vec::new()));
        }
        drafts
    }

    fn concerns(&self, routing: &Routing) -> bool {
        let hostname = &self.service.service.hostname;
        routing
            .config
            .spec
            .hosts
            .iter()
            .any(|h| host::matches(h, hostname))
    }

    /// The service's own name, where nothing else tells it from others on the listener.
    fn server_names(&self) -> Vec<String> {
        let needed = self.wildcard || self.range.is_some();
        needed
            .then(|| self.service.service.hostname.to_string())
            .into_iter()
            .collect()
    }

    fn ranges(&self) -> Vec<String> {
        self.range.map(str::to_owned).into_iter().collect()
    }

    fn default(&self, server_names: Vec<String>) -> Draft {
        let cluster = names::outbound(self.port.port, "", &self.service.service.hostname);
        let policy = effective_policy(self.service.rule.as_deref(), "", self.port.port);
        Draft {
            conditions: Conditions {
                server_names,
                ranges: self.ranges(),
                ..Conditions::default()
            },
            filters: self.stream(cluster.clone(), vec![(cluster, 1)], &policy),
            metadata: None,
        }
    }

    fn tls_rules(&self, routings: &[&Routing]) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = Vec::new();
        for routing in routings {
            for rule in &routing.config.spec.tls {
                for m in &rule.r#match {
                    let here = (m.port == 0 || m.port == self.port.port)
                        && source_applies(
                            &m.gateways,
                            &m.source_labels,
                            &m.source_namespace,
                            &self.view.profile,
                            &[MESH_GATEWAY],
                        );
                    let ranges = if m.destination_subnets.is_empty() {
                        self.ranges()
                    } else {
                        m.destination_subnets.clone()
                    };
                    let server_names = chain::server_names(m.sni_hosts.iter().map(String::as_str));
                    // Any name is not the same as no TLS at all.
                    let transport = if server_names.is_empty() { chain::TLS } else { "" };
                    let conditions = Conditions {
                        server_names,
                        ranges,
                        transport,
                        ..Conditions::default()
                    };
                    // Of rules with one condition the first counts; the proxy would refuse the second.
                    if here && drafts.iter().all(|d| d.conditions != conditions) {
                        drafts.push(self.routed(routing, &rule.route, conditions));
                    }
                }
            }
        }
        drafts
    }

    /// The chains of TCP rules, and whether one of them takes every connection.
    fn tcp_rules(&self, routings: &[&Routing]) -> (Vec<Draft>, bool) {
        let mut drafts: Vec<Draft> = Vec::new();
        for routing in routings {
            for rule in &routing.config.spec.tcp {
                let matching: Vec<_> = rule
                    .r#match
                    .iter()
                    .filter(|m| {
                        (m.port == 0 || m.port == self.port.port)
                            && source_applies(
                                &m.gateways,
                                &m.source_labels,
                                &m.source_namespace,
                                &self.view.profile,
                                &[MESH_GATEWAY],
                            )
                    })
                    .collect();
                if !rule.r#match.is_empty() && matching.is_empty() {
                    continue;
                }
                let everywhere = matching.iter().any(|m| m.destination_subnets.is_empty());
                let subnets: Vec<String> = matching
                    .iter()
                    .flat_map(|m| m.destination_subnets.clone())
                    .collect();
                if rule.r#match.is_empty() || everywhere {
                    let conditions = Conditions {
                        ranges: self.ranges(),
                        ..Conditions::default()
                    };
                    drafts.push(self.routed(routing, &rule.route, conditions));
                    return (drafts, true);
                }
                let conditions = Conditions {
                    ranges: subnets,
                    ..Conditions::default()
                };
                if drafts.iter().all(|d| d.conditions != conditions) {
                    drafts.push(self.routed(routing, &rule.route, conditions));
                }
            }
        }
        (drafts, false)
    }

    fn routed(&self, routing: &Routing, routes: &[RouteDestination], conditions: Conditions) -> Draft {
        let (stat_prefix, destinations) = destinations(self.view, routing, routes, self.port.port);
        let policy = policy(self.view, &destinations);
        Draft {
            conditions,
            filters: self.stream(stat_prefix, destinations, &policy),
            metadata: Some(extension::metadata(
                "istio",
                &json!({"config": routing.config.path()}),
            )),
        }
    }

    fn stream(
        &self,
        stat_prefix: String,
        destinations: Vec<(String, u32)>,
        policy: &TrafficPolicy,
    ) -> Vec<Filter> {
        let stream = Stream {
            view: self.view,
            role: Role::SidecarOutbound,
            protocol: self.port.protocol,
            stat_prefix,
            destinations,
            logged: true,
            policy: Some(policy),
        };
        stream.filters()
    }
}

/// The clusters of a TCP or TLS rule with their weights, and the name of the stream in statistics: the cluster's, or
/// the VirtualService's where there are several.
pub(super) fn destinations(
    view: &ProxyView,
    routing: &Routing,
    routes: &[RouteDestination],
    listener_port: u32,
) -> (String, Vec<(String, u32)>) {
    let cluster = |d: &Destination| {
        let own = d.port.as_ref().map(|p| p.number);
        let only = || match view.service(&d.host)?.service.ports.as_slice() {
            [port] => Some(port.port),
            _ => None,
        };
        names::outbound(own.or_else(only).unwrap_or(listener_port), &d.subset, &d.host)
    };
    if let [only] = routes {
        let name = cluster(&only.destination);
        return (name.clone(), vec![(name, 1)]);
    }
    let meta = &routing.config.meta;
    let weighted = routes.iter().filter(|r| r.weight > 0);
    let clusters = weighted.map(|r| (cluster(&r.destination), u32::try_from(r.weight).unwrap_or(0)));
    (format!("{}.{}", meta.name, meta.namespace), clusters.collect())
}

/// The policy towards the one destination of a stream; with several there is none that holds for all.
pub(super) fn policy(view: &ProxyView, destinations: &[(String, u32)]) -> TrafficPolicy {
    let [(cluster, _)] = destinations else {
        return TrafficPolicy::default();
    };
    let Some((port, subset, hostname)) = names::parts(cluster) else {
        return TrafficPolicy::default();
    };
    let rule = view.service(hostname).and_then(|s| s.rule.as_deref());
    effective_policy(rule, subset, port)
}
