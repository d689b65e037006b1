//! The Kubernetes and Istio objects that `demo`, `up` and `run` apply, through the API like any user.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The namespace of the ingress gateway.
pub(crate) const GATEWAY_NAMESPACE: &str = "istio-system";

/// The name of the ingress gateway.
pub(crate) const GATEWAY_NAME: &str = "istio-ingressgateway";

/// The port of the shop's Gateway object.
pub(crate) const GATEWAY_PORT: u16 = 8080;

/// The demo's six workloads: service and version.
pub(crate) const BOOKINFO: [(&str, &str); 6] = [
    ("productpage", "v1"),
    ("details", "v1"),
    ("ratings", "v1"),
    ("reviews", "v1"),
    ("reviews", "v2"),
    ("reviews", "v3"),
];

/// The services of bookinfo.
pub(crate) const BOOKINFO_SERVICES: [&str; 4] = ["productpage", "details", "ratings", "reviews"];

/// The port of every bookinfo service.
pub(crate) const BOOKINFO_PORT: u16 = 9080;

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
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| json!({ "name": port_name(*port, ports), "port": port }))
        .collect();
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
    let ports: BTreeMap<String, u16> = spec
        .ports
        .iter()
        .map(|port| (port_name(*port, &spec.ports), *port))
        .collect();
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
    for name in BOOKINFO_SERVICES {
        objects.push(service_account("default", &format!("bookinfo-{name}")));
        objects.push(service("default", name, &[BOOKINFO_PORT]));
    }
    objects.extend(specs.iter().map(workload_group));
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
