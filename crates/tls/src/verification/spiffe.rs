//! `envoy.tls.cert_validator.spiffe`: each trust domain has its own authorities (SPIFFE X.509-SVID, section 5).

use std::collections::HashMap;
use std::time::SystemTime;

use base64::Engine as _;
use serde_json::Value;

use super::chain::Anchors;
use super::failure::VerificationFailure;
use crate::certificate::Certificate;
use crate::limits::MAX_TRUST_DOMAINS;
use crate::refusal::ContextError;
use crate::settings::SpiffeValidator;

/// The authorities by trust domain.
#[derive(Clone, Debug)]
pub(crate) struct TrustDomains(HashMap<String, Anchors>);

impl TrustDomains {
    pub(crate) fn load(settings: &SpiffeValidator, now: SystemTime) -> Result<Self, ContextError> {
        const WHAT: &str = "trust_domains";
        let domains = &settings.trust_domains;
        if domains.is_empty() {
            return Err(ContextError::Empty { what: WHAT });
        }
        if domains.len() > MAX_TRUST_DOMAINS {
            return Err(ContextError::TooMany {
                what: WHAT,
                limit: MAX_TRUST_DOMAINS,
            });
        }
        let load = |(name, pem): (&String, &Vec<u8>)| match name.is_empty() {
            true => Err(ContextError::invalid(WHAT, "a name is empty")),
            false => Ok((name.clone(), Anchors::load("trust_bundle", pem, now)?)),
        };
        domains.iter().map(load).collect::<Result<_, _>>().map(Self)
    }

    /// The first authority of the first trust domain by name.
    pub(crate) fn first(&self) -> Option<&Certificate> {
        let (_, anchors) = self.0.iter().min_by_key(|(name, _)| *name)?;
        anchors.first()
    }

    /// The authorities of the peer's trust domain. Unlike Envoy this takes no certificate with several URIs: one
    /// domain's authority could otherwise vouch for another's identities.
    pub(crate) fn anchors(&self, peer: &Certificate) -> Result<&Anchors, VerificationFailure> {
        if peer.is_authority {
            return Err(VerificationFailure::NotAnSvid);
        }
        let domain = match peer.uris.as_slice() {
            [] => return Err(VerificationFailure::NoTrustBundle(String::new())),
            [uri] => trust_domain(uri),
            _ => return Err(VerificationFailure::NotAnSvid),
        };
        self.0
            .get(domain)
            .ok_or_else(|| VerificationFailure::NoTrustBundle(domain.to_owned()))
    }
}

fn trust_domain(uri: &str) -> &str {
    let rest = uri.strip_prefix("spiffe://").unwrap_or_default();
    rest.split_once('/').map_or("", |(domain, _)| domain)
}

impl SpiffeValidator {
    /// Reads `trust_bundles`: a SPIFFE bundle map, `{"trust_domains": {"example.org": {"keys": [...]}}}`, of which the
    /// certificates (`x5c`) of the keys for X.509-SVIDs count.
    ///
    /// # Errors
    /// When the JSON is not such a map, or a domain has no such certificate.
    pub fn from_bundle_map(json: &[u8]) -> Result<Self, ContextError> {
        const WHAT: &str = "trust_bundles";
        let map: Value =
            serde_json::from_slice(json).map_err(|error| ContextError::invalid(WHAT, error.to_string()))?;
        let domains = map["trust_domains"]
            .as_object()
            .ok_or_else(|| ContextError::invalid(WHAT, "it has no \"trust_domains\""))?;
        let mut validator = Self::default();
        for (name, bundle) in domains {
            let keys = bundle["keys"].as_array().into_iter().flatten();
            let svid_keys = keys.filter(|key| key["use"].as_str() == Some("x509-svid"));
            let certificates = svid_keys.filter_map(|key| key["x5c"].as_array()?.first()?.as_str());
            let mut pem = String::new();
            for certificate in certificates {
                pem.push_str(&certificate_pem(certificate).ok_or_else(|| {
                    ContextError::invalid(WHAT, format!("a certificate of \"{name}\" is not Base64"))
                })?);
            }
            if pem.is_empty() {
                return Err(ContextError::invalid(
                    WHAT,
                    format!("\"{name}\" has no certificate for SVIDs"),
                ));
            }
            validator.trust_domains.insert(name.clone(), pem.into_bytes());
        }
        Ok(validator)
    }
}

fn certificate_pem(base64: &str) -> Option<String> {
    base64::engine::general_purpose::STANDARD.decode(base64).ok()?;
    Some(format!(
        "-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trust_domain_is_what_stands_before_the_path() {
        assert_eq!(trust_domain("spiffe://cluster.local/ns/a/sa/b"), "cluster.local");
        for other in [
            "spiffe://cluster.local",
            "https://cluster.local/a",
            "SPIFFE://a/b",
            "",
        ] {
            assert_eq!(trust_domain(other), "", "{other}");
        }
    }

    #[test]
    fn a_bundle_map_gives_the_certificates_for_svids() {
        let json = br#"{"trust_domains": {"a.example": {"keys": [
            {"kty": "EC", "use": "jwt-svid", "kid": "x"},
            {"kty": "EC", "use": "x509-svid", "x5c": ["MIIB"]}]}}}"#;
        let found = SpiffeValidator::from_bundle_map(json).unwrap();
        let pem = String::from_utf8(found.trust_domains["a.example"].clone()).unwrap();
        assert_eq!(
            pem,
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
        );
        for broken in [
            &b"{"[..],
            b"{}",
            br#"{"trust_domains": {"a": {}}}"#,
            br#"{"trust_domains": {"a": {"keys": [{"use": "x509-svid", "x5c": ["?"]}]}}}"#,
        ] {
            assert!(SpiffeValidator::from_bundle_map(broken).is_err());
        }
    }
}
