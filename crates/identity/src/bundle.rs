//! Trust bundles: which roots an identity of a trust domain is verified against.

use std::collections::BTreeMap;

use crate::certificate::{Certificate, CertificateError};
use crate::limits::MAX_ROOTS;
use crate::trust_domain::TrustDomain;

/// Roots per trust domain. One domain's roots never vouch for another's identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    roots: BTreeMap<TrustDomain, Vec<Certificate>>,
}

/// Why roots are refused. Nothing has been changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// They cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There are none.
    #[error("the trust domain {0} would have no root")]
    Empty(TrustDomain),
    /// There are too many.
    #[error("the trust domain {0} would have {1} roots, more than {MAX_ROOTS}")]
    TooMany(TrustDomain, usize),
    /// One is a leaf: whoever has its key could not sign anyway, so that somebody has mixed up files.
    #[error("the certificate of {0:?} is no authority's and cannot be a root")]
    NotAnAuthority(String),
}

impl TrustBundle {
    /// The bundle of one trust domain.
    ///
    /// # Errors
    /// As [`TrustBundle::replace`].
    pub fn of(domain: TrustDomain, roots: Vec<Certificate>) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        bundle.replace(domain, roots)?;
        Ok(bundle)
    }

    /// The roots of one trust domain, from PEM.
    ///
    /// # Errors
    /// When the text is empty, damaged or holds anything else, and as [`TrustBundle::replace`].
    pub fn from_pem(domain: TrustDomain, text: &[u8]) -> Result<Self, BundleError> {
        Self::of(domain, Certificate::bundle_from_pem(text)?)
    }

    /// Takes `roots` for `domain` in place of those it had. Repetitions are dropped.
    ///
    /// # Errors
    /// When there are none or too many, or one is no authority; those it had stay then.
    pub fn replace(&mut self, domain: TrustDomain, roots: Vec<Certificate>) -> Result<(), BundleError> {
        let mut kept: Vec<Certificate> = Vec::new();
        for root in roots {
            if !root.is_authority() {
                return Err(BundleError::NotAnAuthority(root.subject().to_owned()));
            }
            if !kept.contains(&root) {
                kept.push(root);
            }
        }
        match kept.len() {
            0 => Err(BundleError::Empty(domain)),
            count if count > MAX_ROOTS => Err(BundleError::TooMany(domain, count)),
            _ => {
                self.roots.insert(domain, kept);
                Ok(())
            }
        }
    }

    /// Adds the roots of `other` to those of the same domains.
    ///
    /// # Errors
    /// When a domain would have too many; nothing has been added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), BundleError> {
        let mut merged = self.clone();
        for (domain, roots) in &other.roots {
            let mut all = merged.roots(domain).to_vec();
            all.extend(roots.iter().cloned());
            merged.replace(domain.clone(), all)?;
        }
        *self = merged;
        Ok(())
    }

    /// Forgets a trust domain.
    pub fn remove(&mut self, domain: &TrustDomain) {
        self.roots.remove(domain);
    }

    /// The roots of `domain`; none when it is not known.
    pub fn roots(&self, domain: &TrustDomain) -> &[Certificate] {
        self.roots.get(domain).map_or(&[], Vec::as_slice)
    }

    /// The roots of `domain` in PEM.
    pub fn pem(&self, domain: &TrustDomain) -> String {
        self.roots(domain).iter().map(Certificate::pem).collect()
    }

    /// Every trust domain with its roots, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &[Certificate])> {
        self.roots
            .iter()
            .map(|(domain, roots)| (domain, roots.as_slice()))
    }

    /// Whether no trust domain is known.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }
}
