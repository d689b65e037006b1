//! What a cluster does about TLS: the mesh's own where both sides can, or what a DestinationRule says.

use api_envoy::envoy::config::cluster::v3::{
    Cluster,
    cluster::{DiscoveryType, TransportSocketMatch},
};
use api_envoy::envoy::config::core::v3::{
    ProxyProtocolConfig, TransportSocket, proxy_protocol_config::Version,
};
use api_envoy::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use api_envoy::wkt;
use api_istio::networking::{ClientTlsMode, ProxyProtocolVersion, TrafficPolicy};
use control_snapshot::{ProxyView, ServiceView};
use diagnostics::{Code, Diagnostic};
use serde_json::json;

use crate::extension::transport_socket;
use crate::{mutual_tls, names};

/// What a cluster is for.
pub(super) struct Upstream<'a> {
    pub(super) view: &'a ProxyView,
    pub(super) service: &'a ServiceView,
    pub(super) port: u32,
    pub(super) subset: &'a str,
    pub(super) discovery: DiscoveryType,
    pub(super) http2: bool,
}

/// Sets transport sockets; `false` when the policy asks for TLS that cannot be had, and the cluster must not exist:
/// plain text would be worse than no connection.
pub(super) fn apply(
    cluster: &mut Cluster,
    upstream: &Upstream<'_>,
    policy: &TrafficPolicy,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    let Upstream {
        view,
        service,
        discovery,
        ..
    } = *upstream;
    match policy.tls.as_ref().map(|tls| tls.mode) {
        Some(ClientTlsMode::Disable) => {}
        Some(ClientTlsMode::IstioMutual) if view.identity => {
            cluster.transport_socket = Some(upstream.mutual())
        }
        // Without identities there is no mutual TLS to ask for; both sides agree on plain text.
        Some(ClientTlsMode::IstioMutual) => {}
        Some(mode @ (ClientTlsMode::Simple | ClientTlsMode::Mutual)) => {
            diagnostics.extend(unsupported(upstream, mode));
            return false;
        }
        None if !view.identity || !view.mesh.auto_mtls() || service.service.external => {}
        None if discovery == DiscoveryType::OriginalDst => {
            // The address is not known beforehand, so all workloads must be able, or none is asked.
            if service.all_mutual_tls {
                cluster.transport_socket = Some(upstream.mutual());
            }
        }
        None => cluster.transport_socket_matches = upstream.where_offered(),
    }
    if let Some(settings) = &policy.proxy_protocol {
        announce_client(cluster, settings.version);
    }
    true
}

/// Connections begin with the PROXY protocol, whatever else they carry (`trafficPolicy.proxyProtocol`).
fn announce_client(cluster: &mut Cluster, version: ProxyProtocolVersion) {
    let version = match version {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    let wrap = |inner: TransportSocket| {
        let config = ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig {
                version: version.into(),
                ..ProxyProtocolConfig::default()
            }),
            transport_socket: Some(inner),
            ..ProxyProtocolUpstreamTransport::default()
        };
        transport_socket("envoy.transport_sockets.upstream_proxy_protocol", &config)
    };
    if cluster.transport_socket_matches.is_empty() {
        let plain = || TransportSocket {
            name: "raw_buffer".to_owned(),
            ..mutual_tls::raw_buffer()
        };
        cluster.transport_socket = Some(wrap(cluster.transport_socket.take().unwrap_or_else(plain)));
    }
    for socket in &mut cluster.transport_socket_matches {
        socket.transport_socket = socket.transport_socket.take().map(wrap);
    }
}

impl Upstream<'_> {
    fn mutual(&self) -> TransportSocket {
        let sni = names::server_name(self.port, self.subset, &self.service.service.hostname);
        mutual_tls::client(sni, &self.service.identities, self.http2)
    }

    /// Mutual TLS to endpoints that offer it, plain text to the others.
    fn where_offered(&self) -> Vec<TransportSocketMatch> {
        vec![
            TransportSocketMatch {
                name: "tlsMode-istio".to_owned(),
                r#match: Some(wkt::structure(&json!({"tlsMode": "istio"}))),
                transport_socket: Some(self.mutual()),
            },
            TransportSocketMatch {
                name: "tlsMode-disabled".to_owned(),
                r#match: Some(wkt::structure(&json!({}))),
                transport_socket: Some(mutual_tls::raw_buffer()),
            },
        ]
    }
}

fn unsupported(upstream: &Upstream<'_>, mode: ClientTlsMode) -> Option<Diagnostic> {
    let rule = upstream.service.rule.as_ref()?;
    let message = format!(
        "TLS mode {mode} towards {} is not available in this version",
        upstream.service.service.hostname
    );
    Some(
        Diagnostic::new(Code::SchemaWarning, rule.config.resource(), message)
            .at("spec.trafficPolicy.tls.mode")
            .hint("the cluster is left out, so that nothing is sent in plain text; requests are answered with 503"),
    )
}
