//! TLS that ends at a gateway (`envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`).
//!
//! Certificates come by SDS: those in Secrets from the control plane, over ADS; those of the mesh and those in files
//! from the agent, which watches the files. Where workloads have no identities, and so no agent that serves secrets, the
//! proxy reads the files itself.

use api_envoy::envoy::config::core::v3::{
    ApiVersion, ConfigSource, DataSource, TransportSocket, data_source,
};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsCertificate,
    TlsParameters,
    certificate_validation_context::TrustChainVerification,
    common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
    tls_parameters::TlsProtocol as EnvoyProtocol,
};
use api_envoy::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use api_istio::mesh::{TlsConfig, TlsConfigProtocol};
use api_istio::networking::TlsProtocol;
use control_snapshot::{
    ClientAuthorities, ClientCertificates, ClientVerification, ProxyView, ServerCertificates, Termination,
};

use crate::extension::{ads, transport_socket};
use crate::mutual_tls::{TCP_ALPN, TLS_SOCKET, secret as agent_secret};

/// What is spoken inside TLS that a gateway ends.
const ALPN: [&str; 2] = ["h2", "http/1.1"];
/// The agent's name for the workload's own certificate.
const OWN_CERTIFICATE: &str = "default";
/// The agent's name for the mesh's roots.
const MESH_ROOTS: &str = "ROOTCA";

/// The transport socket of a server. `http` says whether requests are read inside.
pub(crate) fn socket(view: &ProxyView, termination: &Termination, http: bool) -> TransportSocket {
    let mesh = &view.mesh;
    let mesh_certificates = termination.certificates == ServerCertificates::Mesh;
    let exchanges = view.profile.exchanges_metadata;
    let first = (mesh_certificates && !http && exchanges).then_some(TCP_ALPN[0]);
    let common = CommonTlsContext {
        tls_params: if mesh_certificates {
            None
        } else {
            parameters(mesh.tls_defaults.as_ref(), termination)
        },
        alpn_protocols: first.into_iter().chain(ALPN).map(str::to_owned).collect(),
        tls_certificates: own_files(&termination.certificates, view.identity),
        tls_certificate_sds_secret_configs: secrets(&termination.certificates, view.identity),
        validation_context_type: termination
            .clients
            .verification()
            .map(|clients| validation(clients, view.identity)),
        ..CommonTlsContext::default()
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(matches!(termination.clients, ClientCertificates::Required(_))),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// What comes by SDS. `agent` says whether there is one that serves secrets.
fn secrets(certificates: &ServerCertificates, agent: bool) -> Vec<SdsSecretConfig> {
    match certificates {
        ServerCertificates::Mesh => vec![agent_secret(OWN_CERTIFICATE)],
        ServerCertificates::Secrets(names) => names.iter().map(|name| control_plane_secret(name)).collect(),
        ServerCertificates::Files(files) if agent => {
            let names = files
                .iter()
                .map(|(chain, key)| format!("file-cert:{chain}~{key}"));
            names.map(|name| agent_secret(&name)).collect()
        }
        ServerCertificates::Files(_) => Vec::new(),
    }
}

/// What the proxy reads itself.
fn own_files(certificates: &ServerCertificates, agent: bool) -> Vec<TlsCertificate> {
    match certificates {
        ServerCertificates::Files(files) if !agent => files
            .iter()
            .map(|(chain, key)| TlsCertificate {
                certificate_chain: Some(file(chain)),
                private_key: Some(file(key)),
                ..TlsCertificate::default()
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn file(path: &str) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::Filename(path.to_owned())),
        ..DataSource::default()
    }
}

/// What the control plane sends of a Secret or ConfigMap. It may come late, or never: the server waits without holding up others.
pub(crate) fn control_plane_secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: ads().config_source_specifier,
            ..ConfigSource::default()
        }),
    }
}

#[allow(deprecated)] // `match_subject_alt_names` is what Istio's proxies read; its successor is not understood by all.
fn validation(clients: &ClientVerification, agent: bool) -> ValidationContextType {
    let exact = |name: &String| StringMatcher {
        match_pattern: Some(MatchPattern::Exact(name.clone())),
        ..StringMatcher::default()
    };
    let mut written = CertificateValidationContext {
        match_subject_alt_names: clients.subject_alt_names.iter().map(exact).collect(),
        verify_certificate_spki: clients.spki.clone(),
        verify_certificate_hash: clients.hashes.clone(),
        crl: (!clients.revocations.is_empty()).then(|| file(&clients.revocations)),
        trust_chain_verification: match clients.accept_untrusted {
            true => TrustChainVerification::AcceptUntrusted.into(),
            false => TrustChainVerification::VerifyTrustChain.into(),
        },
        ..CertificateValidationContext::default()
    };
    let authorities = match &clients.authorities {
        ClientAuthorities::Mesh => agent_secret(MESH_ROOTS),
        ClientAuthorities::Secret(name) => control_plane_secret(name),
        ClientAuthorities::File(path) if agent => agent_secret(&format!("file-root:{path}")),
        ClientAuthorities::File(path) => {
            written.trusted_ca = Some(file(path));
            return ValidationContextType::ValidationContext(written);
        }
    };
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(written),
        validation_context_sds_secret_config: Some(authorities),
        ..CombinedCertificateValidationContext::default()
    })
}

/// What the server says about versions and ciphers, laid over what the mesh says; `None` where neither says anything.
fn parameters(mesh: Option<&TlsConfig>, server: &Termination) -> Option<TlsParameters> {
    let version = |version: TlsProtocol| match version {
        TlsProtocol::TlsAuto => None,
        TlsProtocol::TlsV1_0 => Some(EnvoyProtocol::TlSv10),
        TlsProtocol::TlsV1_1 => Some(EnvoyProtocol::TlSv11),
        TlsProtocol::TlsV1_2 => Some(EnvoyProtocol::TlSv12),
        TlsProtocol::TlsV1_3 => Some(EnvoyProtocol::TlSv13),
    };
    let of_mesh = mesh.and_then(|mesh| match mesh.min_protocol_version {
        TlsConfigProtocol::TlsAuto => None,
        TlsConfigProtocol::TlsV1_2 => Some(EnvoyProtocol::TlSv12),
        TlsConfigProtocol::TlsV1_3 => Some(EnvoyProtocol::TlSv13),
    });
    let list = |own: &[String], of_mesh: Option<&Vec<String>>| match own {
        [] => of_mesh.cloned().unwrap_or_default(),
        own => own.to_vec(),
    };
    let parameters = TlsParameters {
        tls_minimum_protocol_version: version(server.min_version).or(of_mesh).map_or(0, Into::into),
        tls_maximum_protocol_version: version(server.max_version).map_or(0, Into::into),
        cipher_suites: list(&server.cipher_suites, mesh.map(|mesh| &mesh.cipher_suites)),
        ecdh_curves: list(&server.ecdh_curves, mesh.map(|mesh| &mesh.ecdh_curves)),
        ..TlsParameters::default()
    };
    (parameters != TlsParameters::default()).then_some(parameters)
}
