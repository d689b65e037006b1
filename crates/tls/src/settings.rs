//! What a TLS context is made from: plain mirrors of Envoy's messages in
//! `envoy.extensions.transport_sockets.tls.v3`, with every file, environment variable and secret already read.
//!
//! Each type says what becomes of each field of its message. A field that is not here and that would change traffic or
//! security is for the translator of the message to refuse by name.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

/// Bytes that never appear in a log, dump or error, and that are wiped when they are dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes in.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for the one who makes a key of them.
    pub(crate) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// A version of TLS. TLS 1.0 and 1.1 do not exist here (RFC 8996): as the least version `TLSv1_0` and `TLSv1_1` mean 1.2,
/// as the greatest they are to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLSv1_2`.
    V1_2,
    /// `TLSv1_3`.
    V1_3,
}

/// `TlsParameters`.
///
/// To be refused: `compliance_policies`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsParameters {
    /// `tls_minimum_protocol_version`; `TLS_AUTO` is `None` and means TLS 1.2.
    pub minimum_version: Option<TlsVersion>,
    /// `tls_maximum_protocol_version`; `TLS_AUTO` is `None` and means, as in Envoy, TLS 1.3 for servers and TLS 1.2
    /// for clients.
    pub maximum_version: Option<TlsVersion>,
    /// `cipher_suites`: of TLS 1.2 only, in OpenSSL's or IANA's names, `[A|B]` for equal preference; empty for all.
    /// Suites that BoringSSL knows and rustls does not offer (RSA key exchange, CBC) are left out as long as one is
    /// left; the context tells which. An unknown name is an error.
    pub cipher_suites: Vec<String>,
    /// `ecdh_curves`: key exchange groups in BoringSSL's names, best first; empty for X25519MLKEM768, X25519 and P-256. `P-521` is left
    /// out as long as another group is left.
    pub ecdh_curves: Vec<String>,
    /// `signature_algorithms`: TLS's names (`ecdsa_secp256r1_sha256`), best first, for signing and verifying; empty for
    /// all.
    pub signature_algorithms: Vec<String>,
}

/// `TlsCertificate`.
///
/// Unlike in Envoy, a leaf that is expired or not valid yet is an error, so that a renewal that went wrong cannot take
/// the place of what still works.
///
/// To be refused: `pkcs12`, `private_key_provider`, `password`, `ocsp_staple`, `signed_certificate_timestamp`,
/// `tls_params`. `watched_directory` is for whoever reads the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsCertificate {
    /// `certificate_chain`: PEM, leaf first.
    pub certificate_chain: Vec<u8>,
    /// `private_key`: PEM in PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub private_key: Secret,
}

/// `StringMatcher`, as far as it applies to names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringPattern {
    /// `exact`. For DNS names it compares without case, and the certificate's name may be a wildcard.
    Exact(String),
    /// `prefix`, not empty.
    Prefix(String),
    /// `suffix`, not empty.
    Suffix(String),
    /// `contains`, not empty.
    Contains(String),
    /// `safe_regex`: RE2 over the whole name.
    Regex(String),
}

/// `StringMatcher`. To be refused: `custom`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatcher {
    /// What to look for.
    pub pattern: StringPattern,
    /// `ignore_case`; without effect on [`StringPattern::Regex`].
    pub ignore_case: bool,
}

/// The kind of a subject alternative name. To be refused: `SAN_TYPE_UNSPECIFIED`, `OTHER_NAME` (and `oid` with it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanType {
    /// `EMAIL`.
    Email,
    /// `DNS`.
    Dns,
    /// `URI`.
    Uri,
    /// `IP_ADDRESS`, matched as text (`127.0.0.1`, `::1`).
    IpAddress,
}

/// `SubjectAltNameMatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectAltNameMatcher {
    /// `san_type`.
    pub san_type: SanType,
    /// `matcher`.
    pub matcher: StringMatcher,
}

impl SubjectAltNameMatcher {
    /// The matchers that one entry of the deprecated `match_subject_alt_names` stands for: one of each kind.
    pub fn of_every_type(matcher: &StringMatcher) -> Vec<Self> {
        [SanType::Dns, SanType::Uri, SanType::Email, SanType::IpAddress]
            .map(|san_type| Self {
                san_type,
                matcher: matcher.clone(),
            })
            .to_vec()
    }
}

/// `TrustChainVerification`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustChainVerification {
    /// `VERIFY_TRUST_CHAIN`.
    #[default]
    VerifyTrustChain,
    /// `ACCEPT_UNTRUSTED`: a peer that fails any check is served, and [`crate::ConnectionInfo`] says that it is not
    /// validated.
    AcceptUntrusted,
}

/// `SPIFFECertValidatorConfig` (`envoy.tls.cert_validator.spiffe`).
///
/// To be refused: `workload_trust_domain`. `trust_bundles` is read by [`SpiffeValidator::from_bundle_map`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpiffeValidator {
    /// `trust_domains`: the bundle of each, PEM, by the domain's name.
    pub trust_domains: BTreeMap<String, Vec<u8>>,
}

/// `CertificateValidationContext`.
///
/// To be refused: `ca_certificate_provider_instance`, `system_root_certs`, `require_signed_certificate_timestamp`,
/// other `custom_validator_config`s than the SPIFFE one. `watched_directory` is for whoever reads the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateValidationContext {
    /// `trusted_ca`: PEM. Intermediates may be trusted like roots, as Envoy's partial chains.
    pub trusted_ca: Option<Vec<u8>>,
    /// `crl`: PEM, for every authority of the chain, or for the leaf's issuer with `only_verify_leaf_cert_crl`.
    pub crl: Option<Vec<u8>>,
    /// `only_verify_leaf_cert_crl`.
    pub only_verify_leaf_cert_crl: bool,
    /// `verify_certificate_spki`: Base64 of the SHA-256 of the leaf's public key.
    pub verify_certificate_spki: Vec<String>,
    /// `verify_certificate_hash`: SHA-256 of the leaf in hexadecimal, with colons or without.
    pub verify_certificate_hash: Vec<String>,
    /// `match_typed_subject_alt_names`, of which one must match. For `match_subject_alt_names` see
    /// [`SubjectAltNameMatcher::of_every_type`].
    pub match_typed_subject_alt_names: Vec<SubjectAltNameMatcher>,
    /// `allow_expired_certificate`: neither an expired nor a not yet valid certificate is refused.
    pub allow_expired_certificate: bool,
    /// `trust_chain_verification`.
    pub trust_chain_verification: TrustChainVerification,
    /// `max_verify_depth`: certificates between the leaf and the anchor, and the anchor. Chains of more than six
    /// intermediates are refused whatever it says.
    pub max_verify_depth: Option<u32>,
    /// `suppress_client_ca_list`: a server does not name its authorities when it asks for a certificate.
    pub suppress_client_ca_list: bool,
    /// `custom_validator_config` of the SPIFFE kind. `trusted_ca` then has no effect, as in Envoy, and `crl` and
    /// `max_verify_depth` are errors, because Envoy would ignore them.
    pub spiffe: Option<SpiffeValidator>,
}

impl CertificateValidationContext {
    /// Whether no certificate would be judged by it: it has neither authorities nor pins.
    #[must_use]
    pub fn judges_nothing(&self) -> bool {
        self.trusted_ca.is_none()
            && self.spiffe.is_none()
            && self.verify_certificate_spki.is_empty()
            && self.verify_certificate_hash.is_empty()
    }

    /// `CombinedCertificateValidationContext`: these defaults with a secret merged into them, by the rules of protobuf
    /// (single values are replaced when the secret has them, lists are joined).
    #[must_use]
    pub fn merged_with(&self, secret: &Self) -> Self {
        let mut merged = self.clone();
        merged.trusted_ca = secret.trusted_ca.clone().or(merged.trusted_ca);
        merged.crl = secret.crl.clone().or(merged.crl);
        merged.spiffe = secret.spiffe.clone().or(merged.spiffe);
        merged.max_verify_depth = secret.max_verify_depth.or(merged.max_verify_depth);
        merged.only_verify_leaf_cert_crl |= secret.only_verify_leaf_cert_crl;
        merged.allow_expired_certificate |= secret.allow_expired_certificate;
        merged.suppress_client_ca_list |= secret.suppress_client_ca_list;
        if secret.trust_chain_verification != TrustChainVerification::default() {
            merged.trust_chain_verification = secret.trust_chain_verification;
        }
        merged
            .verify_certificate_spki
            .extend_from_slice(&secret.verify_certificate_spki);
        merged
            .verify_certificate_hash
            .extend_from_slice(&secret.verify_certificate_hash);
        merged
            .match_typed_subject_alt_names
            .extend_from_slice(&secret.match_typed_subject_alt_names);
        merged
    }
}

/// `CommonTlsContext`.
///
/// To be refused: `tls_certificate_provider_instance`, `custom_tls_certificate_selector`, `custom_handshaker`,
/// `key_log`, the deprecated certificate providers. The `*_sds_secret_config`s are for whoever fetches secrets; see
/// [`crate::Rotation`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommonTlsContext {
    /// `tls_params`.
    pub tls_params: TlsParameters,
    /// `tls_certificates`. A server needs one at least, a client has one at most.
    pub tls_certificates: Vec<TlsCertificate>,
    /// `alpn_protocols`, best first.
    pub alpn_protocols: Vec<String>,
    /// `validation_context`. Without it, and with an empty one, nothing is verified.
    pub validation_context: Option<CertificateValidationContext>,
}

/// `DownstreamTlsContext`.
///
/// `ocsp_staple_policy`: only `LENIENT_STAPLING`, which with no staple does nothing; the others are to be refused.
/// `session_ticket_keys` and its SDS kind are to be refused. `disable_stateful_session_resumption` and
/// `session_timeout` need no refusal: no session is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownstreamTlsContext {
    /// `common_tls_context`.
    pub common: CommonTlsContext,
    /// `require_client_certificate`. Without a validation context it is an error, because nothing would be verified.
    pub require_client_certificate: bool,
    /// `require_sni`: a client that names no server, or none of the certificates', is refused.
    pub require_sni: bool,
    /// `full_scan_certs_on_sni_mismatch`.
    pub full_scan_certs_on_sni_mismatch: bool,
    /// `prefer_client_ciphers`.
    pub prefer_client_ciphers: bool,
    /// Whether clients get session tickets, with keys that this context alone has: Envoy's
    /// `!disable_stateless_session_resumption`. Resumption skips the verification of the client, so the mesh leaves it
    /// off; and the keys are behind a lock, which handshakes otherwise do without.
    pub session_tickets: bool,
}

/// `UpstreamTlsContext`.
///
/// `allow_renegotiation` is to be refused. `max_session_keys` needs no refusal: no session is resumed.
/// `enforce_rsa_key_usage` neither: it is always enforced by what rustls offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTlsContext {
    /// `common_tls_context`.
    pub common: CommonTlsContext,
    /// `sni`; empty for none.
    pub sni: String,
    /// `auto_host_sni`: the endpoint's host name takes the place of `sni` where it has one.
    pub auto_host_sni: bool,
    /// `auto_sni_san_validation`: the server's certificate must have the DNS name that was sent as SNI, in place of
    /// `match_typed_subject_alt_names`. A connection without SNI then fails.
    pub auto_sni_san_validation: bool,
}

/// Which parts of a context come as secrets, later than its settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// The certificates with their keys (`tls_certificate_sds_secret_configs`), or some of them.
    pub certificates: bool,
    /// The validation context (`validation_context_sds_secret_config`, alone or combined with defaults).
    pub validation: bool,
}
