//! Certificates of a page, made anew for each run: what a reader makes with openssl.
//!
//! A certificate `shop` is the files `shop.crt` and `shop.key`; the authority that signed it, `ca` unless the page says
//! another, is `ca.crt`. Pages name files where a reader has files: in the commands that make Secrets
//! ([`crate::page::secrets`]), after the URL of a request ([`crate::page::traffic`]) and in rules, since the proxy under test
//! starts in their folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use control_ca::{Authority, SelfSigned};
use identity::{Certificate, KeyKind, PrivateKey, SubjectName, TrustDomain};
use serde::Deserialize;

/// How long certificates of a page are valid: longer than any page plays.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Who signs where nobody is named.
pub(crate) const AUTHORITY: &str = "ca";

/// A certificate that a page wants.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Wanted {
    /// Its DNS names.
    pub names: Vec<String>,
    /// Who signs it.
    #[serde(default = "authority")]
    pub authority: String,
    /// Whether its key is RSA instead of ECDSA.
    #[serde(default)]
    pub rsa: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            authority: authority(),
            rsa: false,
        }
    }
}

fn authority() -> String {
    AUTHORITY.to_owned()
}

/// The files of a page, by name, in PEM. `Debug` shows the names only.
#[derive(Clone, Default)]
pub struct Files(BTreeMap<String, String>);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Files {
    /// Makes the certificates that a page wants, by name.
    ///
    /// # Errors
    /// The cryptographic library fails, or a name cannot be in a certificate.
    pub fn make(wanted: &BTreeMap<String, Wanted>) -> Result<Self> {
        let now = SystemTime::now();
        let domain = TrustDomain::new("example.com")?;
        let mut authorities: BTreeMap<&str, Authority> = BTreeMap::new();
        let mut files = BTreeMap::new();
        for (name, wanted) in wanted {
            if !authorities.contains_key(wanted.authority.as_str()) {
                let authority = Authority::self_signed(&SelfSigned::for_trust_domain(&domain), now)?;
                files.insert(format!("{}.crt", wanted.authority), authority.roots_pem());
                authorities.insert(&wanted.authority, authority);
            }
            let kind = if wanted.rsa {
                KeyKind::Rsa2048
            } else {
                KeyKind::default()
            };
            let key = PrivateKey::generate(kind)?;
            let names: Vec<_> = wanted
                .names
                .iter()
                .map(|name| SubjectName::Dns(name.clone()))
                .collect();
            let authority = &authorities[wanted.authority.as_str()];
            let issued = authority.certify(key.public_key(), &names, LIFETIME, now)?;
            files.insert(format!("{name}.crt"), issued.leaf()?.pem());
            files.insert(format!("{name}.key"), key.to_pem()?.to_string());
        }
        Ok(Self(files))
    }

    /// Writes the files to a folder, as the proxy under test reads them.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_to(&self, directory: &Path) -> Result<()> {
        for (name, content) in &self.0 {
            let file = directory.join(name);
            std::fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }

    /// The content of a file.
    ///
    /// # Errors
    /// The page makes no such file.
    pub fn read(&self, name: &str) -> Result<&str> {
        let found = self.0.get(name).map(String::as_str);
        found.with_context(|| format!("the page makes no file {name}; add it to the world's `certificates`"))
    }

    /// The file that holds this certificate, in DER.
    pub fn holding(&self, der: &[u8]) -> Option<String> {
        let certificates = self.0.iter().filter(|(name, _)| name.ends_with(".crt"));
        let mut holding = certificates.filter(|(_, pem)| {
            Certificate::from_pem(pem.as_bytes()).is_ok_and(|certificate| certificate.der() == der)
        });
        holding.next().map(|(name, _)| name.clone())
    }
}
