//! The ports on which a proxy's own workload is reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::destination_rules::{DestinationRules, Rule};
use crate::protocol::Protocol;
use crate::proxy::{Proxy, ProxyKind};
use crate::registry::{Instance, PortNames, Registry};
use crate::service::{Health, Service, ServicePort, Workload};
use crate::shared::Shared;

/// A port on which the proxy's own workload is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundPort {
    /// The service that leads there.
    pub service: Shared<Service>,
    /// The port of the service.
    pub port: ServicePort,
    /// The port of the workload.
    pub target_port: u32,
    /// The DestinationRule of the own service, for the parts that hold on the server's side.
    pub rule: Option<Shared<Rule>>,
}

/// The ports of a proxy's own workload that services lead to; for a sidecar each workload port once.
pub(crate) fn ports(registry: &Registry, rules: &DestinationRules, proxy: &Proxy) -> Vec<InboundPort> {
    let instance = own_instance(registry, proxy);
    let mut ports: Vec<InboundPort> = Vec::new();
    for (service, port, target_port) in registry.services_of(&instance) {
        let taken = ports.iter().any(|p| p.target_port == target_port);
        if port.protocol == Protocol::Udp || (taken && proxy.profile.kind == ProxyKind::Sidecar) {
            continue;
        }
        let rule = rules.lookup(&proxy.profile.namespace, &proxy.profile.labels, service);
        ports.push(InboundPort {
            service: service.clone(),
            port,
            target_port,
            rule,
        });
    }
    ports
}

/// The workload behind a proxy: by its address, else what the proxy says about itself.
fn own_instance(registry: &Registry, proxy: &Proxy) -> Arc<Instance> {
    let known = proxy
        .addresses
        .iter()
        .find_map(|a| registry.workloads.by_address(a));
    let same_namespace = |i: &&Arc<Instance>| *i.workload.namespace == *proxy.profile.namespace;
    known.filter(same_namespace).cloned().unwrap_or_else(|| {
        let workload = Workload {
            name: Arc::clone(&proxy.name),
            namespace: Arc::clone(&proxy.profile.namespace),
            labels: proxy.profile.labels.clone(),
            ..Workload::default()
        };
        Arc::new(Instance {
            addresses: proxy.addresses.clone(),
            workload: Arc::new(workload),
            weight: 1,
            health: Health::Unknown,
            ports: PortNames::Entry(BTreeMap::new()),
        })
    })
}
