//! Kubernetes Services and EndpointSlices.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::inputs::Inputs;
use super::{Draft, Instance, Selector, ServiceKey, Target};
use crate::kubernetes::{EndpointSlice, IntOrString, Service as KubeService, SliceEndpoint};
use crate::protocol::Protocol;
use crate::service::{
    Address, Endpoint, Health, Origin, Resolution, Service, ServicePort, TrafficDistribution, Visibility,
    Workload,
};

/// Names the service of an EndpointSlice.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// `exportTo` of a Kubernetes Service.
const EXPORT_TO_ANNOTATION: &str = "networking.istio.io/exportTo";
/// `trafficDistribution` for API servers that do not have the field.
const TRAFFIC_DISTRIBUTION_ANNOTATION: &str = "networking.istio.io/traffic-distribution";

/// Adds all Services with their endpoints.
pub(super) fn add(inputs: &Inputs, draft: &mut Draft) {
    let aliases = aliases(inputs);
    let slices = slices_by_service(inputs);
    for (key, service) in &inputs.services {
        if service.spec.kind == "ExternalName" {
            continue;
        }
        let host = hostname(inputs, &key.1, &key.0);
        let converted = convert(
            inputs,
            service,
            &host,
            aliases.get(&*host).cloned().unwrap_or_default(),
        );
        let selector = selector(service);
        let service_key = draft.service(converted, Some(selector.clone()));
        for slice in slices.get(key).into_iter().flatten() {
            add_slice(draft, &service_key, service, slice);
        }
        add_workload_entries(draft, &service_key, &selector);
    }
}

fn hostname(inputs: &Inputs, name: &str, namespace: &str) -> Arc<str> {
    format!("{name}.{namespace}.svc.{}", inputs.settings().domain).into()
}

/// ExternalName services by the host they stand for.
fn aliases(inputs: &Inputs) -> BTreeMap<String, Vec<Arc<str>>> {
    let mut aliases: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
    for ((namespace, name), service) in &inputs.services {
        if service.spec.kind == "ExternalName" {
            let target = service.spec.external_name.trim_end_matches('.').to_owned();
            aliases
                .entry(target)
                .or_default()
                .push(hostname(inputs, name, namespace));
        }
    }
    aliases
}

type Slices<'a> = BTreeMap<(String, String), Vec<&'a EndpointSlice>>;

fn slices_by_service(inputs: &Inputs) -> Slices<'_> {
    let mut by_service = Slices::new();
    for ((namespace, _), slice) in &inputs.endpoint_slices {
        if let Some(name) = slice.metadata.labels.get(SERVICE_NAME_LABEL) {
            by_service
                .entry((namespace.clone(), name.clone()))
                .or_default()
                .push(slice);
        }
    }
    by_service
}

fn convert(inputs: &Inputs, service: &KubeService, host: &Arc<str>, aliases: Vec<Arc<str>>) -> Service {
    let (meta, spec) = (&service.metadata, &service.spec);
    let headless = spec.cluster_ip == "None";
    let address = Some(spec.cluster_ip.as_str()).filter(|ip| !ip.is_empty() && !headless);
    let export_to: Vec<String> = meta
        .annotations
        .get(EXPORT_TO_ANNOTATION)
        .map(|list| {
            list.split(',')
                .map(|e| e.trim().to_owned())
                .filter(|e| !e.is_empty())
                .collect()
        })
        .unwrap_or_default();
    let port = |p: &crate::kubernetes::ServicePort| ServicePort {
        name: p.name.as_str().into(),
        port: p.port,
        protocol: Protocol::of_service_port(&p.protocol, p.port, &p.name, p.app_protocol.as_deref()),
        target_port: match p.target_port {
            Some(IntOrString::Int(number)) => Some(number),
            _ => None,
        },
    };
    Service {
        hostname: Arc::clone(host),
        name: meta.name.as_str().into(),
        namespace: meta.namespace.as_str().into(),
        origin: Origin::Kubernetes,
        created: meta.creation_timestamp.as_str().into(),
        labels: meta.labels.clone(),
        addresses: address.into_iter().map(Arc::from).collect(),
        ports: spec.ports.iter().map(port).collect(),
        resolution: if headless {
            Resolution::Passthrough
        } else {
            Resolution::Endpoints
        },
        external: false,
        visibility: Visibility::parse(
            &export_to,
            &meta.namespace,
            &inputs.mesh().default_service_export_to,
        ),
        headless,
        aliases,
        subject_alt_names: Vec::new(),
        traffic_distribution: distribution(service),
    }
}

fn distribution(service: &KubeService) -> TrafficDistribution {
    let annotation = service.metadata.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION);
    let wanted = annotation.unwrap_or(&service.spec.traffic_distribution);
    match wanted.as_str() {
        "PreferClose" => TrafficDistribution::PreferClose,
        "PreferSameZone" => TrafficDistribution::PreferSameZone,
        "PreferSameNode" => TrafficDistribution::PreferSameNode,
        _ => TrafficDistribution::Any,
    }
}

fn selector(service: &KubeService) -> Selector {
    let target = |p: &crate::kubernetes::ServicePort| Target {
        port: p.port,
        name: p.name.as_str().into(),
        transport: if p.protocol.is_empty() {
            "TCP".into()
        } else {
            p.protocol.as_str().into()
        },
        // Port 0 and an empty name are how clients write "not given".
        target: p.target_port.clone().filter(|t| {
            !matches!(t, IntOrString::Int(0)) && !matches!(t, IntOrString::String(s) if s.is_empty())
        }),
    };
    Selector {
        labels: service.spec.selector.clone(),
        targets: service.spec.ports.iter().map(target).collect(),
    }
}

fn add_slice(draft: &mut Draft, key: &ServiceKey, service: &KubeService, slice: &EndpointSlice) {
    if slice.address_type == "FQDN" {
        return;
    }
    for endpoint in &slice.endpoints {
        let Some(health) = health(service, endpoint) else {
            for address in &endpoint.addresses {
                if let Some(workload) = workload(draft, endpoint, address) {
                    draft.departing(key, &workload.identity);
                }
            }
            continue;
        };
        for address in &endpoint.addresses {
            let Some(workload) = workload(draft, endpoint, address) else {
                continue;
            };
            for slice_port in &slice.ports {
                let mut ports = service.spec.ports.iter();
                let Some(port) = ports.find(|p| p.name == slice_port.name) else {
                    continue;
                };
                let number = slice_port.port.unwrap_or(port.port);
                let address = Address::Socket(address.as_str().into(), number);
                let endpoint = Endpoint {
                    address,
                    weight: 1,
                    health,
                    workload: Arc::clone(&workload),
                    // Known once all rules are: see `Draft::finish`.
                    mutual_tls: false,
                };
                draft.endpoint(key, port.port, endpoint);
            }
        }
    }
}

/// Whether an endpoint takes traffic; `None` when it is on its way out and must not be listed.
fn health(service: &KubeService, endpoint: &SliceEndpoint) -> Option<Health> {
    let conditions = &endpoint.conditions;
    if conditions.is_ready() || service.spec.publish_not_ready_addresses {
        return Some(Health::Healthy);
    }
    (!conditions.is_terminating()).then_some(Health::Unhealthy)
}

/// What runs behind an address. An endpoint that names a pod waits for the pod; one that names none stays unknown.
fn workload(draft: &Draft, endpoint: &SliceEndpoint, address: &str) -> Option<Arc<Workload>> {
    let named = endpoint.target_ref.as_ref().filter(|t| t.kind == "Pod");
    let instance: Option<&Arc<Instance>> = match named {
        Some(pod) => Some(draft.workloads.pod(&pod.namespace, &pod.name)?),
        None => draft.workloads.by_address(address),
    };
    Some(instance.map_or_else(
        || {
            Arc::new(Workload {
                cluster: draft.workloads.cluster(),
                ..Workload::default()
            })
        },
        |instance| Arc::clone(&instance.workload),
    ))
}

/// A Service also selects WorkloadEntries of its namespace.
fn add_workload_entries(draft: &mut Draft, key: &ServiceKey, selector: &Selector) {
    let instances: Vec<_> = draft
        .workloads
        .entries_selected(&key.1, &selector.labels)
        .cloned()
        .collect();
    for instance in instances {
        super::service_entry::add_instance(draft, key, &selector.targets, &instance);
    }
}
