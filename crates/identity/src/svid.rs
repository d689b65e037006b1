//! An X509-SVID with its key: what a workload shows to say who it is (X509-SVID, spiffe.io).

use std::time::SystemTime;

use crate::certificate::{Certificate, CertificateError};
use crate::chain::ChainError;
use crate::key::{KeyError, PrivateKey};
use crate::spiffe::SpiffeId;

/// A certificate chain and the key of its first certificate. `Debug` shows no key.
#[derive(Debug)]
pub struct Svid {
    id: SpiffeId,
    leaf: Certificate,
    intermediates: Vec<Certificate>,
    key: PrivateKey,
}

/// Why a chain and a key are no SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// The chain is damaged, or names nobody.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key is damaged, or another one's.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// One certificate was not issued by the next.
    #[error("the chain is out of order")]
    Chain(#[from] ChainError),
    /// The first certificate is an authority's.
    #[error("the certificate of {0} is an authority's, not a workload's")]
    Authority(SpiffeId),
    /// The chain has no certificate.
    #[error("the chain is empty")]
    Empty,
    /// An id without a path is a trust domain's, not a workload's.
    #[error("{0} has no path: it names a trust domain, not a workload")]
    NoPath(SpiffeId),
}

impl Svid {
    /// Checks that the chain's first certificate is a workload's SVID, that the key is its key, and that each
    /// certificate was issued by the next.
    ///
    /// # Errors
    /// When any of it is not so. The time is not looked at: whoever uses it does.
    pub fn new(chain: Vec<Certificate>, key: PrivateKey) -> Result<Self, SvidError> {
        let mut chain = chain.into_iter();
        let leaf = chain.next().ok_or(SvidError::Empty)?;
        let intermediates: Vec<Certificate> = chain.collect();
        key.check_belongs_to(&leaf)?;
        let id = leaf.spiffe_id()?;
        if leaf.is_authority() {
            return Err(SvidError::Authority(id));
        }
        if id.path().is_empty() {
            return Err(SvidError::NoPath(id));
        }
        let mut issued = &leaf;
        for issuer in &intermediates {
            issued.check_issued_by(issuer)?;
            issued = issuer;
        }
        Ok(Self {
            id,
            leaf,
            intermediates,
            key,
        })
    }

    /// Reads a chain, the leaf first, and its key.
    ///
    /// # Errors
    /// As [`Svid::new`], and when a text is damaged.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SvidError> {
        Self::new(Certificate::chain_from_pem(chain)?, PrivateKey::from_pem(key)?)
    }

    /// Who it says the workload is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The workload's own certificate.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// The certificates to show, the leaf first.
    pub fn chain(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.intermediates)
    }

    /// The certificates to show, the leaf first, in PEM.
    pub fn chain_pem(&self) -> String {
        self.chain().map(Certificate::pem).collect()
    }

    /// The key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The last second in which every certificate of the chain is valid.
    pub fn expires(&self) -> SystemTime {
        self.chain()
            .map(Certificate::not_after)
            .fold(self.leaf.not_after(), SystemTime::min)
    }
}
