//! Certificate revocation lists (RFC 5280, section 5).

use std::collections::HashSet;
use std::fmt;

use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificate::{Certificate, serial_number};
use crate::envelope::is_strict;
use crate::limits::{MAX_PEM_BYTES, MAX_ROOTS};
use crate::pem::{self, PemError};

/// Why a revocation list is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Its PEM text is damaged.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// It is not DER, or has bytes after its end.
    #[error("the revocation list is damaged: {0}")]
    Damaged(String),
    /// Nobody here issued it.
    #[error("the revocation list of {issuer:?} was not signed by any of the given authorities")]
    UnknownIssuer {
        /// Who it says has issued it.
        issuer: String,
    },
}

/// A list of certificates that its issuer has taken back.
#[derive(Clone)]
pub struct RevocationList {
    der: Vec<u8>,
    issuer: String,
    issuer_der: Vec<u8>,
    serials: HashSet<String>,
}

impl RevocationList {
    /// Reads every list of `text` and checks that one of `authorities` signed it.
    ///
    /// # Errors
    /// When the text is empty or damaged, or a list is nobody's.
    pub fn from_pem(text: &[u8], authorities: &[Certificate]) -> Result<Vec<Self>, RevocationError> {
        pem::only(text, pem::REVOCATION_LIST, MAX_PEM_BYTES, MAX_ROOTS)?
            .iter()
            .map(|block| Self::from_der(&block.der, authorities))
            .collect()
    }

    /// `text` without what stands between the lists, each of which is whole; who signed them is not looked at.
    ///
    /// # Errors
    /// When the text is empty or damaged.
    pub fn normalize_pem(text: &[u8]) -> Result<String, RevocationError> {
        let blocks = pem::only(text, pem::REVOCATION_LIST, MAX_PEM_BYTES, MAX_ROOTS)?;
        let print =
            |block: &pem::Block| parse(&block.der).map(|_| pem::encode(pem::REVOCATION_LIST, &block.der));
        blocks.iter().map(print).collect()
    }

    /// Each list of `text` in DER; who signed them is not looked at.
    ///
    /// # Errors
    /// When the text is empty or damaged.
    pub fn ders_of_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, RevocationError> {
        let blocks = pem::only(text, pem::REVOCATION_LIST, MAX_PEM_BYTES, MAX_ROOTS)?;
        let read = |block: &pem::Block| parse(&block.der).map(|_| block.der.to_vec());
        blocks.iter().map(read).collect()
    }

    fn from_der(der: &[u8], authorities: &[Certificate]) -> Result<Self, RevocationError> {
        let parsed = parse(der)?;
        let signed_by = |authority: &Certificate| {
            parsed.issuer().as_raw() == authority.subject_der()
                && SubjectPublicKeyInfo::from_der(authority.public_key().der())
                    .is_ok_and(|(_, key)| parsed.verify_signature(&key).is_ok())
        };
        let content = &parsed.tbs_cert_list;
        let (algorithm, signature) = (&parsed.signature_algorithm, &parsed.signature_value);
        let believed =
            *algorithm == content.signature && is_strict(der, content.as_ref(), algorithm, signature);
        if !believed || !authorities.iter().any(signed_by) {
            return Err(RevocationError::UnknownIssuer {
                issuer: parsed.issuer().to_string(),
            });
        }
        Ok(Self {
            der: der.to_vec(),
            issuer: parsed.issuer().to_string(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            serials: parsed
                .iter_revoked_certificates()
                .map(|revoked| serial_number(revoked.raw_serial()))
                .collect(),
        })
    }

    /// Whether `certificate` is on this list.
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        certificate.issuer_der() == self.issuer_der && self.serials.contains(certificate.serial())
    }

    /// The list in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The list in PEM.
    pub fn pem(&self) -> String {
        pem::encode(pem::REVOCATION_LIST, &self.der)
    }
}

/// One list, and nothing after it.
fn parse(der: &[u8]) -> Result<CertificateRevocationList<'_>, RevocationError> {
    let (rest, parsed) =
        CertificateRevocationList::from_der(der).map_err(|e| RevocationError::Damaged(e.to_string()))?;
    match rest.is_empty() {
        true => Ok(parsed),
        false => Err(RevocationError::Damaged("bytes follow it".to_owned())),
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("issuer", &self.issuer)
            .field("revoked", &self.serials.len())
            .finish_non_exhaustive()
    }
}
