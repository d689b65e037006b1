//! Pods and WorkloadEntries as workloads with addresses.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api_istio::networking::WorkloadEntry;

use super::Target;
use super::inputs::{Common, WorkloadInputs};
use crate::config::Config;
use crate::kubernetes::{IntOrString, Labels, Node, ObjectMeta, Pod};
use crate::proxy::TLS_MODE_LABEL;
use crate::service::{Health, Locality, Workload};

/// Overrides the locality of a pod's node.
const LOCALITY_LABEL: &str = "istio-locality";

/// A workload with its address.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its addresses, for a pod; one address or DNS name for a WorkloadEntry.
    pub addresses: Vec<Arc<str>>,
    /// What it is.
    pub workload: Arc<Workload>,
    /// Its share of the traffic, at least 1.
    pub weight: u32,
    /// Whether it takes traffic.
    pub health: Health,
    /// Its ports by name.
    pub ports: PortNames,
}

/// How the ports of a workload are named.
#[derive(Clone, Debug)]
pub enum PortNames {
    /// Container ports; `targetPort` may name them.
    Pod(Arc<Pod>),
    /// A WorkloadEntry's `ports`, by the service port's name.
    Entry(BTreeMap<String, u32>),
}

impl PortNames {
    /// Whether they are the ports of exactly this object, which says everything about its workload.
    fn are_of(&self, pod: &Arc<Pod>) -> bool {
        matches!(self, Self::Pod(own) if Arc::ptr_eq(own, pod))
    }

    fn are_on_host_network(&self) -> bool {
        matches!(self, Self::Pod(pod) if pod.spec.host_network)
    }

    /// The port behind a service port; `None` when its name is unknown here.
    #[must_use]
    pub fn resolve(&self, target: &Target) -> Option<u32> {
        match self {
            Self::Pod(pod) => match &target.target {
                None => Some(target.port),
                Some(IntOrString::Int(number)) => Some(*number),
                Some(IntOrString::String(name)) => pod.named_port(name, &target.transport),
            },
            Self::Entry(ports) => {
                let own = ports.get(&*target.name).copied();
                own.or_else(|| match &target.target {
                    None => Some(target.port),
                    Some(IntOrString::Int(number)) => Some(*number),
                    Some(IntOrString::String(name)) => ports.get(name).copied().or(Some(target.port)),
                })
            }
        }
    }
}

/// All workloads of the world.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    cluster: Arc<str>,
    pods: BTreeMap<(String, String), Arc<Instance>>,
    entries: BTreeMap<(String, String), Arc<Instance>>,
    by_address: HashMap<Arc<str>, Arc<Instance>>,
}

impl Workloads {
    /// With what `earlier` has of the same pods, where that was made of nothing else that differs.
    pub(super) fn build(inputs: &WorkloadInputs, earlier: Option<(&WorkloadInputs, &Self)>) -> Self {
        let common = &inputs.common;
        let mut all = Self {
            cluster: Arc::clone(&common.settings.cluster),
            ..Self::default()
        };
        let earlier = earlier.filter(|(before, _)| before.common == *common);
        let mut earlier = earlier
            .into_iter()
            .flat_map(|(_, workloads)| &workloads.pods)
            .peekable();
        let live = inputs.pods.iter().filter(|(_, pod)| pod.is_live());
        let pods = live.map(|(key, pod)| {
            while earlier.next_if(|(before, _)| *before < key).is_some() {}
            let same = earlier.next_if(|(before, instance)| *before == key && instance.ports.are_of(pod));
            let made = || Arc::new(pod_instance(common, pod));
            (
                key.clone(),
                same.map_or_else(made, |(_, instance)| Arc::clone(instance)),
            )
        });
        all.pods = pods.collect();
        let pods: Vec<_> = all.pods.values().cloned().collect();
        // Pods of the host network share the node's address, which therefore names none of them.
        for pod in pods.iter().filter(|pod| !pod.ports.are_on_host_network()) {
            all.index(pod);
        }
        for (key, entry) in &inputs.entries {
            let mut instance = entry_instance(common, entry);
            if inputs.unhealthy_entries.contains(key) {
                instance.health = Health::Unhealthy;
            }
            let instance = Arc::new(instance);
            all.entries.insert(key.clone(), Arc::clone(&instance));
            all.index(&instance);
        }
        all
    }

    fn index(&mut self, instance: &Arc<Instance>) {
        for address in &instance.addresses {
            self.by_address
                .entry(Arc::clone(address))
                .or_insert_with(|| Arc::clone(instance));
        }
    }

    /// The Kubernetes cluster all of them belong to.
    pub(crate) fn cluster(&self) -> Arc<str> {
        Arc::clone(&self.cluster)
    }

    /// The pod of this namespace and name.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Instance>> {
        self.pods.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The workload that owns an address.
    #[must_use]
    pub fn by_address(&self, address: &str) -> Option<&Arc<Instance>> {
        self.by_address.get(address)
    }

    /// The pods of a namespace that have all labels of a selector.
    pub fn pods_selected(&self, namespace: &str, selector: &Labels) -> impl Iterator<Item = &Arc<Instance>> {
        selected(&self.pods, namespace, selector)
    }

    /// The WorkloadEntries of a namespace that have all labels of a selector.
    pub fn entries_selected(
        &self,
        namespace: &str,
        selector: &Labels,
    ) -> impl Iterator<Item = &Arc<Instance>> {
        selected(&self.entries, namespace, selector)
    }
}

/// The instances of a namespace that an (always non-empty) selector matches.
fn selected<'a>(
    all: &'a BTreeMap<(String, String), Arc<Instance>>,
    namespace: &str,
    selector: &Labels,
) -> impl Iterator<Item = &'a Arc<Instance>> {
    all.range((namespace.to_owned(), String::new())..)
        .take_while(move |((ns, _), _)| ns == namespace)
        .map(|(_, instance)| instance)
        .filter(move |instance| {
            !selector.is_empty() && crate::kubernetes::selects(selector, &instance.workload.labels)
        })
}

fn pod_instance(common: &Common, pod: &Arc<Pod>) -> Instance {
    let meta = &pod.metadata;
    let node = common.nodes.get(&(String::new(), pod.spec.node_name.clone()));
    let labels = &meta.labels;
    let workload = Workload {
        name: controller_name(meta).into(),
        namespace: meta.namespace.as_str().into(),
        labels: labels.clone(),
        locality: labels
            .get(LOCALITY_LABEL)
            .map(|text| Locality::parse(&text.replace('.', "/")))
            .or_else(|| node.map(|node| node_locality(node)))
            .unwrap_or_default(),
        node: pod.spec.node_name.as_str().into(),
        identity: identity(common, &meta.namespace, &pod.spec.service_account_name),
        mutual_tls: common.settings.identity
            && labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == "istio"),
        network: labels
            .get("topology.istio.io/network")
            .map(String::as_str)
            .unwrap_or_default()
            .into(),
        cluster: Arc::clone(&common.settings.cluster),
    };
    Instance {
        addresses: pod.addresses().map(Arc::from).collect(),
        workload: Arc::new(workload),
        weight: 1,
        health: if pod.is_ready() {
            Health::Healthy
        } else {
            Health::Unhealthy
        },
        ports: PortNames::Pod(Arc::clone(pod)),
    }
}

fn entry_instance(common: &Common, entry: &Config<WorkloadEntry>) -> Instance {
    instance_of(
        common,
        &entry.spec,
        &entry.meta.name,
        &entry.meta.namespace,
        &entry.meta.labels,
    )
}

/// A WorkloadEntry, be it an object or an inline endpoint of a ServiceEntry, as a workload.
pub(super) fn instance_of(
    common: &Common,
    entry: &WorkloadEntry,
    name: &str,
    namespace: &str,
    extra_labels: &Labels,
) -> Instance {
    let mut labels = entry.labels.clone();
    labels.extend(extra_labels.iter().map(|(k, v)| (k.clone(), v.clone())));
    // Without the label, an entry that has a service account is taken to have a sidecar.
    let offers_tls = labels
        .get(TLS_MODE_LABEL)
        .map_or(!entry.service_account.is_empty(), |mode| mode == "istio");
    let workload = Workload {
        name: name.into(),
        namespace: namespace.into(),
        locality: Locality::parse(&entry.locality),
        node: Arc::default(),
        identity: identity(common, namespace, &entry.service_account),
        mutual_tls: common.settings.identity && offers_tls,
        network: entry.network.as_str().into(),
        cluster: Arc::clone(&common.settings.cluster),
        labels,
    };
    Instance {
        addresses: vec![entry.address.as_str().into()],
        workload: Arc::new(workload),
        weight: entry.weight.max(1),
        health: Health::Unknown,
        ports: PortNames::Entry(entry.ports.clone()),
    }
}

/// The SPIFFE id of a service account; empty without one.
fn identity(common: &Common, namespace: &str, service_account: &str) -> Arc<str> {
    if service_account.is_empty() {
        return Arc::default();
    }
    format!(
        "spiffe://{}/ns/{namespace}/sa/{service_account}",
        common.mesh.trust_domain
    )
    .into()
}

/// Where a node stands, from its labels.
fn node_locality(node: &Node) -> Locality {
    let labels = &node.metadata.labels;
    let first = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| labels.get(*key))
            .map(String::as_str)
            .unwrap_or_default()
            .into()
    };
    Locality {
        region: first(&[
            "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/region",
        ]),
        zone: first(&[
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/zone",
        ]),
        sub_zone: first(&["topology.istio.io/subzone"]),
    }
}

/// The workload a pod belongs to: the Deployment behind its ReplicaSet, its other controller, or itself.
fn controller_name(meta: &ObjectMeta) -> &str {
    let Some(owner) = meta.owner_references.iter().find(|o| o.controller) else {
        return &meta.name;
    };
    let hash = meta
        .labels
        .get("pod-template-hash")
        .filter(|_| owner.kind == "ReplicaSet");
    hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        .unwrap_or(&owner.name)
}
