//! The immutable world at one moment, and the views of single proxies cut out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_istio::networking::ClientTlsMode;
use diagnostics::Diagnostic;

use crate::credential_name::{CredentialName, Holder};
use crate::credential_references;
use crate::credentials::{Credential, CredentialError};
use crate::destination_rules::DestinationRules;
use crate::gateways;
use crate::grants;
use crate::inbound;
use crate::kubernetes::Labels;
use crate::limits::MAX_DIAGNOSTICS;
use crate::mesh::Mesh;
use crate::objects::{Objects, Settings};
use crate::peer_authentication::{self, PeerAuthentications, PeerMode, PeerPolicy};
use crate::proxy::{Profile, Proxy, ProxyKind};
use crate::references;
use crate::registry::{self, Inputs, Registry};
use crate::service::Service;
use crate::service_views::{NamespaceViews, Seen, ServiceViews};
use crate::shared::Shared;
use crate::sidecar::{self, SidecarScope};
use crate::spread;
use crate::tls_conflicts;
use crate::view::{EndpointView, ProxyView, Services};
use crate::virtual_services::{MESH_GATEWAY, Routing, VirtualServices};

/// The world. Cheap to share (`Arc<Snapshot>`), never changed: the next one is built from the changed objects.
#[derive(Clone, Debug)]
pub struct Snapshot {
    objects: Objects,
    registry: Arc<Registry>,
    virtual_services: VirtualServices,
    destination_rules: DestinationRules,
    peer_authentications: PeerAuthentications,
    diagnostics: Vec<Diagnostic>,
    views: Arc<ServiceViews>,
}

impl Snapshot {
    /// Reads the whole world. Objects were parsed when they were applied, so this only joins them.
    #[must_use]
    pub fn build(objects: &Objects) -> Self {
        Self::build_after(None, objects)
    }

    /// Reads the whole world as it is after another. What is equal in both is kept once, so that it is compared at no
    /// cost; the result is what [`Snapshot::build`] makes.
    #[must_use]
    pub fn build_after(earlier: Option<&Self>, objects: &Objects) -> Self {
        let mut diagnostics: Vec<Diagnostic> = objects.diagnostics().collect();
        let peer_authentications = PeerAuthentications::build(objects);
        let registry = Registry::build(
            Inputs::of(objects, &peer_authentications),
            earlier.map(|earlier| &earlier.registry),
        );
        let virtual_services = VirtualServices::build(objects, &mut diagnostics);
        let mut destination_rules = DestinationRules::build(objects, &mut diagnostics);
        if let Some(earlier) = earlier {
            destination_rules.reuse(&earlier.destination_rules);
        }
        sidecar::check(objects, &mut diagnostics);
        registry::check(objects, &mut diagnostics);
        peer_authentication::check(objects, &mut diagnostics);
        tls_conflicts::check(
            &registry,
            &destination_rules,
            &peer_authentications,
            &mut diagnostics,
        );
        credential_references::check(objects, &mut diagnostics);
        references::check(
            &registry,
            &virtual_services,
            &destination_rules,
            objects,
            &mut diagnostics,
        );
        diagnostics.sort();
        diagnostics.dedup();
        diagnostics.truncate(MAX_DIAGNOSTICS);
        // They are made of nothing else: peers, settings and MeshConfig are among what a registry is made of.
        let same = earlier.filter(|earlier| {
            Arc::ptr_eq(&earlier.registry, &registry) && earlier.destination_rules == destination_rules
        });
        let views = same.map_or_else(
            || {
                let namespaces = registry.namespaces().cloned();
                Arc::new(ServiceViews::new(
                    namespaces,
                    earlier.map(|earlier| &*earlier.views),
                ))
            },
            |earlier| Arc::clone(&earlier.views),
        );
        Self {
            views,
            objects: objects.clone(),
            registry,
            virtual_services,
            destination_rules,
            peer_authentications,
            diagnostics,
        }
    }

    /// What is wrong with the world, whoever looks at it: objects that do not parse, references to nothing.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// MeshConfig.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.objects.mesh
    }

    /// What the whole world shares.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.objects.settings
    }

    /// All services and endpoints, for debug pages.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn destination_rules(&self) -> &DestinationRules {
        &self.destination_rules
    }

    /// All VirtualServices, resolved, for debug pages.
    #[must_use]
    pub fn virtual_services(&self) -> &VirtualServices {
        &self.virtual_services
    }

    /// What the Secret or ConfigMap of this name holds for proxies.
    #[must_use]
    pub fn credential(&self, holder: Holder, namespace: &str, name: &str) -> Option<&Credential> {
        let key = (namespace.to_owned(), name.to_owned());
        self.objects.credentials(holder).get(&key)
    }

    /// Whether a gateway of the namespace `borrower` may have the Secret of another namespace that this SDS resource
    /// names: a Gateway beside it refers to it, and the namespace of the Secret grants it.
    #[must_use]
    pub fn lends_credential(&self, borrower: &str, resource: &str) -> bool {
        CredentialName::parse(resource).is_some_and(|name| {
            grants::grants(&self.objects, borrower, &name)
                && grants::refers(&self.objects, borrower, resource)
        })
    }

    /// Why the Secret or ConfigMap of this name was refused as a credential, if it was.
    #[must_use]
    pub fn refused_credential(
        &self,
        holder: Holder,
        namespace: &str,
        name: &str,
    ) -> Option<&CredentialError> {
        let key = (namespace.to_owned(), name.to_owned());
        self.objects.credentials(holder).refused().get(&key)
    }

    /// What this proxy sees.
    #[must_use]
    pub fn proxy_view(&self, proxy: &Proxy) -> ProxyView {
        let mut diagnostics = Vec::new();
        let profile = &proxy.profile;
        let gateway = profile.kind == ProxyKind::Gateway;
        let scope = match profile.kind {
            ProxyKind::Sidecar => sidecar::scope(&self.objects, profile),
            ProxyKind::Gateway => SidecarScope::default(),
        };
        let inbound = inbound::ports(&self.registry, &self.destination_rules, proxy);
        let gateways = match profile.kind {
            ProxyKind::Gateway => gateways::merge(&self.objects, proxy, &inbound, &mut diagnostics),
            ProxyKind::Sidecar => Vec::new(),
        };
        let routing = self.routing(profile, &scope, &gateways);
        let (services, place_matters) = self.service_views(proxy, &scope, &routing);
        let locality = if place_matters {
            proxy.locality.clone()
        } else {
            Default::default()
        };
        ProxyView {
            profile: Shared::new(profile.clone()),
            mesh: self.objects.mesh.clone(),
            identity: self.objects.settings.identity && profile.identity,
            peers: if gateway {
                PeerPolicy::default()
            } else {
                self.peer_authentications
                    .of_workload(&profile.namespace, &profile.labels)
            },
            outbound: scope
                .outbound
                .unwrap_or_else(|| self.objects.mesh.outbound_mode()),
            services,
            routing,
            inbound: if gateway { Vec::new() } else { inbound },
            gateways,
            locality,
            diagnostics,
        }
    }

    /// What the ClusterLoadAssignment of an outbound EDS cluster is made of, seen from one proxy.
    ///
    /// A name that is no such cluster, or one of a service that is not there, has no endpoints.
    #[must_use]
    pub fn endpoint_view(&self, proxy: &Proxy, cluster: &str) -> EndpointView {
        let empty = || EndpointView {
            cluster: cluster.into(),
            endpoints: Vec::new(),
            spread: Default::default(),
            mutual_tls: true,
        };
        let Some((port, subset, hostname)) = parse_cluster_name(cluster) else {
            return empty();
        };
        let Some(service) = self.find_service(&proxy.profile, hostname) else {
            return empty();
        };
        let rule = self
            .destination_rules
            .lookup(&proxy.profile.namespace, &proxy.profile.labels, service);
        let labels: Option<Labels> = if subset.is_empty() {
            Some(Labels::new())
        } else {
            let subsets = rule.iter().flat_map(|r| &r.config.spec.subsets);
            subsets
                .filter(|s| s.name == subset)
                .map(|s| s.labels.clone())
                .next()
        };
        // A subset that no rule declares selects everything, as istiod answers: the client still holds a cluster that
        // is being withdrawn, and must not lose its endpoints before the cluster.
        let labels = labels.unwrap_or_default();
        let all = self.registry.endpoints_of(service);
        let endpoints = all
            .and_then(|e| e.ports.get(&port))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let selected = endpoints
            .iter()
            .filter(|e| crate::kubernetes::selects(&labels, &e.workload.labels));
        // A policy that says how to do TLS leaves nothing to be found out per endpoint.
        let policy = spread::effective_policy(rule.as_deref(), subset, port);
        let mutual_tls = policy
            .tls
            .is_none_or(|tls| tls.mode == ClientTlsMode::IstioMutual);
        EndpointView {
            cluster: cluster.into(),
            endpoints: selected.cloned().collect(),
            mutual_tls,
            spread: spread::of(proxy, service, rule.as_deref(), subset, port, &self.objects.mesh),
        }
    }

    /// Whether the endpoints of a cluster are, for a proxy, what they were in an earlier snapshot: everything that
    /// [`Snapshot::endpoint_view`] looks at is equal.
    #[must_use]
    pub fn same_endpoints(&self, earlier: &Self, proxy: &Proxy, cluster: &str) -> bool {
        let Some((.., hostname)) = parse_cluster_name(cluster) else {
            return true;
        };
        let Profile {
            namespace, labels, ..
        } = &proxy.profile;
        let inputs = |snapshot: &Self| {
            let service = snapshot.find_service(&proxy.profile, hostname).cloned()?;
            let rule = snapshot.destination_rules.lookup(namespace, labels, &service);
            let endpoints = snapshot.registry.endpoints_of(&service).cloned();
            Some((service, rule, endpoints))
        };
        self.objects.mesh == earlier.objects.mesh && inputs(self) == inputs(earlier)
    }

    /// The service that a proxy means by a host.
    fn find_service(&self, profile: &Profile, hostname: &str) -> Option<&Shared<Service>> {
        let named = self.registry.of_host(hostname);
        named
            .filter(|s| s.visibility.includes(&profile.namespace))
            .min_by_key(|s| rank(s, &profile.namespace))
    }

    /// The services a proxy imports, as it sees them, and whether its place changes any of their clusters.
    fn service_views(
        &self,
        proxy: &Proxy,
        scope: &SidecarScope,
        routing: &[Shared<Routing>],
    ) -> (Services, bool) {
        let profile = &proxy.profile;
        let seen = || -> Vec<Seen> {
            let visible = self.visible_services(profile, scope, routing);
            visible
                .into_iter()
                .map(|service| self.seen(profile, service))
                .collect()
        };
        let owns = |address: &str| proxy.has_address(address);
        let own = || {
            let seen = seen();
            let views = seen.iter().map(|seen| Shared::new(seen.view(&owns)));
            let views = NamespaceViews::new(views.collect());
            (views.services, views.place_matters)
        };
        // Clients of a namespace differ by their Sidecar, by rules for some of them, and by what they are themselves.
        if !scope.is_default() || self.destination_rules.select_workloads() {
            return own();
        }
        let Some(shared) = self.views.of_namespace(&profile.namespace, seen) else {
            return own();
        };
        let is_own = |position: &&usize| {
            let mut addresses = shared.services[**position].workload_addresses.iter();
            addresses.any(|address| owns(address))
        };
        let own: Vec<usize> = shared.headless.iter().filter(is_own).copied().collect();
        if own.is_empty() {
            return (shared.services.clone(), shared.place_matters);
        }
        let mut views = shared.services.to_vec();
        for position in own {
            let service = views[position].service.clone();
            views[position] = Shared::new(self.seen(profile, service).view(&owns));
        }
        (views.into(), shared.place_matters)
    }

    /// The services a proxy imports, each host once, oldest first.
    fn visible_services(
        &self,
        profile: &Profile,
        scope: &SidecarScope,
        routing: &[Shared<Routing>],
    ) -> Vec<Shared<Service>> {
        let namespace = &*profile.namespace;
        let referenced: BTreeSet<&str> = if scope.is_default() {
            BTreeSet::new()
        } else {
            routing.iter().flat_map(|r| destinations(r)).collect()
        };
        let mut chosen: BTreeMap<Arc<str>, (usize, u8)> = BTreeMap::new();
        for (index, service) in self.registry.services.iter().enumerate() {
            let imported = scope.imports(namespace, &service.namespace, &service.hostname)
                || referenced.contains(&*service.hostname);
            if !imported || !service.visibility.includes(namespace) {
                continue;
            }
            let rank = rank(service, namespace);
            let entry = chosen
                .entry(Arc::clone(&service.hostname))
                .or_insert((index, rank));
            if rank < entry.1 {
                *entry = (index, rank);
            }
        }
        let mut indexes: Vec<usize> = chosen.into_values().map(|(index, _)| index).collect();
        indexes.sort_unstable();
        indexes
            .into_iter()
            .map(|index| self.registry.services[index].clone())
            .collect()
    }

    fn routing(
        &self,
        profile: &Profile,
        scope: &SidecarScope,
        gateways: &[gateways::GatewayPort],
    ) -> Vec<Shared<Routing>> {
        let namespace = &*profile.namespace;
        if profile.kind == ProxyKind::Sidecar {
            let mut visible = self.virtual_services.visible(MESH_GATEWAY, namespace);
            visible.retain(|vs| {
                let own = &vs.config.meta.namespace;
                vs.config
                    .spec
                    .hosts
                    .iter()
                    .any(|host| scope.imports(namespace, own, host))
            });
            return visible;
        }
        let names: BTreeSet<&str> = gateways
            .iter()
            .flat_map(|p| &p.servers)
            .map(|s| &*s.gateway)
            .collect();
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for name in names {
            for vs in self.virtual_services.visible(name, namespace) {
                if seen.insert((vs.config.meta.namespace.clone(), vs.config.meta.name.clone())) {
                    all.push(vs);
                }
            }
        }
        all
    }

    /// What a service is made of as clients of this profile see it.
    fn seen(&self, profile: &Profile, service: Shared<Service>) -> Seen {
        let rule = self
            .destination_rules
            .lookup(&profile.namespace, &profile.labels, &service);
        let peers = self.peer_authentications.of_namespace(&service.namespace);
        Seen {
            endpoints: self.registry.endpoints_of(&service).cloned(),
            rule,
            refuses_mutual_tls: peers == PeerMode::Disable,
            identity: self.objects.settings.identity,
            mesh: self.objects.mesh.clone(),
            service,
        }
    }
}

/// Of services with one host, the proxy's own namespace comes first, then Kubernetes', then age.
fn rank(service: &Service, namespace: &str) -> u8 {
    match (*service.namespace == *namespace, service.is_kubernetes()) {
        (true, true) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (false, false) => 3,
    }
}

/// Every host a VirtualService sends traffic to.
fn destinations(routing: &Routing) -> impl Iterator<Item = &str> {
    let spec = &routing.config.spec;
    let http = spec.http.iter().flat_map(|r| {
        let mirrors = r.mirror.iter().chain(r.mirrors.iter().map(|m| &m.destination));
        r.route.iter().map(|d| &d.destination).chain(mirrors)
    });
    let tcp = spec.tcp.iter().flat_map(|r| &r.route).map(|d| &d.destination);
    let tls = spec.tls.iter().flat_map(|r| &r.route).map(|d| &d.destination);
    http.chain(tcp).chain(tls).map(|d| d.host.as_str())
}

/// `outbound|80|v1|host` and `outbound_.80_.v1_.host` as port, subset and host.
pub(crate) fn parse_cluster_name(name: &str) -> Option<(u32, &str, &str)> {
    let (direction, separator) = match name.strip_prefix("outbound_.") {
        Some(_) => ("outbound_.", "_."),
        None => ("outbound|", "|"),
    };
    let mut parts = name.strip_prefix(direction)?.splitn(3, separator);
    let port = parts.next()?.parse().ok()?;
    Some((port, parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_names_hold_port_subset_and_host() {
        assert_eq!(parse_cluster_name("outbound|80|v1|a.b"), Some((80, "v1", "a.b")));
        assert_eq!(
            parse_cluster_name("outbound_.80_.v1_.a.b"),
            Some((80, "v1", "a.b"))
        );
        assert_eq!(parse_cluster_name("inbound|80||"), None);
        assert_eq!(parse_cluster_name("PassthroughCluster"), None);
    }
}
