//! Checks that hold for the whole world: every reference of a VirtualService or DestinationRule leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use api_istio::networking::Destination;
use diagnostics::{Code, Diagnostic, ResourceRef};

use crate::destination_rules::DestinationRules;
use crate::host;
use crate::objects::Objects;
use crate::registry::Registry;
use crate::virtual_services::{MESH_GATEWAY, Routing, VirtualServices};

/// Adds a diagnostic for every reference to something that is not there.
pub(crate) fn check(
    registry: &Registry,
    virtual_services: &VirtualServices,
    rules: &DestinationRules,
    objects: &Objects,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let world = World::new(registry, rules, objects);
    for routing in virtual_services.iter() {
        world.check_destinations(routing, diagnostics);
        world.check_gateways(routing, objects, diagnostics);
    }
    world.check_rules(rules, diagnostics);
}

/// Hosts and subsets that exist.
struct World<'a> {
    hosts: BTreeSet<&'a str>,
    wildcards: Vec<&'a str>,
    subsets: BTreeMap<String, BTreeSet<&'a str>>,
    domain: &'a str,
}

impl<'a> World<'a> {
    fn new(registry: &'a Registry, rules: &'a DestinationRules, objects: &'a Objects) -> Self {
        let hosts: BTreeSet<&str> = registry.services.iter().map(|s| &*s.hostname).collect();
        let wildcards = hosts.iter().copied().filter(|h| host::is_wildcard(h)).collect();
        let domain: &str = &objects.settings.domain;
        let mut subsets: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for rule in rules.iter() {
            let config = &rule.config;
            let fqdn = host::resolve(&config.spec.host, &config.meta.namespace, domain).to_string();
            let names = config.spec.subsets.iter().map(|s| s.name.as_str());
            subsets.entry(fqdn).or_default().extend(names);
        }
        Self {
            hosts,
            wildcards,
            subsets,
            domain,
        }
    }

    fn host_exists(&self, hostname: &str) -> bool {
        self.hosts.contains(hostname) || self.wildcards.iter().any(|w| host::is_subset(hostname, w))
    }

    fn subset_exists(&self, hostname: &str, subset: &str) -> bool {
        let exact = self.subsets.get(hostname).into_iter();
        let from_wildcards = (Bound::Included("*"), Bound::Unbounded);
        let wildcards = self
            .subsets
            .range::<str, _>(from_wildcards)
            .take_while(|(pattern, _)| host::is_wildcard(pattern))
            .filter(|(pattern, _)| host::is_subset(hostname, pattern));
        exact
            .chain(wildcards.map(|(_, names)| names))
            .any(|names| names.contains(subset))
    }

    fn check_destinations(&self, routing: &Routing, diagnostics: &mut Vec<Diagnostic>) {
        let resource = routing.config.resource();
        let spec = &routing.config.spec;
        for (i, route) in spec.http.iter().enumerate() {
            for (j, d) in route.route.iter().enumerate() {
                self.check(
                    &resource,
                    &d.destination,
                    || format!("spec.http[{i}].route[{j}]"),
                    diagnostics,
                );
            }
            if let Some(mirror) = &route.mirror {
                self.check(
                    &resource,
                    mirror,
                    || format!("spec.http[{i}].mirror"),
                    diagnostics,
                );
            }
            for (j, m) in route.mirrors.iter().enumerate() {
                self.check(
                    &resource,
                    &m.destination,
                    || format!("spec.http[{i}].mirrors[{j}]"),
                    diagnostics,
                );
            }
        }
        for (i, route) in spec.tcp.iter().enumerate() {
            for (j, d) in route.route.iter().enumerate() {
                self.check(
                    &resource,
                    &d.destination,
                    || format!("spec.tcp[{i}].route[{j}]"),
                    diagnostics,
                );
            }
        }
        for (i, route) in spec.tls.iter().enumerate() {
            for (j, d) in route.route.iter().enumerate() {
                self.check(
                    &resource,
                    &d.destination,
                    || format!("spec.tls[{i}].route[{j}]"),
                    diagnostics,
                );
            }
        }
    }

    fn check(
        &self,
        resource: &ResourceRef,
        destination: &Destination,
        field: impl Fn() -> String,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let Destination { host, subset, .. } = destination;
        let new =
            |message: String| Diagnostic::new(Code::ReferencedResourceNotFound, resource.clone(), message);
        if !self.host_exists(host) {
            diagnostics.push(
                new(format!("host {host} does not exist"))
                    .at(format!("{}.destination.host", field()))
                    .hint(
                        "requests of this route are answered with 503; create the Service or a ServiceEntry",
                    ),
            );
        } else if !subset.is_empty() && !self.subset_exists(host, subset) {
            diagnostics.push(
                new(format!("no DestinationRule for {host} defines subset {subset}"))
                    .at(format!("{}.destination.subset", field()))
                    .hint("requests of this route are answered with 503; add the subset to the host's DestinationRule"),
            );
        }
    }

    fn check_gateways(&self, routing: &Routing, objects: &Objects, diagnostics: &mut Vec<Diagnostic>) {
        for (index, gateway) in routing.config.spec.gateways.iter().enumerate() {
            let Some((namespace, name)) = gateway.split_once('/') else {
                continue;
            };
            if gateway != MESH_GATEWAY
                && !objects
                    .gateways
                    .contains_key(&(namespace.to_owned(), name.to_owned()))
            {
                let message = format!("Gateway {gateway} does not exist");
                diagnostics.push(
                    Diagnostic::new(
                        Code::ReferencedResourceNotFound,
                        routing.config.resource(),
                        message,
                    )
                    .at(format!("spec.gateways[{index}]"))
                    .hint("the rules have no effect there until it does"),
                );
            }
        }
    }

    fn check_rules(&self, rules: &DestinationRules, diagnostics: &mut Vec<Diagnostic>) {
        for rule in rules.iter() {
            let config = &rule.config;
            let fqdn = host::resolve(&config.spec.host, &config.meta.namespace, self.domain);
            let known = if host::is_wildcard(&fqdn) {
                self.hosts.iter().any(|h| host::is_subset(h, &fqdn))
            } else {
                self.host_exists(&fqdn)
            };
            if !known {
                diagnostics.push(
                    Diagnostic::new(
                        Code::UnknownDestinationRuleHost,
                        config.resource(),
                        format!("host {fqdn} does not exist"),
                    )
                    .at("spec.host")
                    .hint("the rule has no effect until a Service or ServiceEntry of this host exists"),
                );
            }
        }
    }
}
