//! Services as clients see them, made once for all clients that see the same.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::destination_rules::Rule;
use crate::mesh::Mesh;
use crate::service::{Resolution, Service, ServiceEndpoints};
use crate::shared::Shared;
use crate::spread;
use crate::view::{ServiceView, Services};

/// All that a service as a client sees it is made of, beside the addresses that are the client's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// The service.
    pub(crate) service: Shared<Service>,
    /// Its endpoints.
    pub(crate) endpoints: Option<Shared<ServiceEndpoints>>,
    /// The rule that applies to the client.
    pub(crate) rule: Option<Shared<Rule>>,
    /// Whether the PeerAuthentication of its namespace, or of the mesh, disables mutual TLS.
    pub(crate) refuses_mutual_tls: bool,
    /// Whether workloads have identities.
    pub(crate) identity: bool,
    /// MeshConfig.
    pub(crate) mesh: Shared<Mesh>,
}

impl Seen {
    /// For a client that has those of the addresses which `owns` says.
    pub(crate) fn view(&self, owns: &dyn Fn(&str) -> bool) -> ServiceView {
        let service = &self.service;
        let endpoints = self.endpoints.as_deref();
        let workload_addresses: Vec<Arc<str>> = match (service.headless, endpoints) {
            (true, Some(endpoints)) => endpoints.addresses(),
            _ => Vec::new(),
        };
        let own_addresses = workload_addresses.iter().filter(|a| owns(a)).cloned().collect();
        let passed_on = self
            .rule
            .as_deref()
            .is_some_and(spread::dials_original_destination);
        let dialled = service.headless || passed_on;
        let dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        let dns_endpoints = match endpoints {
            Some(endpoints) if dns => endpoints
                .ports
                .iter()
                .map(|(p, list)| (*p, list.clone()))
                .collect(),
            _ => Vec::new(),
        };
        ServiceView {
            rule: self.rule.clone(),
            identities: self.identities(),
            all_mutual_tls: dialled && endpoints.is_some_and(ServiceEndpoints::all_mutual_tls),
            refuses_mutual_tls: self.refuses_mutual_tls,
            workload_addresses,
            own_addresses,
            dns_endpoints,
            service: service.clone(),
        }
    }

    /// The identities its servers may have, in the trust domain and in its aliases.
    fn identities(&self) -> Vec<Arc<str>> {
        if !self.identity {
            return Vec::new();
        }
        let endpoints = self.endpoints.as_deref();
        let mut identities = endpoints.map(ServiceEndpoints::identities).unwrap_or_default();
        identities.extend(self.service.subject_alt_names.iter().cloned());
        let prefix = format!("spiffe://{}/", self.mesh.trust_domain);
        let local: Vec<String> = identities
            .iter()
            .filter_map(|i| i.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect();
        for alias in &self.mesh.trust_domain_aliases {
            identities.extend(
                local
                    .iter()
                    .map(|rest| Arc::from(format!("spiffe://{alias}/{rest}"))),
            );
        }
        identities.sort();
        identities.dedup();
        identities
    }
}

type Made = HashMap<Seen, Shared<ServiceView>>;

/// What every client of a namespace sees that has no `Sidecar` of its own. Made of the world alone, so it lives and dies
/// with a snapshot of it.
#[derive(Debug, Default)]
pub(crate) struct ServiceViews {
    /// By the clients' namespace, of all namespaces that have any.
    namespaces: HashMap<Arc<str>, OnceLock<NamespaceViews>>,
    /// Those made so far, for whichever namespace.
    made: Mutex<Made>,
    /// Those of the world before.
    earlier: Made,
}

/// The services of one namespace's clients, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceViews {
    pub(crate) services: Services,
    /// Positions of headless services: a client that is a workload of one sees that.
    pub(crate) headless: Vec<usize>,
    /// Whether the client's place changes any of its clusters, and not only their endpoints.
    pub(crate) place_matters: bool,
}

impl NamespaceViews {
    pub(crate) fn new(services: Vec<Shared<ServiceView>>) -> Self {
        let headless = services
            .iter()
            .enumerate()
            .filter(|(_, view)| view.service.headless);
        Self {
            headless: headless.map(|(position, _)| position).collect(),
            place_matters: services.iter().any(|view| spread::matters_to_cluster(view)),
            services: services.into(),
        }
    }
}

impl ServiceViews {
    /// For clients of these namespaces, in a world that comes after another.
    pub(crate) fn new(namespaces: impl Iterator<Item = Arc<str>>, earlier: Option<&Self>) -> Self {
        Self {
            namespaces: namespaces.map(|namespace| (namespace, OnceLock::new())).collect(),
            made: Mutex::default(),
            earlier: earlier
                .map(|earlier| earlier.made.lock().clone())
                .unwrap_or_default(),
        }
    }

    /// Those of a namespace, of which `seen` says what they are made of where nobody has asked before; nothing for one
    /// that is not known.
    pub(crate) fn of_namespace(
        &self,
        namespace: &str,
        seen: impl FnOnce() -> Vec<Seen>,
    ) -> Option<&NamespaceViews> {
        let views = self.namespaces.get(namespace)?;
        Some(views.get_or_init(|| {
            let services = seen().into_iter().map(|seen| self.view(seen));
            NamespaceViews::new(services.collect())
        }))
    }

    fn view(&self, seen: Seen) -> Shared<ServiceView> {
        if let Some(made) = self.made.lock().get(&seen) {
            return made.clone();
        }
        let before = self.earlier.get(&seen).cloned();
        let view = before.unwrap_or_else(|| Shared::new(seen.view(&|_| false)));
        self.made.lock().entry(seen).or_insert(view).clone()
    }
}
