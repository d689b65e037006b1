//! Whether a peer is who it should be: Envoy's `CertificateValidationContext` over rustls's verifiers.
//!
//! The order is Envoy's: the chain, then names, then pins; the first failure counts.

mod chain;
mod failure;
mod heard;
mod names;
mod pins;
mod revocation;
mod spiffe;

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme};
use webpki::KeyUsage;

use self::chain::{Anchors, ChainRules};
use self::names::NameMatcher;
use self::pins::Pins;
use self::spiffe::TrustDomains;
use crate::certificate::Certificate;
use crate::limits::MAX_NAMES_IN_FAILURE;
use crate::parameters::{Parameters, Side};
use crate::refusal::ContextError;
use crate::settings::{CertificateValidationContext, TrustChainVerification};

pub use self::failure::VerificationFailure;
pub(crate) use self::heard::heard;
use self::names::dns_name_covers;

/// Which authorities a chain must end at.
enum Trust {
    /// Any, and none.
    Anyone,
    Authorities(Arc<Anchors>),
    Domains(TrustDomains),
}

/// What the name that a client asked for means for the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerNameRule {
    /// Nothing, as Envoy has it.
    Ignored,
    /// It must be one of the certificate's DNS names, whatever else is configured.
    Required,
}

/// Everything that one context asks of its peers.
pub(crate) struct PeerRules {
    trust: Trust,
    chain: ChainRules,
    names: Vec<NameMatcher>,
    pins: Pins,
    accept_untrusted: bool,
    hints: Vec<DistinguishedName>,
}

impl PeerRules {
    /// Compiles `settings`, for peers of the side that is not `side`.
    pub(crate) fn load(
        settings: &CertificateValidationContext,
        side: Side,
        algorithms: WebPkiSupportedAlgorithms,
        now: SystemTime,
    ) -> Result<Self, ContextError> {
        check_combination(settings)?;
        let trust = match (&settings.spiffe, &settings.trusted_ca) {
            (Some(spiffe), _) => Trust::Domains(TrustDomains::load(spiffe, now)?),
            (None, Some(pem)) => Trust::Authorities(Anchors::shared("trusted_ca", pem, now)?),
            (None, None) => Trust::Anyone,
        };
        let usage = match side {
            Side::Server => KeyUsage::client_auth(),
            Side::Client => KeyUsage::server_auth(),
        };
        let names = settings.match_typed_subject_alt_names.iter();
        Ok(Self {
            hints: hints(settings, &trust),
            trust,
            chain: ChainRules::load(settings, usage, algorithms)?,
            names: names.map(NameMatcher::compile).collect::<Result<_, _>>()?,
            pins: Pins::load(settings)?,
            accept_untrusted: settings.trust_chain_verification == TrustChainVerification::AcceptUntrusted,
        })
    }

    /// Refuses defaults that could not be part of any rules, before the secret is there that they are merged with.
    pub(crate) fn check_defaults(
        settings: &CertificateValidationContext,
        now: SystemTime,
    ) -> Result<(), ContextError> {
        for matcher in &settings.match_typed_subject_alt_names {
            NameMatcher::compile(matcher)?;
        }
        Pins::load(settings)?;
        if let Some(pem) = &settings.trusted_ca {
            Anchors::shared("trusted_ca", pem, now)?;
        }
        Ok(())
    }

    /// The first certificate of the trust bundle, which stands for it where one is shown.
    pub(crate) fn authority(&self) -> Option<&Certificate> {
        match &self.trust {
            Trust::Anyone => None,
            Trust::Authorities(anchors) => anchors.first(),
            Trust::Domains(domains) => domains.first(),
        }
    }

    /// Whether nothing at all is asked of a peer.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.trust, Trust::Anyone) && self.names.is_empty() && self.pins.is_empty()
    }

    /// Whether a peer that fails is served nevertheless.
    pub(crate) fn accepts_untrusted(&self) -> bool {
        self.accept_untrusted
    }

    /// Whether the peer may be believed; its certificate, if so.
    pub(crate) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Certificate, VerificationFailure> {
        let peer = Certificate::from_der(leaf).map_err(VerificationFailure::Malformed)?;
        match &self.trust {
            Trust::Anyone => {}
            Trust::Authorities(anchors) => self.chain.verify(anchors, leaf, intermediates, now)?,
            Trust::Domains(domains) => {
                self.chain
                    .verify(domains.anchors(&peer)?, leaf, intermediates, now)?;
            }
        }
        if !self.names.is_empty() && !self.names.iter().any(|matcher| matcher.matches(&peer)) {
            return Err(VerificationFailure::SubjectAltNames(some_names(peer.names())));
        }
        if !self.pins.is_empty() && !self.pins.matches(&peer) {
            return Err(VerificationFailure::Pins);
        }
        Ok(peer)
    }

    /// These rules without the configured names, for clients that compare the server's name in their place.
    pub(crate) fn without_names(mut self) -> Self {
        self.names.clear();
        self
    }
}

/// Refuses settings that verify less than they seem to.
fn check_combination(settings: &CertificateValidationContext) -> Result<(), ContextError> {
    let invalid = |what, reason: &str| Err(ContextError::invalid(what, reason));
    let trusted = settings.trusted_ca.is_some();
    if settings.spiffe.is_some() {
        let ignored = "has no effect with SPIFFE trust domains";
        return match (&settings.crl, settings.max_verify_depth) {
            (Some(_), _) => invalid("crl", ignored),
            (None, Some(_)) => invalid("max_verify_depth", ignored),
            (None, None) => Ok(()),
        };
    }
    if !trusted && !settings.match_typed_subject_alt_names.is_empty() {
        return invalid(
            "match_typed_subject_alt_names",
            "names prove nothing without trusted_ca",
        );
    }
    if !trusted && settings.crl.is_some() {
        return invalid("crl", "lists prove nothing without trusted_ca");
    }
    Ok(())
}

fn hints(settings: &CertificateValidationContext, trust: &Trust) -> Vec<DistinguishedName> {
    match trust {
        Trust::Authorities(anchors) if !settings.suppress_client_ca_list => {
            anchors.subjects().map(DistinguishedName::in_sequence).collect()
        }
        _ => Vec::new(),
    }
}

fn some_names(names: impl Iterator<Item = String>) -> Vec<String> {
    names.take(MAX_NAMES_IN_FAILURE).collect()
}

/// The rules in the form in which rustls asks them, for either side.
pub(crate) struct Verifier {
    rules: Arc<PeerRules>,
    server_name: ServerNameRule,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
    schemes: Vec<SignatureScheme>,
}

impl Verifier {
    pub(crate) fn new(rules: Arc<PeerRules>, parameters: &Parameters) -> Self {
        let algorithms = parameters.provider.signature_verification_algorithms;
        let mut schemes = algorithms.supported_schemes();
        if let Some(allowed) = &parameters.signature_schemes {
            schemes = allowed
                .iter()
                .filter(|scheme| schemes.contains(scheme))
                .copied()
                .collect();
        }
        Self {
            rules,
            server_name: ServerNameRule::Ignored,
            mandatory: false,
            algorithms,
            schemes,
        }
    }

    /// For servers: whether a client without a certificate is refused.
    pub(crate) fn mandatory(mut self, mandatory: bool) -> Self {
        self.mandatory = mandatory;
        self
    }

    /// For clients: what the server's name means.
    pub(crate) fn server_name(mut self, rule: ServerNameRule) -> Self {
        self.server_name = rule;
        self
    }

    /// The rules that this verifier asks.
    pub(crate) fn rules(&self) -> &PeerRules {
        &self.rules
    }

    /// Whether anything at all is asked of a peer.
    pub(crate) fn asks(&self) -> bool {
        !self.rules.is_empty() || self.server_name == ServerNameRule::Required
    }

    /// Whether the peer passes every check, also where one that does not is served.
    pub(crate) fn believe(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), VerificationFailure> {
        let leaf = self.rules.check(leaf, intermediates, now)?;
        match self.server_name {
            ServerNameRule::Ignored => Ok(()),
            ServerNameRule::Required => check_server_name(&leaf, server_name),
        }
    }

    fn refuse_or_accept(&self, result: Result<(), VerificationFailure>) -> Result<(), Error> {
        match result {
            Err(failure) if !self.rules.accept_untrusted => Err(failure.into_tls()),
            _ => Ok(()),
        }
    }

    fn check_scheme(&self, dss: &DigitallySignedStruct) -> Result<(), Error> {
        match self.schemes.contains(&dss.scheme) {
            true => {
                heard::tell(dss.scheme);
                Ok(())
            }
            false => Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()),
        }
    }

    fn signature_1_2(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_scheme(dss)?;
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn signature_1_3(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_scheme(dss)?;
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }
}

fn check_server_name(
    leaf: &Certificate,
    server_name: Option<&ServerName<'_>>,
) -> Result<(), VerificationFailure> {
    let Some(ServerName::DnsName(name)) = server_name else {
        return Err(VerificationFailure::NoServerName);
    };
    let name = name.as_ref();
    match leaf
        .dns_names
        .iter()
        .any(|pattern| dns_name_covers(pattern, name))
    {
        true => Ok(()),
        false => Err(VerificationFailure::ServerName {
            expected: name.to_owned(),
            presented: some_names(leaf.names()),
        }),
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.rules.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.refuse_or_accept(self.believe(end_entity, intermediates, None, now))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature_1_2(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature_1_3(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.refuse_or_accept(self.believe(end_entity, intermediates, Some(server_name), now))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature_1_2(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature_1_3(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
