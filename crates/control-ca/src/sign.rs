//! Signing: a checked request and the names its sender may have, to a chain.

use std::time::{Duration, SystemTime};

use identity::{
    Certificate, CertificateError, CertificateRequest, KeyError, PublicKey, RequestError, SubjectName,
};

use crate::authority::Authority;
use crate::limits::{CLOCK_SKEW, DEFAULT_LEAF_LIFETIME, MAX_LEAF_LIFETIME, MAX_NAMES};
use crate::x509::{self, Content, Purpose};

/// How long leaves are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// When nothing is asked for.
    pub default: Duration,
    /// However much is asked for.
    pub maximum: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            default: DEFAULT_LEAF_LIFETIME,
            maximum: MAX_LEAF_LIFETIME,
        }
    }
}

impl Lifetimes {
    /// What somebody gets who asks for `seconds`; zero asks for nothing in particular, as in Istio's message.
    ///
    /// # Errors
    /// When `seconds` is negative.
    pub fn grant(&self, seconds: i64) -> Result<Duration, SignError> {
        let asked = match u64::try_from(seconds) {
            Ok(0) => self.default,
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => return Err(SignError::Lifetime(seconds)),
        };
        Ok(asked.min(self.maximum))
    }
}

/// Why a request was not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The request itself is refused.
    #[error("the signing request is refused")]
    Request(#[from] RequestError),
    /// It asks to become an authority.
    #[error("the signing request asks for an authority's certificate; workloads get none")]
    WantsAuthority,
    /// The lifetime is not positive.
    #[error("a certificate cannot be valid for {0} seconds")]
    Lifetime(i64),
    /// There is nobody to certify, or too many.
    #[error("a certificate for {0} names is not issued: 1 to {MAX_NAMES} are allowed")]
    Names(usize),
    /// A name cannot be written.
    #[error("the name {0} cannot be written into a certificate")]
    Name(SubjectName),
    /// The authority has expired, or is about to.
    #[error("the authority's own chain has expired")]
    Expired,
    /// The cryptographic library failed.
    #[error("the certificate could not be signed")]
    Generation(#[from] KeyError),
}

impl SignError {
    /// Istio's name for the kind of error: the label of `citadel_server_csr_sign_err_count`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Request(_) | Self::WantsAuthority => "CSR_ERROR",
            Self::Lifetime(_) => "TTL_ERROR",
            Self::Expired => "CA_NOT_READY",
            Self::Names(_) | Self::Name(_) | Self::Generation(_) => "CERT_GEN_ERROR",
        }
    }
}

/// A signed leaf, and what leads from it to the roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    der: Vec<u8>,
    not_after: SystemTime,
    following_pem: Vec<String>,
}

impl Issued {
    /// The leaf, read back.
    ///
    /// # Errors
    /// Never, unless what was written cannot be read.
    pub fn leaf(&self) -> Result<Certificate, CertificateError> {
        Certificate::from_der(&self.der)
    }

    /// The last second in which it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// In PEM: the leaf, each intermediate, and last all roots in one text, as Istio's agents trust what comes last.
    /// What Istio's certificate service answers.
    ///
    /// # Errors
    /// As [`Issued::leaf`].
    pub fn into_pem_chain(self) -> Result<Vec<String>, CertificateError> {
        let mut chain = vec![self.leaf()?.pem()];
        chain.extend(self.following_pem);
        Ok(chain)
    }
}

impl Authority {
    /// Certifies the key of `request` for `names`, whatever names the request itself wishes for.
    ///
    /// The lifetime is cut to what is left of the authority's own.
    ///
    /// # Errors
    /// When the request wants to become an authority, there is no name, the lifetime is zero, or the authority's own
    /// chain has expired.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        names: &[SubjectName],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, SignError> {
        if request.wants_authority() {
            return Err(SignError::WantsAuthority);
        }
        self.certify(request.public_key(), names, lifetime, now)
    }

    /// Certifies a key that is known to be its owner's, as the control plane's own.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn certify(
        &self,
        key: &PublicKey,
        names: &[SubjectName],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, SignError> {
        check_names(names)?;
        if lifetime < Duration::from_secs(1) {
            return Err(SignError::Lifetime(0));
        }
        let now = x509::whole_second(now);
        if now >= self.expires {
            return Err(SignError::Expired);
        }
        let wished = now.checked_add(lifetime).unwrap_or(self.expires);
        let not_after = wished.min(self.expires);
        let der = x509::sign(
            &Content {
                serial: x509::random_serial()?,
                issuer: self.certificate.subject_der(),
                subject: &x509::name(""),
                not_before: now - CLOCK_SKEW,
                not_after,
                public_key: key,
                purpose: Purpose::Leaf { names },
                authority_key_id: self.certificate.subject_key_id(),
            },
            &self.key,
        )?;
        Ok(Issued {
            der,
            not_after,
            following_pem: self.following_pem.clone(),
        })
    }
}

fn check_names(names: &[SubjectName]) -> Result<(), SignError> {
    if names.is_empty() || names.len() > MAX_NAMES {
        return Err(SignError::Names(names.len()));
    }
    let printable = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let wrong = names.iter().find(|name| match name {
        SubjectName::Uri(text) | SubjectName::Dns(text) | SubjectName::Email(text) => !printable(text),
        SubjectName::Ip(_) => false,
    });
    wrong.map_or(Ok(()), |name| Err(SignError::Name(name.clone())))
}
