//! The Kubernetes objects of a world: what a real cluster would hold.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{GATEWAY, GATEWAY_PORTS, Pod, Service, World};

impl World {
    /// Namespaces, services, pods and endpoint slices, and the ConfigMap that holds MeshConfig.
    pub fn objects(&self, access_log: &str) -> Vec<Value> {
        let proxy = self.proxy_pod();
        let pods = self.pods();
        let mut namespaces = vec!["default", "istio-system", self.client.namespace.as_str()];
        namespaces.extend(self.services.values().map(|service| service.namespace.as_str()));
        namespaces.sort_unstable();
        namespaces.dedup();
        let mut objects: Vec<Value> = namespaces.into_iter().map(namespace).collect();
        objects.push(self.mesh_config_map(access_log));
        objects.push(node());
        // A workload that registers itself is no Pod.
        let registers = self.metadata.contains_key("AUTO_REGISTER_GROUP");
        if !registers && !pods.iter().any(|pod| pod.name == proxy.name) {
            objects.push(pod(&proxy));
        }
        objects.extend(pods.iter().map(pod));
        for (name, spec) in &self.services {
            objects.push(self.service(name, spec));
            objects.push(endpoint_slice(name, &spec.namespace, &spec.ports, &pods));
        }
        if self.is_gateway() {
            objects.extend(gateway_service(&proxy));
        }
        objects
    }

    fn mesh_config_map(&self, access_log: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "istio", "namespace": "istio-system" },
            "data": { "mesh": self.mesh_config(access_log).to_string() },
        })
    }

    fn service(&self, name: &str, spec: &Service) -> Value {
        let address = self
            .virtual_address(name)
            .map_or("None".to_owned(), |address| address.to_string());
        let ports: Vec<Value> = spec
            .ports
            .iter()
            .map(|(name, port)| json!({ "name": name, "port": port, "targetPort": port, "protocol": "TCP" }))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": spec.namespace, "labels": { "app": name }, "annotations": spec.annotations,
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
                "selector": { "app": name }, "ports": ports,
            },
        })
    }
}

impl Pod {
    /// Its labels, with the one by which Istio's injector marks what has a sidecar.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        if self.sidecar {
            labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
        }
        labels
    }
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } },
    })
}

/// The one machine of every world.
const NODE: &str = "machine";

fn node() -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE, "labels": {} } })
}

fn pod(pod: &Pod) -> Value {
    let address = pod.address.to_string();
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "containerPort": port, "protocol": "TCP" }))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": pod.name, "namespace": pod.namespace, "labels": pod.all_labels() },
        "spec": {
            "nodeName": NODE,
            "serviceAccountName": pod.account,
            "containers": [{ "name": "app", "image": "example.test/app:1", "ports": ports }],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn endpoint_slice(name: &str, namespace: &str, ports: &BTreeMap<String, u16>, pods: &[Pod]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" }))
        .collect();
    let endpoints: Vec<Value> = pods
        .iter()
        .filter(|pod| pod.service == name)
        .map(endpoint)
        .collect();
    slice(name, namespace, &ports, &endpoints)
}

fn slice(name: &str, namespace: &str, ports: &[Value], endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-1"), "namespace": namespace, "labels": { "kubernetes.io/service-name": name },
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    })
}

fn endpoint(pod: &Pod) -> Value {
    json!({
        "addresses": [pod.address.to_string()],
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "nodeName": NODE,
        "targetRef": { "kind": "Pod", "namespace": pod.namespace, "name": pod.name },
    })
}

/// The service of the gateway, with Istio's usual port mapping.
fn gateway_service(proxy: &Pod) -> [Value; 2] {
    let ports: Vec<Value> = GATEWAY_PORTS
        .iter()
        .map(|(name, port, target)| json!({ "name": name, "port": port, "targetPort": target, "protocol": "TCP" }))
        .collect();
    let slice_ports: Vec<Value> = GATEWAY_PORTS
        .iter()
        .map(|(name, _, target)| json!({ "name": name, "port": target, "protocol": "TCP" }))
        .collect();
    let endpoint = endpoint(&Pod {
        address: GATEWAY,
        ..proxy.clone()
    });
    [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": proxy.name, "namespace": proxy.namespace, "labels": proxy.labels },
            "spec": {
                "type": "ClusterIP", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"],
                "selector": proxy.labels, "ports": ports,
            },
        }),
        slice(&proxy.name, &proxy.namespace, &slice_ports, &[endpoint]),
    ]
}
