//! Bootstraps, the same for Envoy and for us.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Value, json};

const HTTP_FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";
const NETWORK_FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.network";
const TRANSPORT_SOCKETS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// What an inbound listener of Istio offers on port 80: protocols of the mesh first.
const INBOUND_ALPN: [&str; 3] = ["istio-http/1.1", "h2", "http/1.1"];
/// What Istio's sidecars offer when they speak HTTP/1.1 to each other.
const OUTBOUND_ALPN: [&str; 3] = ["istio-http/1.1", "istio", "http/1.1"];

/// A bootstrap of one listener and the cluster `upstream`.
pub(super) fn bootstrap(listener: &Value, cluster: &Value) -> String {
    json!({ "static_resources": { "listeners": [listener], "clusters": [cluster] } }).to_string()
}

pub(super) fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": Ipv4Addr::LOCALHOST, "port_value": port } })
}

/// A listener of one filter chain.
pub(super) fn listener(port: u16, filter: &Value, transport_socket: Option<&Value>) -> Value {
    let mut chain = json!({ "filters": [filter] });
    if let Some(socket) = transport_socket {
        chain["transport_socket"] = socket.clone();
    }
    json!({ "name": "bench", "address": address(port), "filter_chains": [chain] })
}

/// An HTTP connection manager with the router alone, and one route for everything.
pub(super) fn http(route: &Value) -> Value {
    http_with(&[], route)
}

/// The same with filters before the router.
pub(super) fn http_with(filters: &[Value], route: &Value) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{HTTP_FILTERS}.router.v3.Router") },
    });
    let filters: Vec<Value> = filters.iter().cloned().chain([router]).collect();
    let mut only = json!({ "match": { "prefix": "/" } });
    for (field, value) in route.as_object().into_iter().flatten() {
        only[field] = value.clone();
    }
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{NETWORK_FILTERS}.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "bench",
            "route_config": {
                "name": "local",
                "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [only] }],
            },
            "http_filters": filters,
        },
    })
}

/// The filter that counts calls of gRPC, as Istio configures it.
pub(super) fn grpc_stats() -> Value {
    json!({
        "name": "envoy.filters.http.grpc_stats",
        "typed_config": {
            "@type": format!("{HTTP_FILTERS}.grpc_stats.v3.FilterConfig"),
            "emit_filter_state": true, "stats_for_all_methods": false,
        },
    })
}

/// The route to the cluster `upstream`.
pub(super) fn to_upstream() -> Value {
    json!({ "route": { "cluster": "upstream" } })
}

/// The proxy answers by itself.
pub(super) fn answer(body: &str) -> Value {
    json!({ "direct_response": { "status": 200, "body": { "inline_string": body } } })
}

/// Carries bytes to the cluster `upstream`.
pub(super) fn tcp() -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{NETWORK_FILTERS}.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "bench", "cluster": "upstream",
        },
    })
}

/// The cluster `upstream`: one host, by HTTP/1 unless told otherwise.
pub(super) fn upstream(port: u16) -> Value {
    json!({
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(port) } }] }],
        },
    })
}

/// The same, by HTTP/2.
pub(super) fn upstream_by_http2(port: u16) -> Value {
    let mut cluster = upstream(port);
    cluster["typed_extension_protocol_options"] = by_http2();
    cluster
}

/// Protocol options of a cluster that is spoken HTTP/2 with.
pub(super) fn by_http2() -> Value {
    json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    })
}

/// The server's side of mutual TLS, as Istio's inbound listeners have it.
pub(super) fn mutual_tls_server(certificates: &Path) -> Value {
    let mut context = common(certificates, "server");
    context["alpn_protocols"] = json!(INBOUND_ALPN);
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TRANSPORT_SOCKETS}.DownstreamTlsContext"),
            "require_client_certificate": true, "common_tls_context": context,
        },
    })
}

/// The client's side of mutual TLS, as Istio's outbound clusters have it.
pub(super) fn mutual_tls_client(certificates: &Path) -> Value {
    let mut context = common(certificates, "client");
    context["alpn_protocols"] = json!(OUTBOUND_ALPN);
    context["validation_context"]["match_typed_subject_alt_names"] = json!([
        { "san_type": "URI", "matcher": { "exact": super::certificates::SERVER_ID } },
    ]);
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TRANSPORT_SOCKETS}.UpstreamTlsContext"),
            "sni": "outbound_.80_._.server.default.svc.cluster.local", "common_tls_context": context,
        },
    })
}

fn common(certificates: &Path, who: &str) -> Value {
    let file = |name: String| json!({ "filename": certificates.join(name) });
    json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{
            "certificate_chain": file(format!("{who}.crt")), "private_key": file(format!("{who}.key")),
        }],
        "validation_context": { "trusted_ca": file("ca.crt".to_owned()) },
    })
}
