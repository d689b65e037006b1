//! `CertificateValidationContext`: by what a peer's certificate is judged.

use api_envoy::any;
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as pb;
use api_envoy::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification as ProtoVerification;
use api_envoy::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType as ProtoSanType;
use api_envoy::envoy::r#type::matcher::v3 as matcher;
use api_envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use tls::settings::{
    CertificateValidationContext, SanType, SpiffeValidator, StringMatcher, StringPattern,
    SubjectAltNameMatcher, TrustChainVerification,
};

use super::source;

/// `watched_directory` concerns secrets only.
#[allow(
    deprecated,
    reason = "old configuration still names subjects without their kind"
)]
pub(super) fn context(
    proto: &pb::CertificateValidationContext,
) -> ConfigResult<CertificateValidationContext> {
    refuse_unsupported(&[
        (
            "ca_certificate_provider_instance",
            proto.ca_certificate_provider_instance.is_some(),
        ),
        ("system_root_certs", proto.system_root_certs.is_some()),
        (
            "require_signed_certificate_timestamp",
            proto.require_signed_certificate_timestamp == Some(true),
        ),
    ])?;
    let mut names = Vec::new();
    for (index, proto) in proto.match_typed_subject_alt_names.iter().enumerate() {
        names.push(typed_name(proto).within_index("match_typed_subject_alt_names", index)?);
    }
    if !names.is_empty() && !proto.match_subject_alt_names.is_empty() {
        return Err(ConfigError::at(
            "match_subject_alt_names",
            "excludes match_typed_subject_alt_names",
        ));
    }
    for (index, proto) in proto.match_subject_alt_names.iter().enumerate() {
        let matcher = string_matcher(proto).within_index("match_subject_alt_names", index)?;
        names.extend(SubjectAltNameMatcher::of_every_type(&matcher));
    }
    Ok(CertificateValidationContext {
        trusted_ca: source::optional("trusted_ca", proto.trusted_ca.as_ref())?,
        crl: source::optional("crl", proto.crl.as_ref())?,
        only_verify_leaf_cert_crl: proto.only_verify_leaf_cert_crl,
        verify_certificate_spki: proto.verify_certificate_spki.clone(),
        verify_certificate_hash: proto.verify_certificate_hash.clone(),
        match_typed_subject_alt_names: names,
        allow_expired_certificate: proto.allow_expired_certificate,
        trust_chain_verification: match ProtoVerification::try_from(proto.trust_chain_verification) {
            Ok(ProtoVerification::VerifyTrustChain) => TrustChainVerification::VerifyTrustChain,
            Ok(ProtoVerification::AcceptUntrusted) => TrustChainVerification::AcceptUntrusted,
            Err(_) => return Err(ConfigError::at("trust_chain_verification", "unknown value")),
        },
        max_verify_depth: proto.max_verify_depth,
        suppress_client_ca_list: proto.suppress_client_ca_list,
        spiffe: custom_validator(proto).within("custom_validator_config")?,
    })
}

fn typed_name(proto: &pb::SubjectAltNameMatcher) -> ConfigResult<SubjectAltNameMatcher> {
    let san_type = match ProtoSanType::try_from(proto.san_type) {
        Ok(ProtoSanType::Email) => SanType::Email,
        Ok(ProtoSanType::Dns) => SanType::Dns,
        Ok(ProtoSanType::Uri) => SanType::Uri,
        Ok(ProtoSanType::IpAddress) => SanType::IpAddress,
        Ok(ProtoSanType::Unspecified) => return Err(ConfigError::at("san_type", "must be set")),
        Ok(_) => return Err(ConfigError::unsupported("san_type")),
        Err(_) => return Err(ConfigError::at("san_type", "unknown value")),
    };
    let matcher = proto.matcher.as_ref();
    let matcher = matcher.ok_or_else(|| ConfigError::at("matcher", "must be set"))?;
    Ok(SubjectAltNameMatcher {
        san_type,
        matcher: string_matcher(matcher).within("matcher")?,
    })
}

fn string_matcher(proto: &matcher::StringMatcher) -> ConfigResult<StringMatcher> {
    let pattern = match &proto.match_pattern {
        None => return Err(ConfigError::at("match_pattern", "missing")),
        Some(MatchPattern::Exact(text)) => StringPattern::Exact(text.clone()),
        Some(MatchPattern::Prefix(text)) => StringPattern::Prefix(not_empty("prefix", text)?),
        Some(MatchPattern::Suffix(text)) => StringPattern::Suffix(not_empty("suffix", text)?),
        Some(MatchPattern::Contains(text)) => StringPattern::Contains(not_empty("contains", text)?),
        Some(MatchPattern::SafeRegex(regex)) => {
            StringPattern::Regex(not_empty("regex", &regex.regex).within("safe_regex")?)
        }
        Some(MatchPattern::Custom(_)) => return Err(ConfigError::unsupported("custom")),
    };
    Ok(StringMatcher {
        pattern,
        ignore_case: proto.ignore_case,
    })
}

fn not_empty(field: &str, text: &str) -> ConfigResult<String> {
    match text {
        "" => Err(ConfigError::at(field, "must not be empty")),
        text => Ok(text.to_owned()),
    }
}

fn custom_validator(proto: &pb::CertificateValidationContext) -> ConfigResult<Option<SpiffeValidator>> {
    let Some(extension) = &proto.custom_validator_config else {
        return Ok(None);
    };
    let typed = extension.typed_config.as_ref();
    let typed = typed.ok_or_else(|| ConfigError::at("typed_config", "a configuration is needed"))?;
    let spiffe = any::unpack::<pb::SpiffeCertValidatorConfig>(typed)
        .map_err(|error| ConfigError::at("typed_config", error.to_string()))?;
    spiffe_validator(&spiffe).map(Some).within("typed_config")
}

fn spiffe_validator(proto: &pb::SpiffeCertValidatorConfig) -> ConfigResult<SpiffeValidator> {
    if let Some(bundles) = source::optional("trust_bundles", proto.trust_bundles.as_ref())? {
        return SpiffeValidator::from_bundle_map(&bundles)
            .map_err(|error| ConfigError::at("trust_bundles", error.to_string()));
    }
    let mut validator = SpiffeValidator::default();
    for (index, domain) in proto.trust_domains.iter().enumerate() {
        let bundle =
            refuse_unsupported(&[("workload_trust_domain", !domain.workload_trust_domain.is_empty())])
                .and_then(|()| source::needed("trust_bundle", domain.trust_bundle.as_ref()))
                .within_index("trust_domains", index)?;
        if validator
            .trust_domains
            .insert(domain.name.clone(), bundle)
            .is_some()
        {
            return Err(ConfigError::at("name", "is there twice")).within_index("trust_domains", index);
        }
    }
    if validator.trust_domains.is_empty() {
        return Err(ConfigError::at("trust_domains", "must not be empty"));
    }
    Ok(validator)
}
