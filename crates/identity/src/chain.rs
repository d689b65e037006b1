//! Whether one certificate was issued by another, and whether a chain leads to a root (RFC 5280, section 6).
//!
//! This judges what an operator or an authority hands over, before it is used. Peers of a connection are judged by
//! `tls`, whose verifier also knows name constraints and purposes.

use std::time::SystemTime;

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificate::Certificate;
use crate::envelope::is_strict;
use crate::limits::MAX_PATH_SIGNATURES;

/// Why a certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It was not issued by the one it was held against.
    #[error("{subject:?} was not issued by {issuer:?}: {reason}")]
    NotIssuedBy {
        /// Whose certificate.
        subject: String,
        /// Who did not issue it.
        issuer: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Its time has not come or has passed.
    #[error("the certificate of {subject:?} is {what}")]
    NotValidNow {
        /// Whose certificate.
        subject: String,
        /// `expired` or `not yet valid`.
        what: &'static str,
    },
    /// It says something critical that is not understood.
    #[error("the certificate of {subject:?} has an unknown critical extension {extension}")]
    UnknownCritical {
        /// Whose certificate.
        subject: String,
        /// The extension's object identifier.
        extension: String,
    },
    /// No issuer of it leads to a root.
    #[error("no path leads from {subject:?} (issued by {issuer:?}) to a trusted root")]
    NoPath {
        /// Whose certificate.
        subject: String,
        /// Who issued it.
        issuer: String,
    },
    /// There are too many candidates.
    #[error("the search for a path to a root took more than {MAX_PATH_SIGNATURES} signatures")]
    TooManySignatures,
}

impl Certificate {
    /// Whether `issuer` signed this certificate and was allowed to.
    ///
    /// # Errors
    /// [`ChainError::NotIssuedBy`] with what is wrong.
    pub fn check_issued_by(&self, issuer: &Self) -> Result<(), ChainError> {
        let wrong = |reason| ChainError::NotIssuedBy {
            subject: self.subject().to_owned(),
            issuer: issuer.subject().to_owned(),
            reason,
        };
        if self.issuer_der() != issuer.subject_der() {
            return Err(wrong("it names another issuer"));
        }
        if !issuer.is_authority() || !issuer.may_sign_certificates() {
            return Err(wrong("the issuer is no authority"));
        }
        self.check_signature(issuer)
            .map_err(|()| wrong("the signature does not verify"))
    }

    fn check_signature(&self, issuer: &Self) -> Result<(), ()> {
        let (_, parsed) = X509Certificate::from_der(self.der()).map_err(|_| ())?;
        // The inner algorithm is signed, the outer is not: they have to agree (RFC 5280, section 4.1.1.2).
        let content = &parsed.tbs_certificate;
        let (algorithm, signature) = (&parsed.signature_algorithm, &parsed.signature_value);
        if *algorithm != content.signature || !is_strict(self.der(), content.as_ref(), algorithm, signature) {
            return Err(());
        }
        let (_, key) = SubjectPublicKeyInfo::from_der(issuer.public_key().der()).map_err(|_| ())?;
        parsed.verify_signature(Some(&key)).map_err(|_| ())
    }

    fn check_time(&self, now: SystemTime) -> Result<(), ChainError> {
        if self.is_valid_at(now) {
            return Ok(());
        }
        Err(ChainError::NotValidNow {
            subject: self.subject().to_owned(),
            what: if now < self.not_before() {
                "not yet valid"
            } else {
                "expired"
            },
        })
    }

    fn check_critical(&self) -> Result<(), ChainError> {
        match self.unknown_critical_extension() {
            None => Ok(()),
            Some(extension) => Err(ChainError::UnknownCritical {
                subject: self.subject().to_owned(),
                extension: extension.to_owned(),
            }),
        }
    }
}

/// The way from `certificate` over `intermediates` to one of `roots`, the certificate first and the root last; the
/// certificate alone when it is a root itself. Every certificate on it is valid at `now`.
///
/// # Errors
/// When there is no way, with the first certificate's own fault if it has one.
pub fn path_to_root(
    certificate: &Certificate,
    intermediates: &[Certificate],
    roots: &[Certificate],
    now: SystemTime,
) -> Result<Vec<Certificate>, ChainError> {
    certificate.check_time(now)?;
    certificate.check_critical()?;
    let mut search = Search {
        intermediates,
        roots,
        now,
        signatures: 0,
        fault: None,
        path: vec![certificate.clone()],
    };
    if search.reaches_root()? {
        return Ok(search.path);
    }
    Err(search.fault.unwrap_or_else(|| ChainError::NoPath {
        subject: certificate.subject().to_owned(),
        issuer: certificate.issuer().to_owned(),
    }))
}

struct Search<'s> {
    intermediates: &'s [Certificate],
    roots: &'s [Certificate],
    now: SystemTime,
    signatures: usize,
    /// What kept a candidate that fits otherwise from being used.
    fault: Option<ChainError>,
    path: Vec<Certificate>,
}

impl Search<'_> {
    fn reaches_root(&mut self) -> Result<bool, ChainError> {
        let Some(last) = self.path.last().cloned() else {
            return Ok(false);
        };
        if self.roots.contains(&last) {
            return Ok(true);
        }
        let (roots, intermediates) = (self.roots, self.intermediates);
        for root in roots {
            if self.accepts(&last, root)? {
                self.path.push(root.clone());
                return Ok(true);
            }
        }
        for next in intermediates {
            if !self.path.contains(next) && self.accepts(&last, next)? {
                self.path.push(next.clone());
                if self.reaches_root()? {
                    return Ok(true);
                }
                self.path.pop();
            }
        }
        Ok(false)
    }

    /// Whether `issuer` may be the next on the path after `last`.
    fn accepts(&mut self, last: &Certificate, issuer: &Certificate) -> Result<bool, ChainError> {
        if last.issuer_der() != issuer.subject_der() {
            return Ok(false);
        }
        self.signatures += 1;
        if self.signatures > MAX_PATH_SIGNATURES {
            return Err(ChainError::TooManySignatures);
        }
        // Authorities below the issuer. The first of the path is one when it is an authority's own way that is sought:
        // what that one signs comes below it.
        let first_is_leaf = self.path.first().is_some_and(|first| !first.is_authority());
        let below = self.path.len() - usize::from(first_is_leaf);
        let fault = last
            .check_issued_by(issuer)
            .and_then(|()| issuer.check_time(self.now))
            .and_then(|()| issuer.check_critical())
            .and_then(|()| match issuer.path_length() {
                Some(longest) if below > longest as usize => Err(ChainError::NotIssuedBy {
                    subject: last.subject().to_owned(),
                    issuer: issuer.subject().to_owned(),
                    reason: "the issuer allows fewer authorities below it",
                }),
                _ => Ok(()),
            })
            .err();
        let accepted = fault.is_none();
        self.fault = fault.or(self.fault.take());
        Ok(accepted)
    }
}
