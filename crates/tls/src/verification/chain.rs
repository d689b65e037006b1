//! Whether a chain ends at a trusted authority (RFC 5280, section 6), with webpki.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{CertRevocationList, EndEntityCert, Error, KeyUsage, RevocationCheckDepth, VerifiedPath};

use super::failure::VerificationFailure;
use super::revocation::Revocation;
use crate::certificate::Certificate;
use crate::pem;
use crate::refusal::ContextError;
use crate::settings::CertificateValidationContext;

/// The authorities that a chain may end at.
#[derive(Clone, Debug)]
pub(crate) struct Anchors {
    entries: Vec<(TrustAnchor<'static>, Certificate)>,
    anchors: Vec<TrustAnchor<'static>>,
}

thread_local! {
    /// The bundle that was loaded last: in a mesh every context has the same.
    static LAST: RefCell<Option<(Vec<u8>, Arc<Anchors>)>> = const { RefCell::new(None) };
}

impl Anchors {
    /// As [`Anchors::load`]; contexts that are made on one thread share what is equal.
    pub(crate) fn shared(what: &'static str, pem: &[u8], now: SystemTime) -> Result<Arc<Self>, ContextError> {
        let last = LAST.with_borrow(|last| {
            let (_, anchors) = last.as_ref().filter(|(known, _)| known == pem)?;
            Some(Arc::clone(anchors))
        });
        if let Some(anchors) = last {
            let certificates: Vec<_> = anchors.entries.iter().map(|(_, read)| read).collect();
            pem::check_bundle(what, &certificates, now)?;
            return Ok(anchors);
        }
        let anchors = Arc::new(Self::load(what, pem, now)?);
        LAST.set(Some((pem.to_vec(), Arc::clone(&anchors))));
        Ok(anchors)
    }

    pub(crate) fn load(what: &'static str, pem: &[u8], now: SystemTime) -> Result<Self, ContextError> {
        let mut entries = Vec::new();
        for (number, (der, certificate)) in pem::bundle(what, pem, now)?.into_iter().enumerate() {
            let anchor =
                webpki::anchor_from_trusted_cert(&der).map_err(|error| ContextError::Unreadable {
                    what,
                    number: number + 1,
                    reason: format!("{error:?}"),
                })?;
            entries.push((anchor.to_owned(), certificate));
        }
        let anchors = entries.iter().map(|(anchor, _)| anchor.clone()).collect();
        Ok(Self { entries, anchors })
    }

    /// The first authority.
    pub(crate) fn first(&self) -> Option<&Certificate> {
        self.entries.first().map(|(_, certificate)| certificate)
    }

    /// The authorities' names, as DER, for the list that a server sends.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|anchor| anchor.subject.as_ref())
    }

    /// Whether some certificate names an issuer's key that neither an authority nor another certificate has. Authorities
    /// of different meshes often have the same name; webpki tries the name and finds a wrong signature, where OpenSSL
    /// says that the issuer is unknown.
    fn lacks_issuer(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> bool {
        let read = |der: &CertificateDer<'_>| Certificate::from_der(der).ok();
        let presented: Vec<Certificate> = std::iter::once(leaf)
            .chain(intermediates)
            .filter_map(read)
            .collect();
        let has_key = |id: &Vec<u8>| {
            let authorities = self.entries.iter().map(|(_, certificate)| certificate);
            let mut candidates = authorities.chain(presented.iter().skip(1));
            candidates.any(|issuer| issuer.subject_key_id.as_ref() == Some(id))
        };
        let mut named = presented
            .iter()
            .filter_map(|certificate| certificate.authority_key_id.as_ref());
        named.any(|id| !has_key(id))
    }

    /// webpki gives anchors no validity; OpenSSL does, and so does this. One of several certificates for the same
    /// authority and key suffices.
    fn is_valid(&self, anchor: &TrustAnchor<'_>, now: SystemTime) -> bool {
        let same = |candidate: &TrustAnchor<'_>| {
            candidate.subject == anchor.subject
                && candidate.subject_public_key_info == anchor.subject_public_key_info
        };
        let mut entries = self.entries.iter();
        entries.any(|(candidate, certificate)| same(candidate) && certificate.is_valid_at(now))
    }
}

/// What is asked of a chain besides its end.
pub(crate) struct ChainRules {
    usage: KeyUsage,
    algorithms: WebPkiSupportedAlgorithms,
    revocation: Option<Revocation>,
    allow_expired: bool,
    max_depth: Option<u32>,
}

impl ChainRules {
    pub(crate) fn load(
        settings: &CertificateValidationContext,
        usage: KeyUsage,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, ContextError> {
        let depth = match settings.only_verify_leaf_cert_crl {
            true => RevocationCheckDepth::EndEntity,
            false => RevocationCheckDepth::Chain,
        };
        let revocation = settings.crl.as_deref().map(|pem| Revocation::load(pem, depth));
        Ok(Self {
            usage,
            algorithms,
            revocation: revocation.transpose()?,
            allow_expired: settings.allow_expired_certificate,
            max_depth: settings.max_verify_depth,
        })
    }

    /// Verifies that `leaf` chains to one of `anchors`.
    pub(crate) fn verify(
        &self,
        anchors: &Anchors,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerificationFailure> {
        self.verify_leniently(anchors, leaf, intermediates, now)
            .map_err(|failure| match failure {
                VerificationFailure::BadSignature if anchors.lacks_issuer(leaf, intermediates) => {
                    VerificationFailure::UntrustedIssuer
                }
                other => other,
            })
    }

    fn verify_leniently(
        &self,
        anchors: &Anchors,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerificationFailure> {
        let failure = match self.verify_at(anchors, leaf, intermediates, now, now) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let about_time = matches!(
            failure,
            VerificationFailure::Expired | VerificationFailure::NotYetValid
        );
        if !self.allow_expired || !about_time {
            return Err(failure);
        }
        // webpki cannot be told to overlook time. Where all certificates of the chain were ever valid together, they
        // were so at the beginning of the youngest one. A chain that never was valid stays refused.
        let presented = std::iter::once(leaf).chain(intermediates);
        let mut result = Err(failure);
        for beginning in presented.filter_map(|der| Certificate::from_der(der).ok()) {
            let since = beginning.not_before.duration_since(SystemTime::UNIX_EPOCH);
            let then = UnixTime::since_unix_epoch(since.unwrap_or_default());
            result = self.verify_at(anchors, leaf, intermediates, now, then);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn verify_at(
        &self,
        anchors: &Anchors,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        then: UnixTime,
    ) -> Result<(), VerificationFailure> {
        let end_entity = EndEntityCert::try_from(leaf).map_err(failure)?;
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let accept = |path: &VerifiedPath<'_>| {
            let depth = path.intermediate_certificates().count() + 1;
            if self.max_depth.is_some_and(|max| depth as u64 > u64::from(max)) {
                return Err(Error::UnknownIssuer);
            }
            if !self.allow_expired && !anchors.is_valid(path.anchor(), moment) {
                return Err(Error::CertExpired {
                    time: now,
                    not_after: now,
                });
            }
            Ok(())
        };
        let lists: Vec<&CertRevocationList<'_>> = match &self.revocation {
            Some(revocation) => revocation.for_chain(leaf, intermediates),
            None => Vec::new(),
        };
        let options = match &self.revocation {
            Some(revocation) => Some(revocation.options(&lists, (now != then).then_some(moment))?),
            None => None,
        };
        end_entity
            .verify_for_usage(
                self.algorithms.all,
                &anchors.anchors,
                intermediates,
                then,
                self.usage,
                options,
                Some(&accept),
            )
            .map(|_| ())
            .map_err(failure)
    }
}

fn failure(error: Error) -> VerificationFailure {
    match error {
        Error::UnknownIssuer | Error::MaximumPathDepthExceeded => VerificationFailure::UntrustedIssuer,
        Error::CertExpired { .. } | Error::InvalidCertValidity => VerificationFailure::Expired,
        Error::CertNotValidYet { .. } => VerificationFailure::NotYetValid,
        Error::CaUsedAsEndEntity => VerificationFailure::AuthorityAsPeer,
        Error::EndEntityUsedAsCa => VerificationFailure::NotAnAuthority,
        Error::CertRevoked => VerificationFailure::Revoked,
        Error::UnknownRevocationStatus => VerificationFailure::RevocationUnknown,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => VerificationFailure::WrongPurpose,
        Error::InvalidSignatureForPublicKey
        | Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => VerificationFailure::BadSignature,
        Error::NameConstraintViolation | Error::PathLenConstraintViolated => {
            VerificationFailure::Constraints(format!("{error:?}"))
        }
        Error::CrlExpired { .. }
        | Error::InvalidCrlSignatureForPublicKey
        | Error::IssuerNotCrlSigner
        | Error::UnsupportedCrlSignatureAlgorithmContext(_) => {
            VerificationFailure::RevocationList(format!("{error:?}"))
        }
        other => VerificationFailure::Malformed(format!("{other:?}")),
    }
}
