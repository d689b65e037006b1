//! The mesh's own mutual TLS: certificates by SDS from the agent, peers verified by their SPIFFE ids.

use api_envoy::envoy::config::core::v3::ApiVersion;
use api_envoy::envoy::config::core::v3::{
    ApiConfigSource, ConfigSource, GrpcService, TransportSocket, api_config_source::ApiType,
    config_source::ConfigSourceSpecifier, grpc_service,
};
use api_envoy::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use api_envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
    UpstreamTlsContext,
    common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
    tls_parameters::TlsProtocol,
};
use api_envoy::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use api_istio::mesh::TlsConfigProtocol;
use control_snapshot::Mesh;
use std::sync::Arc;

use crate::extension::{source, transport_socket};

/// ALPN of mesh connections that carry HTTP.
pub(crate) const HTTP_ALPN: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN of mesh connections that carry bytes.
pub(crate) const TCP_ALPN: [&str; 2] = ["istio-peer-exchange", "istio"];
/// ALPN of every mesh connection.
pub(crate) const ALL_ALPN: [&str; 5] = [
    "istio",
    "istio-peer-exchange",
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
];
/// ALPN of HTTP without TLS, as the HTTP inspector reports it.
pub(crate) const PLAINTEXT_HTTP_ALPN: [&str; 2] = ["http/1.1", "h2c"];

/// Ciphers of TLS 1.2 that servers of the mesh accept.
const CIPHER_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];
/// The cluster of the agent's SDS socket, part of the bootstrap.
const SDS_CLUSTER: &str = "sds-grpc";
/// The extension's name.
pub(crate) const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

/// No TLS.
pub(crate) fn raw_buffer() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}

/// What a client announces to speak inside mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// Bytes; what requests are in is said per request, by the filter `istio.alpn`.
    Stream,
    /// The same to an HTTP/2 upstream.
    Http2Stream,
    /// HTTP/1.1 always, from a proxy without that filter.
    Http1,
    /// HTTP/2 always, from such a proxy.
    Http2,
}

impl Announced {
    /// A proxy that cannot exchange metadata does not offer to: its peer would begin with what an application then gets.
    fn names(self, exchanges: bool) -> Vec<String> {
        let names: &[&str] = match self {
            Self::Stream => &TCP_ALPN,
            Self::Http2Stream => &[TCP_ALPN[0], TCP_ALPN[1], "h2"],
            Self::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
            Self::Http2 => &["istio-h2", "istio", "h2"],
        };
        let offered = names.iter().filter(|name| exchanges || **name != TCP_ALPN[0]);
        offered.map(|name| (*name).to_owned()).collect()
    }
}

/// The client's side: servers must have one of these identities (any of the mesh when none is known). `exchanges` says
/// whether the proxy exchanges metadata on connections that carry bytes.
pub(crate) fn client(
    server_name: String,
    identities: &[Arc<str>],
    (announced, exchanges): (Announced, bool),
) -> TransportSocket {
    let context = UpstreamTlsContext {
        common_tls_context: Some(common(
            protocol_versions(),
            announced.names(exchanges),
            identities.iter().map(|id| exact(id)).collect(),
        )),
        sni: server_name,
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// The server's side: clients must have an identity of the trust domain or an alias of it. `exchanges` is as for
/// [`client`].
pub(crate) fn server(mesh: &Mesh, http: bool, exchanges: bool) -> TransportSocket {
    let mut alpn: Vec<String> = Vec::new();
    if !http && exchanges {
        alpn.push(TCP_ALPN[0].to_owned());
    }
    alpn.extend(["h2".to_owned(), "http/1.1".to_owned()]);
    let minimum = match mesh.min_tls_version() {
        TlsConfigProtocol::TlsV1_3 => TlsProtocol::TlSv13,
        TlsConfigProtocol::TlsAuto | TlsConfigProtocol::TlsV1_2 => TlsProtocol::TlSv12,
    };
    let params = TlsParameters {
        cipher_suites: match mesh.mesh_cipher_suites() {
            Some(suites) => suites.to_vec(),
            None => CIPHER_SUITES.map(str::to_owned).to_vec(),
        },
        tls_minimum_protocol_version: minimum.into(),
        ..protocol_versions()
    };
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let members = domains.map(|domain| matcher(MatchPattern::Prefix(format!("spiffe://{domain}/"))));
    let context = DownstreamTlsContext {
        common_tls_context: Some(common(params, alpn, members.collect())),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// TLS 1.2 and 1.3.
pub(crate) fn protocol_versions() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..TlsParameters::default()
    }
}

#[allow(deprecated)] // `match_subject_alt_names` is what Istio's proxies read; its successor is not understood by all.
fn common(params: TlsParameters, alpn: Vec<String>, names: Vec<StringMatcher>) -> CommonTlsContext {
    let validation = CertificateValidationContext {
        match_subject_alt_names: names,
        ..Default::default()
    };
    CommonTlsContext {
        tls_params: Some(params),
        alpn_protocols: alpn,
        tls_certificate_sds_secret_configs: vec![secret("default")],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(validation),
                validation_context_sds_secret_config: Some(secret("ROOTCA")),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        ..CommonTlsContext::default()
    }
}

/// A name that must be exactly this.
pub(crate) fn exact(name: &str) -> StringMatcher {
    matcher(MatchPattern::Exact(name.to_owned()))
}

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(pattern),
        ..StringMatcher::default()
    }
}

/// What the agent has under a name: the workload's certificate (`default`), the mesh's roots (`ROOTCA`), or files.
pub(crate) fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(sds_source()),
    }
}

fn sds_source() -> ConfigSource {
    let agent = grpc_service::EnvoyGrpc {
        cluster_name: SDS_CLUSTER.to_owned(),
        ..Default::default()
    };
    source(ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(agent)),
            ..GrpcService::default()
        }],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    }))
}
