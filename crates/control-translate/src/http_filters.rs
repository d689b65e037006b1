//! The one list of HTTP filters, in order. Every connection manager gets this list; each entry decides by itself
//! whether it has something to add.

use api_envoy::any;
use api_envoy::envoy::extensions::filters::http::cors::v3::Cors;
use api_envoy::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as forward;
use api_envoy::envoy::extensions::filters::http::fault::v3::HttpFault;
use api_envoy::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
use api_envoy::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use api_envoy::envoy::extensions::filters::http::router::v3::Router;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use api_envoy::istio::envoy::config::filter::http::alpn::v2alpha1::{
    self as alpn, filter_config::AlpnOverride,
};
use api_envoy::stats::PluginConfig;
use api_istio::mesh::MeshOutboundTrafficPolicyMode as OutboundMode;
use control_snapshot::{Protocol, ProxyView};
use serde_json::{Value, json};

use crate::dynamic_forward_proxy::dns_cache;
use crate::extension::{http_filter, http_filter_any, typed_struct};
use crate::role::Role;

/// Fault injection; routes configure it under this name.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
/// Cross-origin requests; routes configure it under this name.
pub(crate) const CORS: &str = "envoy.filters.http.cors";

/// What the list is made for.
pub(crate) struct Chain<'a> {
    /// What the proxy sees.
    pub(crate) view: &'a ProxyView,
    /// From whose point of view.
    pub(crate) role: Role,
    /// What the port speaks.
    pub(crate) protocol: Protocol,
}

type Entry = fn(&Chain<'_>) -> Option<HttpFilter>;

/// The order. Authentication and authorization come after metadata and before everything that acts on requests; the
/// router is last.
const ORDER: &[Entry] = &[
    metadata_exchange,
    grpc_web,
    grpc_statistics,
    istio_alpn,
    fault,
    cors,
    istio_stats,
    dynamic_forward_proxy,
    router,
];

/// The HTTP filters of one connection manager.
pub(crate) fn list(chain: &Chain<'_>) -> Vec<HttpFilter> {
    ORDER.iter().filter_map(|entry| entry(chain)).collect()
}

fn metadata_exchange(chain: &Chain<'_>) -> Option<HttpFilter> {
    let discovery = json!([{"istio_headers": {}}, {"workload_discovery": {}}]);
    let propagation = json!([{"istio_headers": {}}]);
    let value: Value = if chain.role.is_inbound() {
        json!({"downstream_discovery": discovery, "downstream_propagation": propagation})
    } else {
        json!({"upstream_discovery": discovery, "upstream_propagation": propagation})
    };
    let config = typed_struct("type.googleapis.com/io.istio.http.peer_metadata.Config", &value);
    chain
        .view
        .profile
        .exchanges_metadata_in_headers
        .then(|| http_filter_any("istio.metadata_exchange", config))
}

fn grpc_web(chain: &Chain<'_>) -> Option<HttpFilter> {
    (chain.protocol == Protocol::GrpcWeb).then(|| http_filter("envoy.filters.http.grpc_web", &GrpcWeb {}))
}

fn grpc_statistics(_: &Chain<'_>) -> Option<HttpFilter> {
    let config = grpc_stats::FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(
            grpc_stats::filter_config::PerMethodStatSpecifier::StatsForAllMethods(false),
        ),
        ..grpc_stats::FilterConfig::default()
    };
    Some(http_filter("envoy.filters.http.grpc_stats", &config))
}

/// Offers the mesh's ALPN names upstream, so that the server's proxy can tell mesh traffic from the application's TLS.
fn istio_alpn(chain: &Chain<'_>) -> Option<HttpFilter> {
    use alpn::filter_config::Protocol::{Http2, Http10, Http11};
    if chain.role.is_inbound() || !chain.view.profile.announces_protocols {
        return None;
    }
    let entry = |protocol: alpn::filter_config::Protocol, names: [&str; 3]| AlpnOverride {
        upstream_protocol: protocol.into(),
        alpn_override: names.map(str::to_owned).to_vec(),
    };
    let config = alpn::FilterConfig {
        alpn_override: vec![
            entry(Http10, ["istio-http/1.0", "istio", "http/1.0"]),
            entry(Http11, ["istio-http/1.1", "istio", "http/1.1"]),
            entry(Http2, ["istio-h2", "istio", "h2"]),
        ],
    };
    Some(http_filter("istio.alpn", &config))
}

fn fault(chain: &Chain<'_>) -> Option<HttpFilter> {
    let able = chain.view.profile.injects_faults;
    able.then(|| http_filter(FAULT, &HttpFault::default()))
}

fn cors(chain: &Chain<'_>) -> Option<HttpFilter> {
    let able = chain.view.profile.answers_cors;
    able.then(|| http_filter(CORS, &Cors {}))
}

fn istio_stats(chain: &Chain<'_>) -> Option<HttpFilter> {
    let config = any::pack(&stats_config(chain.role));
    chain
        .view
        .profile
        .istio_stats
        .then(|| http_filter_any("istio.stats", config))
}

/// `istio.stats`: where others choose the Host header, it must not become a label.
pub(crate) fn stats_config(role: Role) -> PluginConfig {
    PluginConfig {
        disable_host_header_fallback: role != Role::SidecarOutbound,
        ..PluginConfig::default()
    }
}

fn dynamic_forward_proxy(chain: &Chain<'_>) -> Option<HttpFilter> {
    if chain.role != Role::SidecarOutbound || chain.view.outbound != OutboundMode::AllowAnyDynamicDns {
        return None;
    }
    let config = forward::FilterConfig {
        implementation_specifier: Some(forward::filter_config::ImplementationSpecifier::DnsCacheConfig(
            dns_cache(),
        )),
        ..forward::FilterConfig::default()
    };
    Some(http_filter("envoy.filters.http.dynamic_forward_proxy", &config))
}

fn router(_: &Chain<'_>) -> Option<HttpFilter> {
    Some(http_filter("envoy.filters.http.router", &Router::default()))
}
