//! From Envoy's TLS messages (`envoy.extensions.transport_sockets.tls.v3`) to the settings of crate `tls`: every field
//! is taken, is without effect here, or is refused by name.
//!
//! Files and environment variables are read now, once, as Envoy reads what does not come as a secret. What comes as
//! one is named in [`SecretRefs`], for [`crate::secrets`] to wait for.

mod secret;
mod source;
mod validation;

use std::sync::Arc;

use api_envoy::envoy::extensions::transport_sockets::tls::v3 as pb;
use api_envoy::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use api_envoy::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::{
    OcspStaplePolicy, SessionTicketKeysType,
};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use tls::settings::{
    CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate, TlsParameters, TlsVersion,
    UpstreamTlsContext,
};

pub use secret::{secret, secret_files, shown_secret};

use crate::secrets::{Origins, SecretRef, SecretRefs};

/// Settings, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated<S> {
    /// The settings, without what comes as a secret.
    pub settings: S,
    /// The secrets that the rest comes as.
    pub secrets: SecretRefs,
    /// Where what is known came from.
    pub origins: Origins,
}

/// Reads the TLS settings of a filter chain.
///
/// # Errors
/// A field that is malformed, or would change traffic or security and is not enforced here.
pub fn downstream(proto: &pb::DownstreamTlsContext) -> ConfigResult<Translated<DownstreamTlsContext>> {
    let common = common(proto.common_tls_context.as_ref()).within("common_tls_context")?;
    match OcspStaplePolicy::try_from(proto.ocsp_staple_policy) {
        Ok(OcspStaplePolicy::LenientStapling) => {}
        Ok(_) => return Err(ConfigError::unsupported("ocsp_staple_policy")),
        Err(_) => return Err(ConfigError::at("ocsp_staple_policy", "unknown value")),
    }
    let session_tickets = match &proto.session_ticket_keys_type {
        None => true,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(disabled)) => !disabled,
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            return Err(ConfigError::unsupported("session_ticket_keys"));
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            return Err(ConfigError::unsupported("session_ticket_keys_sds_secret_config"));
        }
    };
    let settings = DownstreamTlsContext {
        common: common.settings,
        require_client_certificate: proto.require_client_certificate.unwrap_or_default(),
        require_sni: proto.require_sni.unwrap_or_default(),
        full_scan_certs_on_sni_mismatch: proto.full_scan_certs_on_sni_mismatch.unwrap_or_default(),
        prefer_client_ciphers: proto.prefer_client_ciphers,
        session_tickets,
    };
    Ok(Translated {
        settings,
        secrets: common.secrets,
        origins: common.origins,
    })
}

/// Reads the TLS settings of a cluster.
///
/// # Errors
/// A field that is malformed, or would change traffic or security and is not enforced here.
pub fn upstream(proto: &pb::UpstreamTlsContext) -> ConfigResult<Translated<UpstreamTlsContext>> {
    refuse_unsupported(&[("allow_renegotiation", proto.allow_renegotiation)])?;
    let common = common(proto.common_tls_context.as_ref()).within("common_tls_context")?;
    let settings = UpstreamTlsContext {
        common: common.settings,
        sni: proto.sni.clone(),
        auto_host_sni: proto.auto_host_sni,
        auto_sni_san_validation: proto.auto_sni_san_validation,
    };
    Ok(Translated {
        settings,
        secrets: common.secrets,
        origins: common.origins,
    })
}

#[allow(deprecated, reason = "the deprecated fields are refused")]
fn common(proto: Option<&pb::CommonTlsContext>) -> ConfigResult<Translated<CommonTlsContext>> {
    let Some(proto) = proto else {
        return Ok(Translated {
            settings: CommonTlsContext::default(),
            secrets: SecretRefs::default(),
            origins: Origins::default(),
        });
    };
    refuse_unsupported(&[
        (
            "tls_certificate_provider_instance",
            proto.tls_certificate_provider_instance.is_some(),
        ),
        (
            "custom_tls_certificate_selector",
            proto.custom_tls_certificate_selector.is_some(),
        ),
        (
            "tls_certificate_certificate_provider",
            proto.tls_certificate_certificate_provider.is_some(),
        ),
        (
            "tls_certificate_certificate_provider_instance",
            proto.tls_certificate_certificate_provider_instance.is_some(),
        ),
        ("custom_handshaker", proto.custom_handshaker.is_some()),
        ("key_log", proto.key_log.is_some()),
    ])?;
    let certificates = proto.tls_certificates.iter().enumerate();
    let mut origins = Origins::default();
    let mut settings = CommonTlsContext {
        tls_params: match &proto.tls_params {
            None => TlsParameters::default(),
            Some(params) => parameters(params).within("tls_params")?,
        },
        tls_certificates: certificates
            .map(|(index, proto)| certificate(proto).within_index("tls_certificates", index))
            .collect::<ConfigResult<_>>()?,
        alpn_protocols: proto.alpn_protocols.clone(),
        validation_context: None,
    };
    let of_certificate = |proto: &pb::TlsCertificate| source::origin(proto.certificate_chain.as_ref());
    origins.certificates = proto.tls_certificates.iter().map(of_certificate).collect();
    let references = proto.tls_certificate_sds_secret_configs.iter().enumerate();
    let mut secrets = SecretRefs {
        certificates: references
            .map(|(index, proto)| {
                secret::reference(proto).within_index("tls_certificate_sds_secret_configs", index)
            })
            .collect::<ConfigResult<_>>()?,
        validation: None,
    };
    if !secrets.certificates.is_empty() && !settings.tls_certificates.is_empty() {
        return Err(ConfigError::at(
            "tls_certificate_sds_secret_configs",
            "excludes tls_certificates",
        ));
    }
    if let Some(kind) = &proto.validation_context_type {
        let validation = validation_context(kind)?;
        settings.validation_context = validation.settings;
        secrets.validation = validation.secret;
        origins.trusted_ca = validation.origin;
    }
    let name = |reference: &SecretRef| Arc::clone(&reference.name);
    origins.certificate_secrets = secrets.certificates.iter().map(name).collect();
    origins.validation_secret = secrets.validation.as_ref().map(name);
    Ok(Translated {
        settings,
        secrets,
        origins,
    })
}

/// What a context is told of validation.
#[derive(Default)]
struct Validation {
    settings: Option<tls::settings::CertificateValidationContext>,
    secret: Option<SecretRef>,
    origin: String,
}

impl Validation {
    fn known(proto: &pb::CertificateValidationContext) -> ConfigResult<Self> {
        Ok(Self {
            settings: Some(validation::context(proto)?),
            secret: None,
            origin: source::origin(proto.trusted_ca.as_ref()),
        })
    }
}

#[allow(deprecated, reason = "the deprecated fields are refused")]
fn validation_context(kind: &ValidationContextType) -> ConfigResult<Validation> {
    const SECRET: &str = "validation_context_sds_secret_config";
    match kind {
        ValidationContextType::ValidationContext(context) => {
            Validation::known(context).within("validation_context")
        }
        ValidationContextType::ValidationContextSdsSecretConfig(proto) => Ok(Validation {
            secret: Some(secret::reference(proto).within(SECRET)?),
            ..Validation::default()
        }),
        ValidationContextType::CombinedValidationContext(combined) => {
            const COMBINED: &str = "combined_validation_context";
            refuse_unsupported(&[
                (
                    "validation_context_certificate_provider",
                    combined.validation_context_certificate_provider.is_some(),
                ),
                (
                    "validation_context_certificate_provider_instance",
                    combined
                        .validation_context_certificate_provider_instance
                        .is_some(),
                ),
            ])
            .within(COMBINED)?;
            let defaults = combined.default_validation_context.as_ref();
            let defaults = defaults.map(Validation::known).transpose();
            let defaults = defaults.within("default_validation_context").within(COMBINED)?;
            let reference = combined.validation_context_sds_secret_config.as_ref();
            let reference = reference.map(secret::reference).transpose();
            Ok(Validation {
                secret: reference.within(SECRET).within(COMBINED)?,
                ..defaults.unwrap_or_default()
            })
        }
        ValidationContextType::ValidationContextCertificateProvider(_) => Err(ConfigError::unsupported(
            "validation_context_certificate_provider",
        )),
        ValidationContextType::ValidationContextCertificateProviderInstance(_) => Err(
            ConfigError::unsupported("validation_context_certificate_provider_instance"),
        ),
    }
}

fn parameters(proto: &pb::TlsParameters) -> ConfigResult<TlsParameters> {
    refuse_unsupported(&[("compliance_policies", !proto.compliance_policies.is_empty())])?;
    Ok(TlsParameters {
        minimum_version: minimum(proto.tls_minimum_protocol_version)
            .within("tls_minimum_protocol_version")?,
        maximum_version: version(proto.tls_maximum_protocol_version)
            .within("tls_maximum_protocol_version")?,
        cipher_suites: proto.cipher_suites.clone(),
        ecdh_curves: proto.ecdh_curves.clone(),
        signature_algorithms: proto.signature_algorithms.clone(),
    })
}

/// Who would take TLS 1.0 too is served from 1.2 on: refusing that would take the listener from everybody else.
fn minimum(value: i32) -> ConfigResult<Option<TlsVersion>> {
    match TlsProtocol::try_from(value) {
        Ok(TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => Ok(Some(TlsVersion::V1_2)),
        _ => version(value),
    }
}

fn version(value: i32) -> ConfigResult<Option<TlsVersion>> {
    match TlsProtocol::try_from(value) {
        Ok(TlsProtocol::TlsAuto) => Ok(None),
        Ok(TlsProtocol::TlSv12) => Ok(Some(TlsVersion::V1_2)),
        Ok(TlsProtocol::TlSv13) => Ok(Some(TlsVersion::V1_3)),
        Ok(TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => {
            Err(ConfigError::new("there is no TLS below 1.2 here (RFC 8996)"))
        }
        Err(_) => Err(ConfigError::new("unknown value")),
    }
}

/// `watched_directory` concerns secrets only.
fn certificate(proto: &pb::TlsCertificate) -> ConfigResult<TlsCertificate> {
    refuse_unsupported(&[
        ("pkcs12", proto.pkcs12.is_some()),
        ("private_key_provider", proto.private_key_provider.is_some()),
        ("password", proto.password.is_some()),
        ("ocsp_staple", proto.ocsp_staple.is_some()),
        (
            "signed_certificate_timestamp",
            !proto.signed_certificate_timestamp.is_empty(),
        ),
        ("tls_params", proto.tls_params.is_some()),
    ])?;
    Ok(TlsCertificate {
        certificate_chain: source::needed("certificate_chain", proto.certificate_chain.as_ref())?,
        private_key: Secret::new(source::needed("private_key", proto.private_key.as_ref())?),
    })
}

#[cfg(test)]
mod tests;
