//! An authority: its key, its certificate, how that leads to a root, and what its workloads are to trust.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use identity::{
    Certificate, CertificateError, ChainError, KeyError, KeyKind, PrivateKey, RevocationError,
    RevocationList, path_to_root,
};

use crate::limits::{CLOCK_SKEW, MAX_ROOT_LIFETIME, MAX_ROOTS, ROOT_LIFETIME};
use crate::x509::{self, Content, Purpose};

/// A certificate authority that has been checked whole. `Debug` shows no key.
#[derive(Debug)]
pub struct Authority {
    pub(crate) certificate: Certificate,
    pub(crate) key: PrivateKey,
    /// From the authority's own certificate on, without roots. Empty when the authority is a root.
    intermediates: Vec<Certificate>,
    roots: Vec<Certificate>,
    revocations: Vec<RevocationList>,
    origin: Origin,
    /// Intermediates in PEM, one each, and last all roots together: what follows every leaf.
    pub(crate) following_pem: Vec<String>,
    /// When the first certificate between a leaf and its root expires.
    pub(crate) expires: SystemTime,
}

/// Where an authority came from: it decides who renews it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made here. Its root is renewed here.
    SelfSigned,
    /// Handed over by an operator, who renews it.
    PluggedIn,
}

/// How to make a self-signed authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfSigned {
    /// The organization in its name; Istio takes the trust domain.
    pub organization: String,
    /// Its key.
    pub key: KeyKind,
    /// How long its root is valid.
    pub lifetime: Duration,
}

/// Why there is no authority. Nothing of a key is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Something is not there.
    #[error("{0} is missing or empty")]
    Missing(&'static str),
    /// A certificate cannot be read.
    #[error("{entry}")]
    Certificate {
        /// Which entry of the Secret or file.
        entry: &'static str,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The key cannot be read, or is another one's.
    #[error("{entry}")]
    Key {
        /// Which entry of the Secret or file.
        entry: &'static str,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// A revocation list cannot be read, or is nobody's.
    #[error("{entry}")]
    Revocation {
        /// Which entry of the Secret or file.
        entry: &'static str,
        /// What is wrong with it.
        #[source]
        source: RevocationError,
    },
    /// The signing certificate is a workload's.
    #[error("the signing certificate of {subject:?} is not an authority's")]
    NotAnAuthority {
        /// Whose it is.
        subject: String,
    },
    /// It does not lead to a root, or something on the way is not valid now.
    #[error("the signing certificate is not trusted")]
    Chain(#[from] ChainError),
    /// There are too many roots.
    #[error("there are {0} roots, more than {MAX_ROOTS}")]
    TooManyRoots(usize),
    /// The lifetime is zero or too long.
    #[error("a root cannot be valid for {} seconds: 1 to {} are allowed", .0.as_secs(), MAX_ROOT_LIFETIME.as_secs())]
    Lifetime(Duration),
    /// The revocation list revokes the authority itself.
    #[error("the signing certificate of {subject:?} is revoked")]
    Revoked {
        /// Whose it is.
        subject: String,
    },
    /// The organization cannot be written.
    #[error("the organization is empty or longer than 64 characters")]
    Organization,
}

/// What an authority is put together from.
pub(crate) struct Parts {
    pub(crate) certificate: Certificate,
    pub(crate) key: PrivateKey,
    pub(crate) candidates: Vec<Certificate>,
    pub(crate) roots: Vec<Certificate>,
    pub(crate) revocations: Vec<RevocationList>,
    pub(crate) origin: Origin,
    /// Where the key was found, for the message.
    pub(crate) key_entry: &'static str,
}

/// The longest organization (RFC 5280, appendix A: ub-organization-name).
const MAX_ORGANIZATION_CHARACTERS: usize = 64;

impl SelfSigned {
    /// Istio's root for a trust domain, with our default key.
    pub fn for_trust_domain(trust_domain: &identity::TrustDomain) -> Self {
        Self {
            organization: trust_domain
                .as_str()
                .chars()
                .take(MAX_ORGANIZATION_CHARACTERS)
                .collect(),
            key: KeyKind::default(),
            lifetime: ROOT_LIFETIME,
        }
    }
}

impl Authority {
    /// Makes a new key and a root for it.
    ///
    /// # Errors
    /// When the settings are out of bounds, or the cryptographic library fails.
    pub fn self_signed(settings: &SelfSigned, now: SystemTime) -> Result<Self, AuthorityError> {
        let characters = settings.organization.chars().count();
        if characters == 0 || characters > MAX_ORGANIZATION_CHARACTERS {
            return Err(AuthorityError::Organization);
        }
        let key = PrivateKey::generate(settings.key).map_err(key_error)?;
        let certificate = root(&x509::name(&settings.organization), &key, settings.lifetime, now)?;
        Self::of_root(certificate, key, &[], now)
    }

    /// Renews a root as Istio does: a new certificate of the same name for the same key. What was signed before
    /// verifies under the new root, and what will be signed verifies under the old one, so that nobody is cut off
    /// while the new one spreads. The old roots stay trusted until they expire.
    ///
    /// # Errors
    /// When the lifetime is out of bounds, or the cryptographic library fails.
    pub fn rotated(&self, lifetime: Duration, now: SystemTime) -> Result<Self, AuthorityError> {
        let text = self.key.to_pkcs8_der().map_err(key_error)?;
        let key = PrivateKey::from_der(&text).map_err(key_error)?;
        let certificate = root(self.certificate.subject_der(), &key, lifetime, now)?;
        Self::of_root(certificate, key, &self.roots, now)
    }

    pub(crate) fn of_root(
        certificate: Certificate,
        key: PrivateKey,
        others: &[Certificate],
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let old = others.iter().filter(|root| now <= root.not_after()).cloned();
        Self::assemble(
            Parts {
                roots: std::iter::once(certificate.clone()).chain(old).collect(),
                certificate,
                key,
                candidates: Vec::new(),
                revocations: Vec::new(),
                origin: Origin::SelfSigned,
                key_entry: "ca-key.pem",
            },
            now,
        )
    }

    /// Checks everything: the key is the certificate's, the certificate is an authority's, it leads to a root, and
    /// everything on the way is valid now and not revoked.
    pub(crate) fn assemble(parts: Parts, now: SystemTime) -> Result<Self, AuthorityError> {
        let Parts { certificate, key, .. } = parts;
        let subject = || certificate.subject().to_owned();
        key.check_belongs_to(&certificate)
            .map_err(|source| AuthorityError::Key {
                entry: parts.key_entry,
                source,
            })?;
        if !certificate.is_authority() || !certificate.may_sign_certificates() {
            return Err(AuthorityError::NotAnAuthority { subject: subject() });
        }
        let mut roots: Vec<Certificate> = Vec::new();
        for root in parts.roots {
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        if roots.len() > MAX_ROOTS {
            return Err(AuthorityError::TooManyRoots(roots.len()));
        }
        let path = path_to_root(&certificate, &parts.candidates, &roots, now)?;
        if path
            .iter()
            .any(|on_path| parts.revocations.iter().any(|list| list.revokes(on_path)))
        {
            return Err(AuthorityError::Revoked { subject: subject() });
        }
        let expires = path
            .iter()
            .map(Certificate::not_after)
            .fold(certificate.not_after(), SystemTime::min);
        let intermediates: Vec<Certificate> = path.into_iter().filter(|c| !roots.contains(c)).collect();
        Ok(Self {
            following_pem: intermediates
                .iter()
                .map(Certificate::pem)
                .chain([roots.iter().map(Certificate::pem).collect()])
                .collect(),
            certificate,
            key,
            intermediates,
            roots,
            revocations: parts.revocations,
            origin: parts.origin,
            expires,
        })
    }

    /// The certificate that signs.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What leads from a leaf to a root, without either: the authority's own certificate first. Empty when the
    /// authority is a root itself.
    pub fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }

    /// What workloads are to trust: at least one.
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// The roots in PEM: the content of `root-cert.pem` in ConfigMaps and of `ROOTCA`.
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(Certificate::pem).collect()
    }

    /// The revocation lists that came with it (`ca-crl.pem`).
    pub fn revocations(&self) -> &[RevocationList] {
        &self.revocations
    }

    /// The same in PEM: the content of `ca-crl.pem` in ConfigMaps; empty where nothing was revoked.
    pub fn revocations_pem(&self) -> String {
        self.revocations.iter().map(RevocationList::pem).collect()
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// When the first certificate between a leaf and its root expires. No leaf is valid longer.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }
}

fn root(
    name: &[u8],
    key: &PrivateKey,
    lifetime: Duration,
    now: SystemTime,
) -> Result<Certificate, AuthorityError> {
    if lifetime < Duration::from_secs(1) || lifetime > MAX_ROOT_LIFETIME {
        return Err(AuthorityError::Lifetime(lifetime));
    }
    let now = x509::whole_second(now);
    let key_id = key_id(key);
    let der = x509::sign(
        &Content {
            serial: x509::random_serial().map_err(key_error)?,
            issuer: name,
            subject: name,
            not_before: now - CLOCK_SKEW,
            not_after: now + lifetime,
            public_key: key.public_key(),
            purpose: Purpose::Authority { key_id: &key_id },
            authority_key_id: None,
        },
        key,
    )
    .map_err(key_error)?;
    Certificate::from_der(&der).map_err(|source| AuthorityError::Certificate {
        entry: "the new root",
        source,
    })
}

/// The leftmost 160 bits of the key's SHA-256 (RFC 7093, section 2).
fn key_id(key: &PrivateKey) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, key.public_key().der());
    hash.as_ref().iter().copied().take(20).collect()
}

fn key_error(source: KeyError) -> AuthorityError {
    AuthorityError::Key {
        entry: "the authority's key",
        source,
    }
}
