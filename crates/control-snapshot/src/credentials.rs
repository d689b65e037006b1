//! Credentials of gateways in Secrets, in the forms that Istio reads: `cert`, `key` and `cacert`, or those of
//! `kubernetes.io/tls`, `tls.crt`, `tls.key` and `ca.crt`. Authorities, which are no secret, may be in ConfigMaps too.
//!
//! Whether certificate and key are any good is decided here, whether a proxy may have them where they are sent. What time
//! it is is not asked: a certificate that has expired is sent, as istiod does, and who sees it says so.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::{
    Certificate, CertificateError, ChainError, KeyError, PrivateKey, RevocationError, RevocationList,
};
use serde_json::Value;

use crate::table::{Key, Table};

/// The entries of the two forms: chain, key, authorities, revocation lists.
const FORMS: [[&str; 4]; 2] = [
    ["cert", "key", "cacert", "crl"],
    ["tls.crt", "tls.key", "ca.crt", "ca.crl"],
];
/// The OCSP answer beside a key pair, in both forms.
const STAPLE: &str = "tls.ocsp-staple";
/// Secrets of these types are for others, whatever their entries are called.
const OTHER_TYPES: [&str; 3] = [
    "istio.io/ca-root",
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
];
/// Entries that an error message names.
const SHOWN_ENTRIES: usize = 3;

/// What one Secret or ConfigMap holds. `Debug` shows the names of its entries only.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The names of all entries, read or not.
    entries: Vec<String>,
    data: BTreeMap<String, Vec<u8>>,
}

/// A certificate chain and its key, in PEM.
#[derive(Clone, Copy)]
pub struct KeyPair<'c> {
    /// The chain, the leaf first.
    pub chain: &'c [u8],
    /// The key.
    pub key: &'c [u8],
    /// The OCSP answer in DER, when there is one.
    pub ocsp_staple: Option<&'c [u8]>,
}

/// What clients are verified against, in PEM.
#[derive(Clone, Copy, Debug)]
pub struct TrustedAuthorities<'c> {
    /// Their certificates.
    pub certificates: &'c [u8],
    /// Their revocation lists, when there are any.
    pub revocations: Option<&'c [u8]>,
}

/// Why a Secret or ConfigMap is no credential of the kind that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The entries are there, without content.
    #[error("it has the entries {0}, and one of them is empty")]
    Empty(String),
    /// The entries are not there.
    #[error("it has neither {wanted}, but {found}")]
    Entries {
        /// What either form calls them.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// The certificates to show are damaged.
    #[error("the certificate chain: {0}")]
    Chain(#[source] CertificateError),
    /// They are no chain: one was not issued by the next.
    #[error("the order of the certificate chain: {0}")]
    Order(#[from] ChainError),
    /// The key is damaged, or belongs to another certificate.
    #[error("{}", of_key(.0))]
    Key(#[from] KeyError),
    /// The certificates that clients are verified against are damaged.
    #[error("the authorities: {0}")]
    Authorities(#[source] CertificateError),
    /// The revocation lists are damaged, or of others than the authorities.
    #[error("the revocation lists: {0}")]
    Revocations(#[from] RevocationError),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KeyPair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair")
    }
}

impl Credential {
    /// Reads a Secret; nothing of one whose type says that it is for others.
    ///
    /// # Errors
    /// The name of an entry that is not base64.
    pub(crate) fn read(secret: &Value) -> Result<Option<Self>, String> {
        let kind = secret["type"].as_str().unwrap_or_default();
        if OTHER_TYPES.contains(&kind) {
            return Ok(None);
        }
        let entries = secret["data"].as_object();
        let mut data = BTreeMap::new();
        for (name, value) in entries.into_iter().flatten() {
            if FORMS.as_flattened().contains(&name.as_str()) || name == STAPLE {
                let text = value.as_str().unwrap_or_default();
                let bytes = STANDARD.decode(text).map_err(|_| name.clone())?;
                data.insert(name.clone(), bytes);
            }
        }
        let names = entries.into_iter().flatten().map(|(name, _)| name.clone());
        let mut entries: Vec<_> = names.collect();
        entries.sort();
        Ok(Some(Self { entries, data }))
    }

    /// Reads the authorities of a ConfigMap; nothing where it has none. Only texts count, as for istiod.
    pub(crate) fn read_authorities(map: &Value) -> Option<Self> {
        let entries = map["data"].as_object()?;
        let mut data = BTreeMap::new();
        for name in FORMS
            .iter()
            .flat_map(|[.., authorities, revocations]| [authorities, revocations])
        {
            if let Some(text) = entries.get(*name).and_then(Value::as_str) {
                data.insert((*name).to_owned(), text.as_bytes().to_vec());
            }
        }
        let mut authorities = FORMS.iter().map(|[.., authorities, _]| authorities);
        authorities.any(|name| data.contains_key(*name)).then(|| {
            let mut entries: Vec<_> = entries.keys().cloned().collect();
            entries.sort();
            Self { entries, data }
        })
    }

    /// Whether what is there can be used: the key belongs to the first certificate, each certificate was issued by the
    /// next, the authorities are certificates, and the revocation lists are theirs.
    ///
    /// # Errors
    /// Which of these does not hold.
    pub(crate) fn checked(self) -> Checked {
        match self.key_pair() {
            Ok(pair) => check_pair(pair)?,
            Err(CredentialError::Entries { .. }) => {}
            Err(empty) => return Err(empty),
        }
        // Authorities may be empty: some issuers write the entry whether they have any or not.
        self.authorities().map_or(Ok(()), check_authorities)?;
        Ok(self)
    }

    /// The certificate to show, with its key.
    ///
    /// # Errors
    /// When there is none.
    pub fn key_pair(&self) -> Result<KeyPair<'_>, CredentialError> {
        let mut pairs = FORMS.iter().filter_map(|[chain, key, ..]| {
            Some(KeyPair {
                chain: self.content(chain)?,
                key: self.content(key)?,
                ocsp_staple: self.content(STAPLE),
            })
        });
        pairs.next().ok_or_else(|| {
            let names = FORMS.map(|[chain, key, ..]| vec![chain, key]);
            self.missing(&names)
        })
    }

    /// What clients are verified against.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn authorities(&self) -> Result<TrustedAuthorities<'_>, CredentialError> {
        let mut found = FORMS.iter().filter_map(|[.., authorities, revocations]| {
            Some(TrustedAuthorities {
                certificates: self.content(authorities)?,
                revocations: self.content(revocations),
            })
        });
        found.next().ok_or_else(|| {
            let names = FORMS.map(|[.., authorities, _]| vec![authorities]);
            self.missing(&names)
        })
    }

    fn content(&self, name: &str) -> Option<&[u8]> {
        let content = self.data.get(name).map(Vec::as_slice);
        content.filter(|content| !content.is_empty())
    }

    fn missing(&self, forms: &[Vec<&str>]) -> CredentialError {
        let there = |names: &&Vec<&str>| names.iter().all(|name| self.data.contains_key(*name));
        if let Some(names) = forms.iter().find(there) {
            return CredentialError::Empty(names.join(" and "));
        }
        let wanted: Vec<_> = forms.iter().map(|names| names.join(" and ")).collect();
        let mut found = self
            .entries
            .iter()
            .take(SHOWN_ENTRIES)
            .cloned()
            .collect::<Vec<_>>();
        if self.entries.len() > SHOWN_ENTRIES {
            found.push("others".to_owned());
        }
        if found.is_empty() {
            found.push("none".to_owned());
        }
        CredentialError::Entries {
            wanted: wanted.join(" nor "),
            found: found.join(", "),
        }
    }
}

/// A credential that can be used, or why it cannot.
pub(crate) type Checked = Result<Credential, CredentialError>;

/// What all Secrets hold, or all ConfigMaps. Nothing that shows other objects shows these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    held: Table<Credential>,
    /// Why objects were refused. What they held before, if anything, is still held.
    refused: BTreeMap<Key, CredentialError>,
}

impl Credentials {
    /// Takes what an object holds. What is damaged is refused whole: a typing error must not take away the certificate
    /// that works.
    pub(crate) fn put(&mut self, key: Key, checked: Checked) {
        match checked {
            Ok(credential) => {
                self.refused.remove(&key);
                self.held.insert(key, Arc::new(credential));
            }
            Err(reason) => drop(self.refused.insert(key, reason)),
        }
    }

    /// Forgets an object.
    pub(crate) fn remove(&mut self, key: &Key) {
        self.refused.remove(key);
        self.held.remove(key);
    }

    /// What an object holds, or held before it was damaged.
    pub(crate) fn get(&self, key: &Key) -> Option<&Credential> {
        self.held.get(key).map(|credential| &**credential)
    }

    /// Why objects were refused, by their names.
    pub(crate) fn refused(&self) -> &BTreeMap<Key, CredentialError> {
        &self.refused
    }

    /// Whether anything is known of an object.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.held.contains_key(key) || self.refused.contains_key(key)
    }
}

/// An error about a key, which may name it or what is around it.
fn of_key(error: &KeyError) -> String {
    let text = error.to_string();
    if text.starts_with("the private key") {
        return text;
    }
    format!("the private key: {text}")
}

fn check_pair(pair: KeyPair<'_>) -> Result<(), CredentialError> {
    let chain = Certificate::chain_from_pem(pair.chain).map_err(CredentialError::Chain)?;
    let key = PrivateKey::from_pem(pair.key)?;
    if let Some(leaf) = chain.first() {
        key.check_belongs_to(leaf)?;
    }
    for link in chain.windows(2) {
        link[0].check_issued_by(&link[1])?;
    }
    Ok(())
}

fn check_authorities(trusted: TrustedAuthorities<'_>) -> Result<(), CredentialError> {
    let authorities =
        Certificate::bundle_from_pem(trusted.certificates).map_err(CredentialError::Authorities)?;
    if let Some(lists) = trusted.revocations {
        RevocationList::from_pem(lists, &authorities)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(kind: &str, entries: &[(&str, &str)]) -> Option<Credential> {
        let data: serde_json::Map<_, _> = entries
            .iter()
            .map(|(name, text)| ((*name).to_owned(), STANDARD.encode(text).into()))
            .collect();
        Credential::read(&json!({"type": kind, "data": data})).expect("base64")
    }

    #[test]
    fn both_forms_are_read_the_opaque_one_first() {
        let both = [
            ("tls.crt", "1"),
            ("tls.key", "2"),
            ("cert", "3"),
            ("key", "4"),
            ("ca.crt", "5"),
        ];
        let credential = read("Opaque", &both).expect("a credential");
        let pair = credential.key_pair().expect("a pair");
        assert_eq!((pair.chain, pair.key), (&b"3"[..], &b"4"[..]));
        assert_eq!(credential.authorities().expect("authorities").certificates, b"5");
        let tls = read("kubernetes.io/tls", &both[..2]).expect("a credential");
        assert_eq!(tls.key_pair().expect("a pair").chain, b"1");
    }

    #[test]
    fn what_is_missing_is_said_with_what_is_there() {
        let odd = read("Opaque", &[("crt", "1"), ("b", "2"), ("c", "3"), ("d", "4")]).expect("a credential");
        assert_eq!(
            odd.key_pair().expect_err("none").to_string(),
            "it has neither cert and key nor tls.crt and tls.key, but b, c, crt, others"
        );
        let empty = read("Opaque", &[("tls.crt", ""), ("tls.key", "2")]).expect("a credential");
        assert_eq!(
            empty.key_pair().expect_err("empty"),
            CredentialError::Empty("tls.crt and tls.key".to_owned())
        );
    }

    #[test]
    fn of_a_config_map_the_authorities_are_read_and_nothing_else() {
        let read = |data: Value| Credential::read_authorities(&json!({ "data": data }));
        let roots = read(json!({"ca.crt": "1", "tls.crt": "2", "tls.key": "3"})).expect("authorities");
        assert_eq!(roots.authorities().expect("authorities").certificates, b"1");
        assert!(roots.key_pair().is_err());
        assert_eq!(read(json!({"tls.crt": "2", "root-cert.pem": "3"})), None);
        assert_eq!(read(Value::Null), None);
    }

    #[test]
    fn secrets_of_others_are_not_kept_and_nothing_is_shown() {
        assert_eq!(
            read("istio.io/ca-root", &[("ca-key.pem", "1"), ("key", "2")]),
            None
        );
        let secret = read("Opaque", &[("key", "very private")]).expect("a credential");
        let shown = format!("{secret:?}");
        assert!(
            shown.contains("key") && !shown.contains("private") && !shown.contains("118"),
            "{shown}"
        );
    }
}
