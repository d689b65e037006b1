//! ServiceEntries: hosts outside Kubernetes, or hosts made of Pods and WorkloadEntries.

use std::sync::Arc;

use api_istio::networking::{Location, Resolution as Declared, ServiceEntry};
use diagnostics::{Code, Diagnostic};

use super::inputs::Inputs;
use super::workloads::instance_of;
use super::{Draft, Instance, Selector, Target};
use crate::config::Config;
use crate::kubernetes::{IntOrString, Labels};
use crate::objects::Objects;
use crate::protocol::Protocol;
use crate::service::{
    Address, Endpoint, Origin, Resolution, Service, ServicePort, TrafficDistribution, Visibility,
};

/// The scheme of Unix domain sockets in `endpoints[].address`.
const UNIX_SCHEME: &str = "unix://";

/// Adds all ServiceEntries with their endpoints.
pub(super) fn add(inputs: &Inputs, draft: &mut Draft) {
    for entry in inputs.service_entries.values() {
        for host in &entry.spec.hosts {
            add_host(inputs, draft, entry, host);
        }
    }
}

/// The label that keeps a ServiceEntry from getting an address by itself.
const AUTO_ALLOCATE_LABEL: &str = "networking.istio.io/enable-autoallocate-ip";

/// Adds a diagnostic for every ServiceEntry of which a part has no effect.
pub(crate) fn check(objects: &Objects, diagnostics: &mut Vec<Diagnostic>) {
    for entry in objects.service_entries.values() {
        if entry.spec.resolution == Declared::DynamicDns {
            let message = "resolution DYNAMIC_DNS is not available in this version";
            diagnostics.push(
                Diagnostic::new(Code::SchemaWarning, entry.resource(), message)
                    .at("spec.resolution")
                    .hint("traffic goes to the address that the application dialled, as with NONE"),
            );
        }
        if let Some(index) = wants_address(entry) {
            let message = "an address is needed here; none is allocated by itself in this version";
            diagnostics.push(
                Diagnostic::new(Code::ServiceEntryAddressesRequired, entry.resource(), message)
                    .at(format!("spec.ports[{index}]"))
                    .hint("give it spec.addresses; without one it shares its port with every such entry"),
            );
        }
    }
}

/// The first port of an entry that only an address of its own tells from the ports of other entries: bytes without
/// names in them. Where the application dials what it resolved itself, or said that it wants no address, none is needed.
fn wants_address(entry: &Config<ServiceEntry>) -> Option<usize> {
    let resolved = matches!(
        entry.spec.resolution,
        Declared::Static | Declared::Dns | Declared::DnsRoundRobin
    );
    let refused = entry
        .meta
        .labels
        .get(AUTO_ALLOCATE_LABEL)
        .is_some_and(|v| v == "false");
    if !resolved || refused || !entry.spec.addresses.is_empty() {
        return None;
    }
    let nameless = |port: &api_istio::networking::ServicePort| {
        let protocol = Protocol::parse(&port.protocol);
        protocol.is_sniffed() || (protocol.is_tcp() && !protocol.is_tls())
    };
    entry.spec.ports.iter().position(nameless)
}

fn add_host(inputs: &Inputs, draft: &mut Draft, entry: &Config<ServiceEntry>, host: &str) {
    let service = convert(inputs, entry, host);
    let resolution = service.resolution;
    let selector = entry
        .spec
        .workload_selector
        .as_ref()
        .filter(|s| !s.labels.is_empty());
    let selector = selector.map(|s| Selector {
        labels: s.labels.clone(),
        targets: targets(&entry.spec),
    });
    let key = draft.service(service, selector.clone());
    if resolution == Resolution::Passthrough {
        return;
    }
    match selector {
        Some(selector) => {
            let namespace = &entry.meta.namespace;
            let pods = draft
                .workloads
                .pods_selected(namespace, &selector.labels)
                .cloned();
            let mut instances: Vec<_> = pods.collect();
            instances.extend(
                draft
                    .workloads
                    .entries_selected(namespace, &selector.labels)
                    .cloned(),
            );
            for instance in instances {
                add_instance(draft, &key, &selector.targets, &instance);
            }
        }
        None => add_inline(inputs, draft, entry, host, &key),
    }
}

/// Inline endpoints; without any, a host that is resolved by DNS is its own endpoint.
fn add_inline(
    inputs: &Inputs,
    draft: &mut Draft,
    entry: &Config<ServiceEntry>,
    host: &str,
    key: &super::ServiceKey,
) {
    let (meta, spec) = (&entry.meta, &entry.spec);
    let targets = targets(spec);
    if spec.endpoints.is_empty() {
        if matches!(spec.resolution, Declared::Dns | Declared::DnsRoundRobin) && !host.starts_with('*') {
            let own = api_istio::networking::WorkloadEntry {
                address: host.to_owned(),
                ..Default::default()
            };
            let instance = instance_of(
                &inputs.workloads.common,
                &own,
                &meta.name,
                &meta.namespace,
                &Labels::new(),
            );
            add_instance(draft, key, &targets, &instance);
        }
        return;
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let name = format!("{}-{index}", meta.name);
        let instance = instance_of(
            &inputs.workloads.common,
            endpoint,
            &name,
            &meta.namespace,
            &Labels::new(),
        );
        add_instance(draft, key, &targets, &instance);
    }
}

/// Adds one workload as an endpoint of every port it has.
pub(super) fn add_instance(
    draft: &mut Draft,
    key: &super::ServiceKey,
    targets: &[Target],
    instance: &Instance,
) {
    let Some(host) = instance.addresses.first().filter(|a| !a.is_empty()) else {
        return;
    };
    for target in targets {
        let address = match host.strip_prefix(UNIX_SCHEME) {
            Some(path) => Address::Pipe(path.into()),
            None => {
                let Some(port) = instance.ports.resolve(target) else {
                    continue;
                };
                Address::Socket(Arc::clone(host), port)
            }
        };
        let endpoint = Endpoint {
            address,
            weight: instance.weight,
            health: instance.health,
            workload: Arc::clone(&instance.workload),
            // Known once all rules are: see `Draft::finish`.
            mutual_tls: false,
        };
        draft.endpoint(key, target.port, endpoint);
    }
}

fn targets(entry: &ServiceEntry) -> Vec<Target> {
    let target = |port: &api_istio::networking::ServicePort| Target {
        port: port.number,
        name: port.name.as_str().into(),
        transport: "TCP".into(),
        target: (port.target_port != 0).then_some(IntOrString::Int(port.target_port)),
    };
    entry.ports.iter().map(target).collect()
}

fn convert(inputs: &Inputs, entry: &Config<ServiceEntry>, host: &str) -> Service {
    let (meta, spec) = (&entry.meta, &entry.spec);
    let port = |p: &api_istio::networking::ServicePort| ServicePort {
        name: p.name.as_str().into(),
        port: p.number,
        protocol: Protocol::parse(&p.protocol),
        target_port: (p.target_port != 0).then_some(p.target_port),
    };
    let address = |a: &String| Arc::from(a.strip_suffix("/32").unwrap_or(a));
    let external = spec.location == Location::MeshExternal;
    Service {
        hostname: host.into(),
        name: host.into(),
        namespace: meta.namespace.as_str().into(),
        origin: Origin::ServiceEntry(meta.name.as_str().into()),
        created: meta.created.as_str().into(),
        labels: meta.labels.clone(),
        addresses: spec.addresses.iter().map(address).collect(),
        ports: spec.ports.iter().map(port).collect(),
        resolution: match spec.resolution {
            Declared::None => Resolution::Passthrough,
            Declared::Static => Resolution::Endpoints,
            Declared::Dns => Resolution::Dns,
            Declared::DnsRoundRobin => Resolution::DnsRoundRobin,
            Declared::DynamicDns => Resolution::DynamicDns,
        },
        external,
        visibility: Visibility::parse(
            &spec.export_to,
            &meta.namespace,
            &inputs.mesh().default_service_export_to,
        ),
        headless: false,
        aliases: Vec::new(),
        subject_alt_names: spec.subject_alt_names.iter().map(|s| s.as_str().into()).collect(),
        traffic_distribution: match meta.annotations.get("networking.istio.io/traffic-distribution") {
            Some(wanted) if wanted == "PreferClose" => TrafficDistribution::PreferClose,
            _ => TrafficDistribution::Any,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;
    use serde_json::{Value, json};

    fn codes(spec: &Value, labels: &Value) -> Vec<(&'static str, String)> {
        let mut objects = Objects::default();
        let meta = json!({"name": "partner", "namespace": "default", "labels": labels});
        let entry = json!({"metadata": meta, "spec": spec});
        assert_eq!(objects.apply(Kind::ServiceEntry, entry), None);
        let mut found = Vec::new();
        check(&objects, &mut found);
        found.into_iter().map(|d| (d.code.id(), d.field)).collect()
    }

    #[test]
    fn an_entry_whose_address_would_be_allocated_says_that_it_is_not() {
        let ports = json!([{"number": 80, "name": "http", "protocol": "HTTP"},
                           {"number": 6100, "name": "tcp", "protocol": "TCP"}]);
        let spec = json!({"hosts": ["a.test"], "resolution": "DNS", "ports": ports});
        let expected = [("IST0134", "spec.ports[1]".to_owned())];
        assert_eq!(codes(&spec, &json!({})), expected);
        assert_eq!(codes(&spec, &json!({AUTO_ALLOCATE_LABEL: "false"})), []);
        let mut addressed = spec.clone();
        addressed["addresses"] = json!(["192.0.2.1"]);
        assert_eq!(codes(&addressed, &json!({})), []);
        let mut dialled = spec;
        dialled["resolution"] = json!("NONE");
        assert_eq!(codes(&dialled, &json!({})), []);
    }

    #[test]
    fn an_entry_that_wants_dynamic_dns_says_that_it_has_none() {
        let spec = json!({"hosts": ["*.a.test"], "resolution": "DYNAMIC_DNS",
                          "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}]});
        assert_eq!(
            codes(&spec, &json!({})),
            [("IST0133", "spec.resolution".to_owned())]
        );
    }
}
