//! What an authority answers, checked whole before anything of it is used.

use std::time::SystemTime;

use identity::{Certificate, CertificateError, PrivateKey, ServiceAccount, Svid, SvidError};

use super::{Held, NotOurs};

/// Why an answer is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// There are not both a certificate and a root.
    #[error("the authority's answer has {0} parts: a certificate and its roots are expected")]
    Parts(usize),
    /// The roots cannot be read.
    #[error("the roots in the authority's answer")]
    Roots(#[source] CertificateError),
    /// The chain cannot be read.
    #[error("the certificates in the authority's answer")]
    Chain(#[source] CertificateError),
    /// The chain and our key are no SVID.
    #[error("the certificate in the authority's answer")]
    Svid(#[from] SvidError),
    /// It is not for us.
    #[error("the authority's answer")]
    NotOurs(#[from] NotOurs),
}

/// Takes the parts of an answer of Istio's certificate service, PEM each: the certificate, what leads from it to the
/// roots, and last the roots.
pub(super) fn answer(
    parts: &[String],
    key: PrivateKey,
    account: &ServiceAccount,
    now: SystemTime,
) -> Result<Held, AnswerError> {
    let [chain @ .., roots] = parts else {
        return Err(AnswerError::Parts(0));
    };
    if chain.is_empty() {
        return Err(AnswerError::Parts(1));
    }
    let roots = Certificate::bundle_from_pem(roots.as_bytes()).map_err(AnswerError::Roots)?;
    let mut chain = Certificate::chain_from_pem(chain.concat().as_bytes()).map_err(AnswerError::Chain)?;
    // Some authorities repeat the root; nobody has to be shown it.
    chain.retain(|certificate| !roots.contains(certificate));
    let svid = Svid::new(chain, key)?;
    Ok(Held::new(svid, roots, account, now)?)
}
