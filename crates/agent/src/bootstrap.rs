//! The sidecar's bootstrap (`envoy.config.bootstrap.v3.Bootstrap`) and the node that it presents, as Istio's agent
//! writes them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::wkt;
use serde_json::{Value, json};

use crate::secrets::{CERTIFICATE, ROOTS};
use crate::spec::{CaptureMode, Role, Spec, Xds};

/// The port of the sidecar's administration interface on the workload's address (Istio's).
pub const ADMIN_PORT: u16 = 15000;

/// The Istio release whose control-plane contract the node claims to understand.
const ISTIO_VERSION: &str = "1.31.0";

/// Whether a workload takes mutual TLS (Istio's).
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// Who a proxy is: everything that the control plane learns from the node.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `sidecar~IP~name.namespace~namespace.svc.cluster.local`, or `router~...`.
    pub id: String,
    /// `app.namespace`.
    pub cluster: String,
    /// Istio's node metadata.
    pub metadata: Value,
}

impl Identity {
    /// The identity of a workload at this address, captured in this way; a gateway is not captured at all.
    #[must_use]
    pub fn new(spec: &Spec, address: Ipv4Addr, capture: Option<CaptureMode>) -> Self {
        let Spec {
            namespace,
            name,
            service_account,
            ..
        } = spec;
        let kind = match spec.role {
            Role::Sidecar => "sidecar",
            Role::Gateway => "router",
        };
        let labels = labels(spec);
        let app = labels.get("app").unwrap_or(name);
        // `PORTS` is ours: a bound listener for each port of each service, see `control_snapshot::Interception`.
        let interception = match capture {
            Some(CaptureMode::Ports) => "PORTS",
            Some(CaptureMode::Namespace) | None => "REDIRECT",
        };
        let mut metadata = json!({
            "NAME": name,
            "NAMESPACE": namespace,
            "WORKLOAD_NAME": name,
            "SERVICE_ACCOUNT": service_account,
            "CLUSTER_ID": "Kubernetes",
            "MESH_ID": "cluster.local",
            "INSTANCE_IPS": address.to_string(),
            "LABELS": labels,
            "INTERCEPTION_MODE": interception,
            "ISTIO_VERSION": ISTIO_VERSION,
            "DNS_CAPTURE": "true",
        });
        if !spec.group.is_empty() {
            metadata["AUTO_REGISTER_GROUP"] = spec.group.clone().into();
        }
        for (name, value) in &spec.metadata {
            metadata[name] = value.clone();
        }
        Self {
            id: format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            cluster: format!("{app}.{namespace}"),
            metadata,
        }
    }

    /// The node as a message, for the agent's own stream.
    #[must_use]
    pub fn node(&self) -> Node {
        Node {
            id: self.id.clone(),
            cluster: self.cluster.clone(),
            metadata: Some(wkt::structure(&self.metadata)),
            user_agent_name: "lateen-agent".to_owned(),
            ..Node::default()
        }
    }
}

/// The workload's labels: the user's, Istio's canonical name and revision, and that it takes mutual TLS; its
/// WorkloadEntry gets them too, so callers know.
fn labels(spec: &Spec) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    let app = labels.get("app").cloned().unwrap_or_else(|| spec.name.clone());
    let revision = labels
        .get("version")
        .cloned()
        .unwrap_or_else(|| "latest".to_owned());
    labels
        .entry("service.istio.io/canonical-name".to_owned())
        .or_insert(app);
    labels
        .entry("service.istio.io/canonical-revision".to_owned())
        .or_insert(revision);
    labels
        .entry(TLS_MODE_LABEL.to_owned())
        .or_insert_with(|| "istio".to_owned());
    labels
}

/// The name of the cluster of the agent's SDS socket (Istio's), which configuration from the control plane refers to.
const SDS_CLUSTER: &str = "sds-grpc";

/// The bootstrap: one aggregated delta stream for everything, and secrets from the socket `sds`; the proxy is
/// administered on `address`.
#[must_use]
pub fn bootstrap(identity: &Identity, address: Ipv4Addr, xds: &Xds, sds: &Path) -> Value {
    let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    let clusters = [
        grpc_cluster(SDS_CLUSTER, json!({ "pipe": { "path": sds } })),
        xds_cluster(xds),
    ];
    json!({
        "node": { "id": identity.id, "cluster": identity.cluster, "metadata": identity.metadata },
        "admin": { "address": socket_address(SocketAddr::new(address.into(), ADMIN_PORT)) },
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
        },
        "static_resources": { "clusters": clusters },
    })
}

fn xds_cluster(xds: &Xds) -> Value {
    let mut cluster = grpc_cluster("xds-grpc", socket_address(xds.address));
    cluster["upstream_connection_options"] = json!({ "tcp_keepalive": { "keepalive_time": 300 } });
    cluster["transport_socket"] = mutual_tls(&xds.server_name);
    cluster
}

/// A static cluster for gRPC.
fn grpc_cluster(name: &str, address: Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
    })
}

/// The workload's certificate towards a server of this name, whose certificate leads to the mesh's roots.
fn mutual_tls(server_name: &str) -> Value {
    let name = json!([{ "san_type": "DNS", "matcher": { "exact": server_name } }]);
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": server_name,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_2",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "tls_certificate_sds_secret_configs": [secret(CERTIFICATE)],
                "combined_validation_context": {
                    "default_validation_context": { "match_typed_subject_alt_names": name },
                    "validation_context_sds_secret_config": secret(ROOTS),
                },
            },
        },
    })
}

/// A secret of the agent, as Istio's configuration refers to it.
#[must_use]
pub fn secret(name: &str) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": SDS_CLUSTER } }],
            },
            "initial_fetch_timeout": "0s",
            "resource_api_version": "V3",
        },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews() -> Spec {
        Spec::sidecar("default", "reviews", "v2", vec![9080])
    }

    #[test]
    fn the_node_is_named_as_istio_names_it() {
        let address = Ipv4Addr::new(127, 66, 1, 2);
        let identity = Identity::new(&reviews(), address, Some(CaptureMode::Namespace));
        assert_eq!(
            identity.id,
            "sidecar~127.66.1.2~reviews-v2.default~default.svc.cluster.local"
        );
        assert_eq!(identity.cluster, "reviews.default");
        let labels = &identity.metadata["LABELS"];
        assert_eq!(labels["app"], "reviews");
        assert_eq!(labels["service.istio.io/canonical-revision"], "v2");
        assert_eq!(identity.metadata["AUTO_REGISTER_GROUP"], "reviews-v2");
        assert_eq!(identity.metadata["INTERCEPTION_MODE"], "REDIRECT");
        let by_ports = Identity::new(&reviews(), address, Some(CaptureMode::Ports));
        assert_eq!(by_ports.metadata["INTERCEPTION_MODE"], "PORTS");
    }

    #[test]
    fn the_bootstrap_is_one_that_envoys_protobufs_accept() {
        let address = Ipv4Addr::new(127, 66, 1, 2);
        let identity = Identity::new(&reviews(), address, None);
        let xds = Xds {
            address: "127.0.0.1:15012".parse().unwrap(),
            server_name: "istiod.istio-system.svc".to_owned(),
        };
        let json = bootstrap(&identity, address, &xds, Path::new("/run/sds.sock"));
        let bootstrap: api_envoy::envoy::config::bootstrap::v3::Bootstrap =
            api_envoy::json::Schema::get().parse(&json).unwrap();
        assert_eq!(bootstrap.node.unwrap().id, identity.id);
        let clusters = bootstrap.static_resources.unwrap().clusters;
        let secured = |name: &str| {
            let cluster = clusters.iter().find(|cluster| cluster.name == name);
            cluster.expect("the cluster").transport_socket.is_some()
        };
        assert!(secured("xds-grpc") && !secured("sds-grpc"));
        assert_eq!(clusters.len(), 2);
    }
}
