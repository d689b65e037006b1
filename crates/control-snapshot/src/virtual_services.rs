//! VirtualServices with every name resolved and every delegate merged in.

use std::collections::BTreeMap;

use api_istio::networking::{Destination, HttpRoute, VirtualService};
use diagnostics::{Code, Diagnostic};

use crate::config::Config;
use crate::delegates;
use crate::host;
use crate::objects::Objects;
use crate::service::Visibility;
use crate::shared::Shared;
use crate::stream_rules;

/// The reserved gateway name for all sidecars.
pub const MESH_GATEWAY: &str = "mesh";

/// A VirtualService as it applies: hosts, destinations and gateways fully qualified, delegates merged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Routing {
    /// The resolved object, with the metadata of the root.
    pub config: Config<VirtualService>,
    /// Who sees it.
    pub visibility: Visibility,
}

/// All VirtualServices that have hosts, oldest first.
#[derive(Clone, Debug, Default)]
pub struct VirtualServices {
    all: Vec<Shared<Routing>>,
    by_gateway: BTreeMap<String, Vec<usize>>,
}

impl VirtualServices {
    /// Resolves all VirtualServices.
    #[must_use]
    pub fn build(objects: &Objects, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut roots: Vec<_> = objects
            .virtual_services
            .values()
            .filter(|vs| !vs.spec.hosts.is_empty())
            .collect();
        roots.sort_by(|a, b| a.meta.cmp(&b.meta));
        let mut this = Self::default();
        for root in roots {
            let mut spec = resolve_names(&root.spec, &root.meta.namespace, &objects.settings.domain);
            stream_rules::keep_servable(&mut spec, &root.resource(), diagnostics);
            merge_delegates(objects, root, &mut spec, diagnostics);
            let routing = Routing {
                visibility: visibility(objects, root),
                config: Config::new(root.meta.clone(), spec),
            };
            let index = this.all.len();
            for gateway in &routing.config.spec.gateways {
                this.by_gateway.entry(gateway.clone()).or_default().push(index);
            }
            this.all.push(Shared::new(routing));
        }
        this
    }

    /// Those bound to a gateway (`mesh` or `namespace/name`) that a namespace sees: its private ones first, then those
    /// exported to it by name, then public ones; within each class the oldest first.
    #[must_use]
    pub fn visible(&self, gateway: &str, namespace: &str) -> Vec<Shared<Routing>> {
        let indexes = self
            .by_gateway
            .get(gateway)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut seen: Vec<_> = indexes
            .iter()
            .map(|index| &self.all[*index])
            .filter(|vs| vs.visibility.includes(namespace))
            .map(|vs| (audience(vs, namespace), vs))
            .collect();
        // The sort is stable, so age decides within a class.
        seen.sort_by_key(|(class, _)| *class);
        seen.into_iter().map(|(_, vs)| vs.clone()).collect()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Shared<Routing>> {
        self.all.iter()
    }
}

/// 0 for private, 1 for exported by name, 2 for public.
fn audience(vs: &Routing, namespace: &str) -> u8 {
    match &vs.visibility {
        Visibility::Public => 2,
        Visibility::Namespaces(list) if list.len() == 1 && vs.config.meta.namespace == namespace => 0,
        Visibility::Namespaces(_) => 1,
    }
}

fn visibility(objects: &Objects, vs: &Config<VirtualService>) -> Visibility {
    Visibility::parse(
        &vs.spec.export_to,
        &vs.meta.namespace,
        &objects.mesh.default_virtual_service_export_to,
    )
}

fn resolve_names(spec: &VirtualService, namespace: &str, domain: &str) -> VirtualService {
    let mut out = spec.clone();
    for h in &mut out.hosts {
        *h = host::resolve(h, namespace, domain).to_string();
    }
    resolve_gateways(&mut out.gateways, namespace);
    if out.gateways.is_empty() {
        out.gateways.push(MESH_GATEWAY.to_owned());
    }
    for route in &mut out.http {
        resolve_route(route, namespace, domain);
    }
    for route in &mut out.tcp {
        route
            .r#match
            .iter_mut()
            .for_each(|m| resolve_gateways(&mut m.gateways, namespace));
        route
            .route
            .iter_mut()
            .for_each(|d| resolve_destination(&mut d.destination, namespace, domain));
    }
    for route in &mut out.tls {
        route
            .r#match
            .iter_mut()
            .for_each(|m| resolve_gateways(&mut m.gateways, namespace));
        route
            .route
            .iter_mut()
            .for_each(|d| resolve_destination(&mut d.destination, namespace, domain));
    }
    out
}

fn resolve_route(route: &mut HttpRoute, namespace: &str, domain: &str) {
    route
        .r#match
        .iter_mut()
        .for_each(|m| resolve_gateways(&mut m.gateways, namespace));
    let mirrors = route
        .mirror
        .iter_mut()
        .chain(route.mirrors.iter_mut().map(|m| &mut m.destination));
    for destination in route.route.iter_mut().map(|d| &mut d.destination).chain(mirrors) {
        resolve_destination(destination, namespace, domain);
    }
    if let Some(delegate) = &mut route.delegate
        && delegate.namespace.is_empty()
    {
        namespace.clone_into(&mut delegate.namespace);
    }
}

fn resolve_destination(destination: &mut Destination, namespace: &str, domain: &str) {
    destination.host = host::resolve(&destination.host, namespace, domain).to_string();
}

/// `name` is `namespace/name`; `mesh` and names with a namespace stay.
fn resolve_gateways(gateways: &mut [String], namespace: &str) {
    for gateway in gateways {
        if gateway != MESH_GATEWAY && !gateway.contains('/') {
            *gateway = format!("{namespace}/{gateway}");
        }
    }
}

fn merge_delegates(
    objects: &Objects,
    root: &Config<VirtualService>,
    spec: &mut VirtualService,
    diagnostics: &mut Vec<Diagnostic>,
) {
    if spec.http.iter().all(|route| route.delegate.is_none()) {
        return;
    }
    let mut merged = Vec::new();
    for (index, route) in std::mem::take(&mut spec.http).into_iter().enumerate() {
        let Some(reference) = &route.delegate else {
            merged.push(route);
            continue;
        };
        let key = (reference.namespace.clone(), reference.name.clone());
        let found = objects.virtual_services.get(&key).filter(|delegate| {
            delegate.spec.hosts.is_empty() && visibility(objects, delegate).includes(&root.meta.namespace)
        });
        let field = format!("spec.http[{index}].delegate");
        let Some(delegate) = found else {
            let message = format!(
                "delegate {}/{} does not exist, or is not exported here",
                key.0, key.1
            );
            let diagnostic = Diagnostic::new(Code::ReferencedResourceNotFound, root.resource(), message);
            diagnostics.push(diagnostic.at(field).hint("the route is left out"));
            continue;
        };
        let resolved = resolve_names(&delegate.spec, &delegate.meta.namespace, &objects.settings.domain);
        for (leaf, result) in delegates::merge(&route, &resolved.http).into_iter().enumerate() {
            match result {
                Some(route) if route.delegate.is_none() => merged.push(route),
                _ => {
                    let message = format!(
                        "it does not lie within the match of http[{index}] of VirtualService {}/{}, or delegates again",
                        root.meta.namespace, root.meta.name
                    );
                    let diagnostic =
                        Diagnostic::new(Code::VirtualServiceIneffectiveMatch, delegate.resource(), message);
                    diagnostics.push(diagnostic.at(format!("spec.http[{leaf}].match")));
                }
            }
        }
    }
    spec.http = merged;
}
