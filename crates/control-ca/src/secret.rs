//! Authorities in Secrets, under Istio's names: `istio-ca-secret` for a self-signed one, `cacerts` for one that an
//! operator plugs in. Both are plain maps of bytes here; who reads and writes them is elsewhere.

use std::collections::BTreeMap;
use std::time::SystemTime;

use identity::{Certificate, KeyError, PrivateKey, RevocationList};

use crate::authority::{Authority, AuthorityError, Origin, Parts};

/// The `data` of a Secret, or the files of a directory. It holds a private key.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// The name of the Secret of a self-signed authority.
pub const SELF_SIGNED_SECRET: &str = "istio-ca-secret";
/// The type of that Secret.
pub const SELF_SIGNED_SECRET_TYPE: &str = "istio.io/ca-root";
/// The name of the Secret in which an operator plugs in an authority.
pub const PLUGGED_IN_SECRET: &str = "cacerts";

const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const CERT_CHAIN: &str = "cert-chain.pem";
const ROOT_CERT: &str = "root-cert.pem";
const CA_CRL: &str = "ca-crl.pem";
/// Istio writes it into its Secret, always empty.
const KEY: &str = "key.pem";
const TLS_CERT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const TLS_ROOT: &str = "ca.crt";

impl Authority {
    /// The Secret of this self-signed authority. As in Istio's, entries that do not apply are there and empty. Old
    /// roots that are still trusted are kept in `root-cert.pem`; Istio reads the Secret as well, and does without them.
    ///
    /// # Errors
    /// When the key cannot be written.
    pub fn to_self_signed_secret(&self) -> Result<SecretData, KeyError> {
        let key = self.key.to_pem()?.as_bytes().to_vec();
        let roots = match self.roots() {
            [_] => String::new(),
            _ => self.roots_pem(),
        };
        Ok(SecretData::from([
            (CA_CERT.to_owned(), self.certificate().pem().into_bytes()),
            (CA_KEY.to_owned(), key),
            (CERT_CHAIN.to_owned(), Vec::new()),
            (KEY.to_owned(), Vec::new()),
            (ROOT_CERT.to_owned(), roots.into_bytes()),
        ]))
    }

    /// Takes up a self-signed authority from its Secret, by us or by Istio.
    ///
    /// # Errors
    /// When anything is missing, damaged, expired or does not belong together.
    pub fn from_self_signed_secret(data: &SecretData, now: SystemTime) -> Result<Self, AuthorityError> {
        let certificate =
            Certificate::from_pem(entry(data, CA_CERT)?).map_err(|source| AuthorityError::Certificate {
                entry: CA_CERT,
                source,
            })?;
        let key = key(data, CA_KEY)?;
        let old = match data.get(ROOT_CERT) {
            Some(text) if !text.trim_ascii().is_empty() => roots(text, ROOT_CERT)?,
            _ => Vec::new(),
        };
        Self::of_root(certificate, key, &old, now)
    }

    /// Takes up an authority that an operator plugs in: `ca-cert.pem`, `ca-key.pem`, `root-cert.pem`, and where they
    /// are `cert-chain.pem` and `ca-crl.pem`; or, when `tls.crt` is there (a Secret of the type
    /// `kubernetes.io/tls`), `tls.crt`, `tls.key` and `ca.crt`.
    ///
    /// # Errors
    /// When anything is missing, damaged, expired, revoked, no authority's, or does not belong together.
    pub fn from_plugged_in(data: &SecretData, now: SystemTime) -> Result<Self, AuthorityError> {
        let (cert_entry, key_entry, root_entry) = if data.contains_key(TLS_CERT) {
            (TLS_CERT, TLS_KEY, TLS_ROOT)
        } else {
            (CA_CERT, CA_KEY, ROOT_CERT)
        };
        let mut candidates = chain(entry(data, cert_entry)?, cert_entry)?;
        let certificate = candidates.remove(0);
        if let Some(text) = data.get(CERT_CHAIN).filter(|text| !text.trim_ascii().is_empty()) {
            candidates.extend(chain(text, CERT_CHAIN)?);
        }
        let roots = roots(entry(data, root_entry)?, root_entry)?;
        let revocations = match data.get(CA_CRL).filter(|text| !text.trim_ascii().is_empty()) {
            None => Vec::new(),
            Some(text) => {
                let authorities: Vec<Certificate> = std::iter::once(&certificate)
                    .chain(&candidates)
                    .chain(&roots)
                    .cloned()
                    .collect();
                RevocationList::from_pem(text, &authorities).map_err(|source| AuthorityError::Revocation {
                    entry: CA_CRL,
                    source,
                })?
            }
        };
        Self::assemble(
            Parts {
                certificate,
                key: key(data, key_entry)?,
                candidates,
                roots,
                revocations,
                origin: Origin::PluggedIn,
                key_entry,
            },
            now,
        )
    }
}

fn entry<'d>(data: &'d SecretData, name: &'static str) -> Result<&'d [u8], AuthorityError> {
    match data.get(name) {
        Some(text) if !text.trim_ascii().is_empty() => Ok(text),
        _ => Err(AuthorityError::Missing(name)),
    }
}

fn key(data: &SecretData, name: &'static str) -> Result<PrivateKey, AuthorityError> {
    PrivateKey::from_pem(entry(data, name)?).map_err(|source| AuthorityError::Key { entry: name, source })
}

fn chain(text: &[u8], name: &'static str) -> Result<Vec<Certificate>, AuthorityError> {
    Certificate::chain_from_pem(text).map_err(|source| AuthorityError::Certificate { entry: name, source })
}

fn roots(text: &[u8], name: &'static str) -> Result<Vec<Certificate>, AuthorityError> {
    Certificate::bundle_from_pem(text).map_err(|source| AuthorityError::Certificate { entry: name, source })
}
