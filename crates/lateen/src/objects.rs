//! The Kubernetes and Istio objects that `demo`, `up` and `run` apply, through the API like any user.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The namespace of the ingress gateway.
pub(crate) const GATEWAY_NAMESPACE: &str = "istio-system";

/// The name of the ingress gateway.
pub(crate) const GATEWAY_NAME: &str = "istio-ingressgateway";

/// The port of the shop's Gateway object.
pub(crate) const GATEWAY_PORT: u16 = 8080;

/// The demo's seven workloads: service and version.
pub(crate) const BOOKINFO: [(&str, &str); 7] = [
    ("productpage", "v1"),
    ("details", "v1"),
    ("ratings", "v1"),
    ("ratingsdb", "v1"),
    ("reviews", "v1"),
    ("reviews", "v2"),
    ("reviews", "v3"),
];

/// The services of bookinfo, with the names of their ports, which say what they speak.
pub(crate) const BOOKINFO_SERVICES: [(&str, &str); 5] = [
    ("productpage", "http"),
    ("details", "grpc"),
    ("ratings", "http"),
    ("ratingsdb", "tcp"),
    ("reviews", "http"),
];

/// The port of every bookinfo service but the database.
pub(crate) const BOOKINFO_PORT: u16 = 9080;

/// The port of a bookinfo service.
pub(crate) fn bookinfo_port(service: &str) -> u16 {
    let service = service.parse::<bookinfo::ServiceName>();
    service.map_or(BOOKINFO_PORT, bookinfo::ServiceName::default_port)
}

/// The labels that Gateway objects select, as Istio's profiles set them.
pub(crate) fn gateway_labels() -> BTreeMap<String, String> {
    let labels = [("app", GATEWAY_NAME), ("istio", "ingressgateway")];
    labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A service that selects workloads by their label `app`.
pub(crate) fn service(namespace: &str, name: &str, ports: &[u16]) -> Value {
    let named: Vec<(String, u16)> = ports
        .iter()
        .map(|port| (port_name(*port, ports), *port))
        .collect();
    service_with(namespace, name, &named)
}

/// The same with names for the ports.
fn service_with(namespace: &str, name: &str, ports: &[(String, u16)]) -> Value {
    let ports = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port }));
    let ports: Vec<Value> = ports.collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": name, "service": name } },
        "spec": { "ports": ports, "selector": { "app": name } },
    })
}

/// `http` for an only port, so that it reads like everybody's YAML; otherwise the number makes it unique.
fn port_name(port: u16, all: &[u16]) -> String {
    if all.len() == 1 {
        "http".to_owned()
    } else {
        format!("http-{port}")
    }
}

/// A service account.
pub(crate) fn service_account(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": namespace } })
}

/// A group that workloads join; each becomes a WorkloadEntry made from its template.
///
/// The probe is the agent's connection to the application; until it succeeds the entry gets no traffic.
pub(crate) fn workload_group(spec: &agent::Spec) -> Value {
    let ports = spec.ports.iter();
    workload_group_with(
        spec,
        ports.map(|port| (port_name(*port, &spec.ports), *port)).collect(),
    )
}

fn workload_group_with(spec: &agent::Spec, ports: BTreeMap<String, u16>) -> Value {
    let mut group = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": { "name": spec.group, "namespace": spec.namespace, "labels": spec.labels },
        "spec": {
            "metadata": { "labels": spec.labels },
            "template": { "ports": ports, "serviceAccount": spec.service_account },
        },
    });
    if let Some(port) = spec.ports.first() {
        group["spec"]["probe"] = json!({ "tcpSocket": { "port": port } });
    }
    group
}

/// The ingress gateway's namespace-level objects: its service and the group that it joins.
pub(crate) fn gateway(spec: &agent::Spec) -> Vec<Value> {
    vec![
        service_account(&spec.namespace, &spec.service_account),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": spec.name, "namespace": spec.namespace, "labels": spec.labels },
            "spec": {
                "ports": [
                    { "name": "http2", "port": 80, "targetPort": GATEWAY_PORT },
                    { "name": "http", "port": GATEWAY_PORT, "targetPort": GATEWAY_PORT },
                ],
                "selector": spec.labels,
            },
        }),
        workload_group(spec),
    ]
}

/// The shop's services, accounts and groups.
pub(crate) fn bookinfo(specs: &[agent::Spec]) -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, port_name) in BOOKINFO_SERVICES {
        let port = (port_name.to_owned(), bookinfo_port(name));
        objects.push(service_account("default", &format!("bookinfo-{name}")));
        objects.push(service_with("default", name, std::slice::from_ref(&port)));
        let own = specs
            .iter()
            .filter(|spec| spec.labels.get("app").is_some_and(|app| app == name));
        objects.extend(own.map(|spec| workload_group_with(spec, BTreeMap::from([port.clone()]))));
    }
    objects
}

/// The shop's door: what Istio's `bookinfo-gateway.yaml` says.
pub(crate) fn bookinfo_gateway() -> Vec<Value> {
    let paths = [
        ("exact", "/productpage"),
        ("prefix", "/static"),
        ("exact", "/login"),
        ("exact", "/logout"),
        ("prefix", "/api/v1/products"),
    ];
    let matches: Vec<Value> = paths
        .iter()
        .map(|(kind, path)| json!({ "uri": { *kind: path } }))
        .collect();
    vec![
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": { "name": "bookinfo-gateway", "namespace": "default" },
            "spec": {
                "selector": { "istio": "ingressgateway" },
                "servers": [{
                    "port": { "number": GATEWAY_PORT, "name": "http", "protocol": "HTTP" },
                    "hosts": ["*"],
                }],
            },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": { "name": "bookinfo", "namespace": "default" },
            "spec": {
                "hosts": ["*"],
                "gateways": ["bookinfo-gateway"],
                "http": [{
                    "match": matches,
                    "route": [{ "destination": { "host": "productpage", "port": { "number": BOOKINFO_PORT } } }],
                }],
            },
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_makes_entries_that_its_service_selects() {
        let spec = agent::Spec::sidecar("default", "reviews", "v2", vec![9080]);
        let group = workload_group(&spec);
        assert_eq!(group["metadata"]["name"], "reviews-v2");
        assert_eq!(
            group["spec"]["metadata"]["labels"]["app"],
            service("default", "reviews", &[9080])["spec"]["selector"]["app"]
        );
        assert_eq!(group["spec"]["template"]["ports"]["http"], 9080);
    }

    #[test]
    fn several_ports_have_names_of_their_own() {
        let names = service("default", "shop", &[80, 9090])["spec"]["ports"].clone();
        assert_eq!(names[0]["name"], "http-80");
        assert_eq!(names[1]["name"], "http-9090");
    }
}
