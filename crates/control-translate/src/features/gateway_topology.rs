//! What stands in front of a gateway (`ProxyConfig.gatewayTopology`, announced by the proxy itself).

use api_envoy::envoy::config::listener::v3::ListenerFilter;
use api_envoy::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::ForwardClientCertDetails,
};
use control_snapshot::Profile;
use serde_json::Value;

use crate::extension::listener_filter;

/// The topology a proxy announced; `null` when it announced none.
fn topology(profile: &Profile) -> Value {
    let config: Option<Value> = serde_json::from_str(&profile.proxy_config).ok();
    config
        .and_then(|mut c| c.get_mut("gatewayTopology").map(Value::take))
        .unwrap_or_default()
}

/// Trusted proxies, and what is done about the client certificates they report.
pub(crate) fn apply(manager: &mut HttpConnectionManager, profile: &Profile) {
    let topology = topology(profile);
    let trusted = topology.get("numTrustedProxies").and_then(Value::as_u64);
    manager.xff_num_trusted_hops = trusted.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let details = match topology.get("forwardClientCertDetails").and_then(Value::as_str) {
        Some("SANITIZE") => ForwardClientCertDetails::Sanitize,
        Some("FORWARD_ONLY") => ForwardClientCertDetails::ForwardOnly,
        Some("APPEND_FORWARD") => ForwardClientCertDetails::AppendForward,
        Some("ALWAYS_FORWARD_ONLY") => ForwardClientCertDetails::AlwaysForwardOnly,
        _ => ForwardClientCertDetails::SanitizeSet,
    };
    manager.forward_client_cert_details = details.into();
}

/// The PROXY protocol filter, where the proxies in front speak it.
pub(crate) fn proxy_protocol(profile: &Profile) -> Option<ListenerFilter> {
    let wanted = topology(profile)
        .get("proxyProtocol")
        .is_some_and(Value::is_object);
    wanted.then(|| listener_filter("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default()))
}
