//! Envoy's `TlsParameters` in rustls's terms: protocol versions, cipher suites, groups, signature schemes.

use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite, kx_group as group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{
    CipherSuite, NamedGroup, ProtocolVersion, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::refusal::ContextError;
use crate::settings::{TlsParameters, TlsVersion};

/// TLS 1.2 suites: OpenSSL's name, IANA's name, the suite; best first.
static SUITES_1_2: &[(&str, &str, SupportedCipherSuite)] = &[
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
];

/// TLS 1.3 suites, which no setting chooses; best first on processors with AES instructions.
static SUITES_1_3: [SupportedCipherSuite; 3] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Names that BoringSSL knows, for suites without forward secrecy or with CBC, which rustls does not have. Istio lists
/// the first two for every server of the mesh.
const SUITES_NOT_OFFERED: &[&str] = &[
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
];

/// Key exchange groups in BoringSSL's names.
static GROUPS: &[(&str, &dyn SupportedKxGroup)] = &[
    ("X25519", group::X25519),
    ("P-256", group::SECP256R1),
    ("P-384", group::SECP384R1),
    ("X25519MLKEM768", group::X25519MLKEM768),
];

/// Groups that BoringSSL knows and our cryptography does not offer to rustls.
const GROUPS_NOT_OFFERED: &[&str] = &["P-521"];

/// What is offered when nothing is configured, as Envoy 1.40 does: first the hybrid that a quantum computer does not
/// break (draft-ietf-tls-ecdhe-mlkem).
static DEFAULT_GROUPS: [&dyn SupportedKxGroup; 3] = [group::X25519MLKEM768, group::X25519, group::SECP256R1];

const SIGNATURE_SCHEMES: &[(&str, SignatureScheme)] = &[
    ("ecdsa_secp256r1_sha256", SignatureScheme::ECDSA_NISTP256_SHA256),
    ("ecdsa_secp384r1_sha384", SignatureScheme::ECDSA_NISTP384_SHA384),
    ("ecdsa_secp521r1_sha512", SignatureScheme::ECDSA_NISTP521_SHA512),
    ("ed25519", SignatureScheme::ED25519),
    ("rsa_pss_rsae_sha256", SignatureScheme::RSA_PSS_SHA256),
    ("rsa_pss_rsae_sha384", SignatureScheme::RSA_PSS_SHA384),
    ("rsa_pss_rsae_sha512", SignatureScheme::RSA_PSS_SHA512),
    ("rsa_pkcs1_sha256", SignatureScheme::RSA_PKCS1_SHA256),
    ("rsa_pkcs1_sha384", SignatureScheme::RSA_PKCS1_SHA384),
    ("rsa_pkcs1_sha512", SignatureScheme::RSA_PKCS1_SHA512),
];

/// Parameters in rustls's terms.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    pub(crate) provider: CryptoProvider,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    /// The signature schemes that may be used, best first; `None` for all.
    pub(crate) signature_schemes: Option<Vec<SignatureScheme>>,
    /// Names that were left out because nothing here offers them.
    pub(crate) left_out: Vec<String>,
}

/// Which side's defaults apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// Translates `settings`.
pub(crate) fn parameters(settings: &TlsParameters, side: Side) -> Result<Parameters, ContextError> {
    let mut versions = versions(settings, side)?;
    let mut left_out = Vec::new();
    let suites = suites_1_2(&settings.cipher_suites, &mut left_out)?;
    if suites.is_empty() {
        // TLS 1.3 has suites of its own, which nobody can take away.
        versions.retain(|version| version.version == ProtocolVersion::TLSv1_3);
    }
    if versions.is_empty() {
        return Err(unsupported_suite(&settings.cipher_suites.join(",")));
    }
    let mut cipher_suites = SUITES_1_3.to_vec();
    cipher_suites.extend(suites);
    cipher_suites.retain(|suite| versions.contains(&suite.version()));
    let provider = CryptoProvider {
        cipher_suites,
        kx_groups: groups(&settings.ecdh_curves, &mut left_out)?,
        ..aws_lc_rs::default_provider()
    };
    Ok(Parameters {
        provider,
        versions,
        signature_schemes: signature_schemes(&settings.signature_algorithms)?,
        left_out,
    })
}

fn versions(
    settings: &TlsParameters,
    side: Side,
) -> Result<Vec<&'static SupportedProtocolVersion>, ContextError> {
    let minimum = settings.minimum_version.unwrap_or(TlsVersion::V1_2);
    let maximum = settings.maximum_version.unwrap_or(match side {
        Side::Server => TlsVersion::V1_3,
        // Envoy's clients stop at TLS 1.2 unless told otherwise. A minimum above it says otherwise.
        Side::Client => minimum,
    });
    let mut versions = Vec::new();
    if maximum >= TlsVersion::V1_3 {
        versions.push(&rustls::version::TLS13);
    }
    if minimum <= TlsVersion::V1_2 {
        versions.push(&rustls::version::TLS12);
    }
    if minimum > maximum {
        return Err(ContextError::invalid(
            "tls_minimum_protocol_version",
            "is above tls_maximum_protocol_version",
        ));
    }
    Ok(versions)
}

fn suites_1_2(
    names: &[String],
    left_out: &mut Vec<String>,
) -> Result<Vec<SupportedCipherSuite>, ContextError> {
    let all = || SUITES_1_2.iter().map(|(_, _, suite)| *suite);
    if names.is_empty() {
        return Ok(all().collect());
    }
    let mut suites = Vec::new();
    let single = names
        .iter()
        .flat_map(|name| name.trim_start_matches('[').trim_end_matches(']').split('|'));
    for name in single {
        let known = SUITES_1_2
            .iter()
            .find(|(openssl, iana, _)| *openssl == name || *iana == name);
        match known {
            Some((_, _, suite)) => suites.push(*suite),
            None if SUITES_NOT_OFFERED.contains(&name) => left_out.push(name.to_owned()),
            None => return Err(unsupported_suite(name)),
        }
    }
    Ok(suites)
}

fn unsupported_suite(name: &str) -> ContextError {
    unsupported(
        "cipher_suites",
        name,
        SUITES_1_2.iter().map(|(openssl, _, _)| *openssl),
    )
}

fn groups(
    names: &[String],
    left_out: &mut Vec<String>,
) -> Result<Vec<&'static dyn SupportedKxGroup>, ContextError> {
    if names.is_empty() {
        return Ok(DEFAULT_GROUPS.to_vec());
    }
    let refuse = |name: &str| unsupported("ecdh_curves", name, GROUPS.iter().map(|(name, _)| *name));
    let mut groups = Vec::new();
    for name in names {
        match GROUPS.iter().find(|(known, _)| known == name) {
            Some((_, group)) => groups.push(*group),
            None if GROUPS_NOT_OFFERED.contains(&name.as_str()) => left_out.push(name.clone()),
            None => return Err(refuse(name)),
        }
    }
    if groups.is_empty() {
        return Err(refuse(&names.join(",")));
    }
    Ok(groups)
}

fn signature_schemes(names: &[String]) -> Result<Option<Vec<SignatureScheme>>, ContextError> {
    if names.is_empty() {
        return Ok(None);
    }
    let scheme = |name: &String| {
        let known = SIGNATURE_SCHEMES.iter().find(|(known, _)| known == name);
        known.map(|(_, scheme)| *scheme).ok_or_else(|| {
            unsupported(
                "signature_algorithms",
                name,
                SIGNATURE_SCHEMES.iter().map(|(name, _)| *name),
            )
        })
    };
    names.iter().map(scheme).collect::<Result<_, _>>().map(Some)
}

fn unsupported(
    what: &'static str,
    name: &str,
    supported: impl Iterator<Item = &'static str>,
) -> ContextError {
    ContextError::Unsupported {
        what,
        name: name.to_owned(),
        supported: supported.collect::<Vec<_>>().join(", "),
    }
}

/// Whether a server with an ECDSA key can use the suite.
pub(crate) fn fits_elliptic_keys(suite: CipherSuite) -> bool {
    let name = cipher_name(suite);
    name.starts_with("TLS_") || name.starts_with("ECDHE-ECDSA-")
}

/// OpenSSL's name of a suite, as `%DOWNSTREAM_TLS_CIPHER%` prints it.
pub(crate) fn cipher_name(negotiated: CipherSuite) -> &'static str {
    match negotiated {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => SUITES_1_2
            .iter()
            .find(|(_, _, suite)| suite.suite() == other)
            .map_or("", |(openssl, _, _)| *openssl),
    }
}

/// BoringSSL's name of a key exchange group.
pub(crate) fn group_name(negotiated: NamedGroup) -> &'static str {
    GROUPS
        .iter()
        .find(|(_, group)| group.name() == negotiated)
        .map_or("", |(name, _)| *name)
}

/// TLS's name of a signature scheme.
pub(crate) fn signature_name(used: SignatureScheme) -> Option<&'static str> {
    SIGNATURE_SCHEMES
        .iter()
        .find(|(_, scheme)| *scheme == used)
        .map(|(name, _)| *name)
}

/// The name of a version, as `%DOWNSTREAM_TLS_VERSION%` prints it.
pub(crate) fn version_name(negotiated: ProtocolVersion) -> &'static str {
    match negotiated {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn suites(names: &[&str]) -> Result<(Vec<CipherSuite>, Vec<String>), String> {
        let settings = TlsParameters {
            maximum_version: Some(TlsVersion::V1_2),
            cipher_suites: strings(names),
            ..TlsParameters::default()
        };
        let parameters = parameters(&settings, Side::Server).map_err(|error| error.to_string())?;
        let suites = parameters.provider.cipher_suites;
        Ok((
            suites.iter().map(SupportedCipherSuite::suite).collect(),
            parameters.left_out,
        ))
    }

    #[test]
    fn suites_keep_the_order_in_which_they_are_named() {
        let (found, left_out) = suites(&[
            "ECDHE-RSA-AES256-GCM-SHA384",
            "[ECDHE-ECDSA-AES128-GCM-SHA256|TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]",
        ])
        .unwrap();
        assert_eq!(
            found,
            [
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            ]
        );
        assert!(left_out.is_empty());
    }

    /// The list that Istio gives to every server of the mesh.
    #[test]
    fn suites_without_forward_secrecy_are_left_out_of_istios_list() {
        let (found, left_out) = suites(&[
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "AES256-GCM-SHA384",
            "AES128-GCM-SHA256",
        ])
        .unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(left_out, ["AES256-GCM-SHA384", "AES128-GCM-SHA256"]);
    }

    #[test]
    fn an_unknown_suite_and_a_list_without_any_are_refused_with_what_there_is() {
        for names in [&["ECDHE-ECDSA-AES128-GCM-SHA256", "RC4-MD5"][..], &["AES128-SHA"]] {
            let error = suites(names).unwrap_err();
            assert!(error.contains(names[names.len() - 1]), "{error}");
            assert!(
                error.contains("there are ECDHE-ECDSA-AES128-GCM-SHA256, "),
                "{error}"
            );
        }
    }

    #[test]
    fn without_a_suite_for_it_there_is_no_tls_1_2_and_tls_1_3_stays() {
        let settings = TlsParameters {
            maximum_version: Some(TlsVersion::V1_3),
            cipher_suites: strings(&["AES128-SHA"]),
            ..TlsParameters::default()
        };
        let parameters = parameters(&settings, Side::Server).unwrap();
        assert!(matches!(&parameters.versions[..], [only] if only.version == ProtocolVersion::TLSv1_3));
        assert_eq!(parameters.provider.cipher_suites.len(), SUITES_1_3.len());
        assert_eq!(parameters.left_out, ["AES128-SHA"]);
    }

    fn version_names(
        side: Side,
        minimum: Option<TlsVersion>,
        maximum: Option<TlsVersion>,
    ) -> Result<Vec<&'static str>, ContextError> {
        let settings = TlsParameters {
            minimum_version: minimum,
            maximum_version: maximum,
            ..TlsParameters::default()
        };
        let versions = parameters(&settings, side)?.versions;
        Ok(versions
            .iter()
            .map(|version| version_name(version.version))
            .collect())
    }

    #[test]
    fn versions_default_as_in_envoy() {
        use TlsVersion::{V1_2, V1_3};
        assert_eq!(
            version_names(Side::Server, None, None).unwrap(),
            ["TLSv1.3", "TLSv1.2"]
        );
        assert_eq!(version_names(Side::Client, None, None).unwrap(), ["TLSv1.2"]);
        assert_eq!(
            version_names(Side::Client, None, Some(V1_3)).unwrap(),
            ["TLSv1.3", "TLSv1.2"]
        );
        assert_eq!(
            version_names(Side::Server, Some(V1_3), None).unwrap(),
            ["TLSv1.3"]
        );
        assert_eq!(
            version_names(Side::Client, Some(V1_3), None).unwrap(),
            ["TLSv1.3"]
        );
        assert!(version_names(Side::Server, Some(V1_3), Some(V1_2)).is_err());
    }

    #[test]
    fn groups_and_signature_schemes_are_known_by_name() {
        let settings = TlsParameters {
            ecdh_curves: strings(&["P-521", "P-384", "X25519MLKEM768"]),
            signature_algorithms: strings(&["rsa_pss_rsae_sha256", "ecdsa_secp256r1_sha256"]),
            ..TlsParameters::default()
        };
        let found = parameters(&settings, Side::Server).unwrap();
        let groups: Vec<_> = found
            .provider
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert_eq!(
            groups,
            [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519MLKEM768]
        );
        assert_eq!(found.left_out, ["P-521"]);
        assert_eq!(
            found.signature_schemes.unwrap(),
            [
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::ECDSA_NISTP256_SHA256
            ]
        );
        for field in ["ecdh_curves", "signature_algorithms"] {
            let mut settings = TlsParameters::default();
            match field {
                "ecdh_curves" => settings.ecdh_curves = strings(&["K-163"]),
                _ => settings.signature_algorithms = strings(&["rsa_pkcs1_sha1"]),
            }
            let error = parameters(&settings, Side::Server).unwrap_err().to_string();
            assert!(
                error.starts_with(field) && error.contains("there are "),
                "{error}"
            );
        }
    }
}
