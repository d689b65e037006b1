//! Services and endpoints out of Kubernetes Services, EndpointSlices, Pods, ServiceEntries and WorkloadEntries.
//!
//! Selection crosses the kinds: a Service selects WorkloadEntries as well as Pods, and so does a ServiceEntry.

mod inputs;
mod kubernetes;
mod service_entry;
mod workloads;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub(crate) use inputs::Inputs;
pub(crate) use service_entry::check;
pub use workloads::{Instance, PortNames, Workloads};

use crate::peer_authentication::{PeerAuthentications, PeerMode};
use crate::service::{Address, Endpoint, Service, ServiceEndpoints, ServicePort, Workload};
use crate::shared::Shared;

/// Host and namespace: what tells two services apart.
pub type ServiceKey = (Arc<str>, Arc<str>);

/// Every service of the world, and who answers for it.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// All services, oldest first, then by host and namespace.
    pub services: Vec<Shared<Service>>,
    /// Their endpoints.
    pub endpoints: BTreeMap<ServiceKey, Shared<ServiceEndpoints>>,
    /// All workloads.
    pub workloads: Arc<Workloads>,
    /// Which workloads each service selects, in the order of the services.
    selectors: Vec<Option<Selector>>,
    /// Positions in `services` by host.
    by_host: HashMap<Arc<str>, Vec<usize>>,
    /// The same by namespace.
    by_namespace: HashMap<Arc<str>, Vec<usize>>,
    inputs: Inputs,
}

/// What a service selects and how its ports map to those of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The labels a workload must have.
    pub labels: crate::kubernetes::Labels,
    /// Per service port: how to find the workload's port.
    pub targets: Vec<Target>,
}

/// The port of a workload that stands behind a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service port's number.
    pub port: u32,
    /// The service port's name.
    pub name: Arc<str>,
    /// The transport, `TCP` or `UDP`.
    pub transport: Arc<str>,
    /// By number or name; `None` is the same number as the service port.
    pub target: Option<crate::kubernetes::IntOrString>,
}

impl Registry {
    /// Reads every service and endpoint. What is equal in an earlier world is taken over from there.
    pub(crate) fn build(inputs: Inputs, earlier: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(earlier) = earlier.filter(|earlier| earlier.inputs == inputs) {
            return Arc::clone(earlier);
        }
        let same = earlier.filter(|earlier| earlier.inputs.workloads == inputs.workloads);
        let workloads = same.map_or_else(
            || {
                let earlier = earlier.map(|earlier| (&earlier.inputs.workloads, &*earlier.workloads));
                Arc::new(Workloads::build(&inputs.workloads, earlier))
            },
            |earlier| Arc::clone(&earlier.workloads),
        );
        let mut draft = Draft {
            workloads,
            ..Draft::default()
        };
        kubernetes::add(&inputs, &mut draft);
        service_entry::add(&inputs, &mut draft);
        let mut registry = draft.finish(inputs);
        if let Some(earlier) = earlier {
            registry.reuse(earlier);
        }
        Arc::new(registry)
    }

    fn reuse(&mut self, earlier: &Self) {
        for service in &mut self.services {
            let equal = earlier
                .of_host(&service.hostname)
                .find(|before| *before == service);
            let equal = equal.cloned();
            if let Some(before) = equal {
                *service = before;
            }
        }
        for (key, endpoints) in &mut self.endpoints {
            if let Some(before) = earlier.endpoints.get(key) {
                endpoints.reuse(before);
            }
        }
    }

    /// The hosts of services whose endpoints are not what they were.
    pub(crate) fn hosts_with_other_endpoints(&self, earlier: &Self) -> HashSet<Arc<str>> {
        let differs = |of: &Self, (host, endpoints): (&ServiceKey, &Shared<ServiceEndpoints>)| {
            (of.endpoints.get(host) != Some(endpoints)).then(|| Arc::clone(&host.0))
        };
        let now = self.endpoints.iter().filter_map(|entry| differs(earlier, entry));
        let before = earlier.endpoints.iter().filter_map(|entry| differs(self, entry));
        now.chain(before).collect()
    }

    /// The namespaces that have services.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_namespace.keys()
    }

    /// The services of a host, oldest first; several namespaces may declare one.
    pub fn of_host(&self, hostname: &str) -> impl Iterator<Item = &Shared<Service>> {
        let positions = self.by_host.get(hostname).into_iter().flatten();
        positions.map(|position| &self.services[*position])
    }

    /// The endpoints of a service; none is the same as an empty list.
    #[must_use]
    pub fn endpoints_of(&self, service: &Service) -> Option<&Shared<ServiceEndpoints>> {
        self.endpoints
            .get(&(Arc::clone(&service.hostname), Arc::clone(&service.namespace)))
    }

    /// The services that select a workload, oldest first, with their ports and the workload's behind each.
    pub(crate) fn services_of<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> impl Iterator<Item = (&'a Shared<Service>, ServicePort, u32)> {
        let Workload {
            namespace, labels, ..
        } = &*instance.workload;
        let positions = self.by_namespace.get(namespace).into_iter().flatten();
        let selecting = positions.filter_map(|position| {
            let selector = self.selectors[*position].as_ref()?;
            let selects = !selector.labels.is_empty() && crate::kubernetes::selects(&selector.labels, labels);
            selects.then_some((&self.services[*position], selector))
        });
        selecting.flat_map(move |(service, selector)| {
            selector.targets.iter().filter_map(move |target| {
                let port = service.port(target.port)?.clone();
                Some((service, port, instance.ports.resolve(target)?))
            })
        })
    }
}

/// A registry under construction.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    services: Vec<Service>,
    endpoints: BTreeMap<ServiceKey, ServiceEndpoints>,
    selectors: BTreeMap<ServiceKey, Selector>,
    workloads: Arc<Workloads>,
}

impl Draft {
    fn key(service: &Service) -> ServiceKey {
        (Arc::clone(&service.hostname), Arc::clone(&service.namespace))
    }

    /// Adds a service with the selector it has, if any.
    fn service(&mut self, service: Service, selector: Option<Selector>) -> ServiceKey {
        let key = Self::key(&service);
        if let Some(selector) = selector {
            self.selectors.insert(key.clone(), selector);
        }
        self.endpoints.entry(key.clone()).or_default();
        self.services.push(service);
        key
    }

    /// Adds an endpoint of a service port; of several with one address the first stays.
    fn endpoint(&mut self, key: &ServiceKey, port: u32, endpoint: Endpoint) {
        let ports = &mut self.endpoints.entry(key.clone()).or_default().ports;
        ports.entry(port).or_default().push(endpoint);
    }

    /// Remembers the identity of a workload that takes no new traffic.
    fn departing(&mut self, key: &ServiceKey, identity: &Arc<str>) {
        if !identity.is_empty() {
            self.endpoints
                .entry(key.clone())
                .or_default()
                .departing
                .insert(Arc::clone(identity));
        }
    }

    fn finish(mut self, inputs: Inputs) -> Registry {
        self.services.sort_by(|a, b| {
            (&a.created, &a.hostname, &a.namespace).cmp(&(&b.created, &b.hostname, &b.namespace))
        });
        for list in self.endpoints.values_mut().flat_map(|e| e.ports.values_mut()) {
            // The sort is stable, so that the first of an address comes first.
            list.sort_by(|a, b| a.address.cmp(&b.address));
            list.dedup_by(|later, first| later.address == first.address);
            for endpoint in list {
                endpoint.mutual_tls = takes_mutual_tls(endpoint, &inputs.peers);
            }
        }
        let positions = |name: fn(&Service) -> &Arc<str>| {
            let mut positions: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
            for (position, service) in self.services.iter().enumerate() {
                positions
                    .entry(Arc::clone(name(service)))
                    .or_default()
                    .push(position);
            }
            positions
        };
        let by_host = positions(|service| &service.hostname);
        let by_namespace = positions(|service| &service.namespace);
        let selectors = self.services.iter();
        let selectors = selectors
            .map(|service| self.selectors.get(&Self::key(service)).cloned())
            .collect();
        Registry {
            services: self.services.into_iter().map(Shared::new).collect(),
            endpoints: self
                .endpoints
                .into_iter()
                .map(|(k, v)| (k, Shared::new(v)))
                .collect(),
            workloads: self.workloads,
            selectors,
            by_host,
            by_namespace,
            inputs,
        }
    }
}

/// Whether a workload can, and its PeerAuthentication lets it: one that does not want mutual TLS is not offered any.
fn takes_mutual_tls(endpoint: &Endpoint, peers: &PeerAuthentications) -> bool {
    let workload = &endpoint.workload;
    if !workload.mutual_tls {
        return false;
    }
    let policy = peers.of_workload(&workload.namespace, &workload.labels);
    let mode = match endpoint.address {
        Address::Socket(_, port) => policy.at(port),
        Address::Pipe(_) => policy.mode,
    };
    mode != PeerMode::Disable
}
