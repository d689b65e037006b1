//! Pages about the world: services, endpoints, configuration objects, MeshConfig, diagnostics.

use axum::extract::State;
use axum::response::Response;
use control_snapshot::{
    Address, ConfigMeta, Endpoint, Health, Origin, Protocol, Resolution, Service, ServicePort,
};
use serde_json::{Value, json};

use super::{Current, Pages, pretty};

/// Istio's `model.Service` of every service.
pub(super) async fn registryz(Current(publication): Current) -> Response {
    let cluster = publication.snapshot.settings().cluster.to_string();
    pretty(
        &publication
            .snapshot
            .registry()
            .services
            .iter()
            .map(|s| service(s, &cluster))
            .collect(),
    )
}

fn service(service: &Service, cluster: &str) -> Value {
    let registry = match service.origin {
        Origin::Kubernetes => "Kubernetes",
        Origin::ServiceEntry(_) => "External",
    };
    json!({
        "Attributes": {
            "ServiceRegistry": registry,
            "Name": &*service.name,
            "Namespace": &*service.namespace,
            "Labels": service.labels,
        },
        "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
        "creationTime": &*service.created,
        "hostname": &*service.hostname,
        "clusterVIPs": {"Addresses": {cluster: service.addresses.iter().map(|a| &**a).collect::<Vec<_>>()}},
        "defaultAddress": service.addresses.first().map_or("0.0.0.0", |a| &**a),
        "Resolution": resolution(service.resolution),
        "MeshExternal": service.external,
    })
}

fn port(port: &ServicePort) -> Value {
    json!({"name": &*port.name, "port": port.port, "protocol": protocol(port.protocol)})
}

/// Istio's `protocol.Instance`, as text.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Unsupported => "UnsupportedProtocol",
        Protocol::Grpc => "GRPC",
        Protocol::GrpcWeb => "GRPC-Web",
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP2",
        Protocol::Https => "HTTPS",
        Protocol::Hbone => "HBONE",
        Protocol::Mongo => "Mongo",
        Protocol::MySql => "MySQL",
        Protocol::Redis => "Redis",
        Protocol::Tcp => "TCP",
        Protocol::Tls => "TLS",
        Protocol::Udp => "UDP",
    }
}

/// Istio's `model.Resolution`.
fn resolution(resolution: Resolution) -> u8 {
    match resolution {
        Resolution::Endpoints => 0,
        Resolution::Dns => 1,
        Resolution::Passthrough => 2,
        Resolution::DnsRoundRobin => 3,
        Resolution::DynamicDns => 5,
    }
}

/// The endpoints of every port of every service.
pub(super) async fn endpointz(Current(publication): Current) -> Response {
    let registry = publication.snapshot.registry();
    let mut all = Vec::new();
    for service in &registry.services {
        let Some(endpoints) = registry.endpoints_of(service) else {
            continue;
        };
        for port in &service.ports {
            let list = endpoints
                .ports
                .get(&port.port)
                .map(Vec::as_slice)
                .unwrap_or_default();
            all.push(json!({
                "svc": format!("{}:{}", service.hostname, port.name),
                "ep": list.iter().map(|e| endpoint(e, service, port)).collect::<Vec<_>>(),
            }));
        }
    }
    pretty(&all.into())
}

fn endpoint(endpoint: &Endpoint, service: &Service, port: &ServicePort) -> Value {
    let (address, number) = match &endpoint.address {
        Address::Socket(ip, number) => (&**ip, *number),
        Address::Pipe(path) => (&**path, 0),
    };
    let workload = &endpoint.workload;
    let health = match endpoint.health {
        Health::Unknown | Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
    };
    let locality = &workload.locality;
    json!({
        "service": &*service.hostname,
        "endpoint": {"Address": address, "Port": number, "ServicePort": self::port(port)},
        "workload": {"name": &*workload.name, "namespace": &*workload.namespace, "labels": workload.labels},
        "serviceAccount": &*workload.identity,
        "locality": format!("{}/{}/{}", locality.region, locality.zone, locality.sub_zone),
        "weight": endpoint.weight,
        "health": health,
    })
}

/// Every Istio object, as Kubernetes would print it.
pub(super) async fn configz(State(pages): State<Pages>) -> Response {
    let configs = pages.discovery.world().read(|objects| {
        objects
            .configs()
            .map(|(meta, spec)| config(meta, spec))
            .collect::<Vec<_>>()
    });
    pretty(&configs.into())
}

fn config(meta: &ConfigMeta, spec: &str) -> Value {
    json!({
        "kind": meta.kind,
        "apiVersion": "networking.istio.io/v1",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": meta.labels,
            "annotations": meta.annotations,
            "creationTimestamp": meta.created,
        },
        "spec": serde_json::from_str::<Value>(spec).unwrap_or_default(),
    })
}

/// MeshConfig in force.
pub(super) async fn mesh(Current(publication): Current) -> Response {
    pretty(&serde_json::to_value(&**publication.snapshot.mesh()).unwrap_or_default())
}

/// What is wrong with the configuration: of the world, and of what connected proxies get.
pub(super) async fn diagnostics(_: Current, State(pages): State<Pages>) -> Response {
    let entry = |d: &diagnostics::Diagnostic| {
        json!({
            "code": d.code.id(),
            "severity": format!("{:?}", d.severity),
            "resource": d.resource.to_string(),
            "field": d.field,
            "message": d.message,
            "hint": d.hint,
        })
    };
    pretty(&pages.discovery.diagnostics().iter().map(entry).collect())
}
