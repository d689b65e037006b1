//! Certificates, revocation lists and keys from PEM (RFC 7468), whole or not at all.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::certificate::Certificate;
use crate::limits::MAX_CERTIFICATES_PER_BUNDLE;
use crate::refusal::ContextError;
use crate::settings::TlsCertificate;

/// A certificate chain with its key, and the leaf read. Clones share them.
#[derive(Clone)]
pub struct Identity {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) leaf: Arc<Certificate>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("leaf", &self.leaf.subject)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Loads a chain and its key, which must be of the chain's leaf, and which must be valid at `now`.
    ///
    /// # Errors
    /// What is wrong, without a part of the key.
    pub fn load(source: &TlsCertificate, now: SystemTime) -> Result<Self, ContextError> {
        const WHAT: &str = "certificate_chain";
        let chain = certificates(WHAT, &source.certificate_chain)?;
        let read = read_all(WHAT, &chain)?;
        let leaf = read
            .into_iter()
            .next()
            .ok_or(ContextError::Empty { what: WHAT })?;
        check_validity(WHAT, &[&leaf], now)?;
        let key =
            PrivateKeyDer::from_pem_slice(source.private_key.reveal()).map_err(|_| ContextError::Key)?;
        let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|_| ContextError::Key)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| ContextError::KeyMismatch)?;
        Ok(Self {
            key: Arc::new(key),
            leaf: Arc::new(leaf),
        })
    }

    /// Loads several, all of which must be good.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub(crate) fn load_all(sources: &[TlsCertificate], now: SystemTime) -> Result<Vec<Self>, ContextError> {
        sources.iter().map(|source| Self::load(source, now)).collect()
    }

    /// The leaf.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.leaf
    }
}

/// Loads the certificates of a bundle, of which one at least must be valid at `now`.
pub(crate) fn bundle(
    what: &'static str,
    pem: &[u8],
    now: SystemTime,
) -> Result<Vec<(CertificateDer<'static>, Certificate)>, ContextError> {
    let certificates = certificates(what, pem)?;
    let read = read_all(what, &certificates)?;
    check_validity(what, &read.iter().collect::<Vec<_>>(), now)?;
    Ok(certificates.into_iter().zip(read).collect())
}

/// Loads revocation lists.
pub(crate) fn revocation_lists(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, ContextError> {
    sections(what, pem)
}

/// Reads every certificate of `pem`, for dumps, pages and clocks: which there are, and how long they are valid.
///
/// # Errors
/// When there is none, or one is damaged.
pub fn read_certificates(pem: &[u8]) -> Result<Vec<Certificate>, ContextError> {
    const WHAT: &str = "certificate";
    read_all(WHAT, &certificates(WHAT, pem)?)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ContextError> {
    sections(what, pem)
}

fn sections<T: PemObject>(what: &'static str, pem: &[u8]) -> Result<Vec<T>, ContextError> {
    let mut found = Vec::new();
    for section in T::pem_slice_iter(pem) {
        found.push(section.map_err(|error| ContextError::Pem {
            what,
            reason: words(&error),
        })?);
        if found.len() > MAX_CERTIFICATES_PER_BUNDLE {
            return Err(ContextError::TooMany {
                what,
                limit: MAX_CERTIFICATES_PER_BUNDLE,
            });
        }
    }
    // A file that was cut inside its last line of "BEGIN" holds a section that no reader sees.
    let begun = pem.windows(BEGIN.len()).filter(|window| window == &BEGIN).count();
    let ended = pem.windows(END.len()).filter(|window| window == &END).count();
    match found.is_empty() {
        _ if begun != ended => Err(ContextError::Pem {
            what,
            reason: "a section is not closed",
        }),
        true => Err(ContextError::Empty { what }),
        false => Ok(found),
    }
}

const BEGIN: &[u8] = b"-----BEGIN";
const END: &[u8] = b"-----END";

/// What is wrong, without a part of what was read.
pub(crate) fn words(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "a section is not closed",
        Error::IllegalSectionStart { .. } => "a section does not begin well",
        Error::Base64Decode(_) => "a section is not Base64",
        Error::NoItemsFound => "nothing is in it",
        _ => "it cannot be read",
    }
}

fn read_all(what: &'static str, chain: &[CertificateDer<'_>]) -> Result<Vec<Certificate>, ContextError> {
    let read = |(index, der): (usize, &CertificateDer<'_>)| {
        Certificate::from_der(der).map_err(|reason| ContextError::Unreadable {
            what,
            number: index + 1,
            reason,
        })
    };
    chain.iter().enumerate().map(read).collect()
}

/// One at least must be valid at `now`.
pub(crate) fn check_bundle(
    what: &'static str,
    certificates: &[&Certificate],
    now: SystemTime,
) -> Result<(), ContextError> {
    check_validity(what, certificates, now)
}

/// One at least must be valid; the error tells of the one that was valid last, or will be first.
fn check_validity(
    what: &'static str,
    certificates: &[&Certificate],
    now: SystemTime,
) -> Result<(), ContextError> {
    if certificates
        .iter()
        .any(|certificate| certificate.is_valid_at(now))
    {
        return Ok(());
    }
    let expired = certificates.iter().map(|certificate| certificate.not_after);
    let expired = expired.filter(|end| *end < now).max();
    let coming = certificates
        .iter()
        .map(|certificate| certificate.not_before)
        .min();
    match (expired, coming) {
        (Some(not_after), _) => Err(ContextError::Expired { what, not_after }),
        (None, Some(not_before)) => Err(ContextError::NotYetValid { what, not_before }),
        (None, None) => Err(ContextError::Empty { what }),
    }
}
