//! Secrets from files, under Istio's names for them.
//!
//! Files are looked at once a second. That sees every way in which they are replaced (written over, renamed, links of
//! mounted Secrets that are turned), on every file system; and a pair of files that is caught half replaced does not
//! belong together, is refused, and is looked at again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use api_envoy::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use identity::{Certificate, CertificateError, KeyError, PrivateKey};
use zeroize::Zeroizing;

use super::{Inner, Secrets, authorities, certificate};
use crate::limits::{FILE_POLL_INTERVAL, MAX_FILE_SECRETS, MAX_SECRET_FILE_BYTES};
use crate::small_file;

const CERTIFICATE_PREFIX: &str = "file-cert:";
const ROOTS_PREFIX: &str = "file-root:";
/// Stands between the file of a chain and that of its key.
const SEPARATOR: char = '~';

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileSecret {
    Certificate { chain: PathBuf, key: PathBuf },
    Roots(PathBuf),
}

/// Why files are no secret. Nothing of their content is in it.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Read(PathBuf, io::Error),
    #[error("the certificates: {0}")]
    Certificate(#[from] CertificateError),
    #[error("the key: {0}")]
    Key(#[from] KeyError),
}

impl FileSecret {
    /// Reads a secret's name; `None` when it is no file's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if let Some(path) = name.strip_prefix(ROOTS_PREFIX).filter(|path| !path.is_empty()) {
            return Some(Self::Roots(path.into()));
        }
        let (chain, key) = name.strip_prefix(CERTIFICATE_PREFIX)?.split_once(SEPARATOR)?;
        let whole = !chain.is_empty() && !key.is_empty() && !key.contains(SEPARATOR);
        whole.then(|| Self::Certificate {
            chain: chain.into(),
            key: key.into(),
        })
    }

    /// Reads the files, and checks that a proxy would take what is in them.
    fn read(&self) -> Result<Type, FileError> {
        match self {
            Self::Roots(path) => {
                let text = read(path)?;
                Certificate::bundle_from_pem(&text)?;
                Ok(authorities(&text, &[]))
            }
            Self::Certificate { chain, key } => {
                let (chain, key) = (read(chain)?, read(key)?);
                let certificates = Certificate::chain_from_pem(&chain)?;
                let private = PrivateKey::from_pem(&key)?;
                if let Some(leaf) = certificates.first() {
                    private.check_belongs_to(leaf)?;
                }
                Ok(certificate(&chain, &key))
            }
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    small_file::read(path, MAX_SECRET_FILE_BYTES).map_err(|error| FileError::Read(path.to_owned(), error))
}

/// Files that some stream wants as a secret. They are looked at for as long as this is held; what they held goes with it,
/// so that names that nobody wants any more take no place.
pub(super) struct Followed {
    secrets: Weak<Inner>,
    name: String,
    file: FileSecret,
}

impl Drop for Followed {
    fn drop(&mut self) {
        let Some(secrets) = self.secrets.upgrade() else {
            return;
        };
        let mut followed = secrets.followed.lock();
        // Meanwhile somebody else may have begun to follow the same.
        if followed
            .get(&self.name)
            .is_some_and(|other| other.strong_count() == 0)
        {
            followed.remove(&self.name);
            secrets.held.lock().remove(&self.name);
        }
    }
}

/// Reads a secret now, and again and again until the returned value is dropped everywhere; `None` when there are too
/// many already.
pub(super) fn follow(secrets: &Secrets, name: &str, file: FileSecret) -> Option<Arc<Followed>> {
    let followed = {
        let mut all = secrets.0.followed.lock();
        if let Some(known) = all.get(name).and_then(Weak::upgrade) {
            return Some(known);
        }
        if all.len() >= MAX_FILE_SECRETS {
            tracing::warn!(limit = MAX_FILE_SECRETS, name, "too many secrets from files");
            return None;
        }
        let followed = Arc::new(Followed {
            secrets: Arc::downgrade(&secrets.0),
            name: name.to_owned(),
            file,
        });
        all.insert(name.to_owned(), Arc::downgrade(&followed));
        followed
    };
    let mut told = String::new();
    look(secrets, &followed, &mut told);
    let weak = Arc::downgrade(&followed);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(FILE_POLL_INTERVAL).await;
            let Some(followed) = weak.upgrade() else { return };
            let Some(secrets) = followed.secrets.upgrade().map(Secrets) else {
                return;
            };
            look(&secrets, &followed, &mut told);
        }
    });
    Some(followed)
}

/// Takes what the files hold. A failure is told when it is another one than before.
fn look(secrets: &Secrets, followed: &Followed, told: &mut String) {
    let name = &*followed.name;
    match followed.file.read() {
        Ok(content) => {
            told.clear();
            secrets.set(name, content);
        }
        Err(error) => {
            let error = error.to_string();
            if *told != error {
                secrets.0.metrics.file_failed();
                tracing::warn!(name, %error, "a secret from files is refused; what was served before still is");
                *told = error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_istios() {
        assert_eq!(
            FileSecret::parse("file-cert:/a/cert.pem~/a/key.pem"),
            Some(FileSecret::Certificate {
                chain: "/a/cert.pem".into(),
                key: "/a/key.pem".into(),
            })
        );
        let roots = FileSecret::Roots("/a/root.pem".into());
        assert_eq!(FileSecret::parse("file-root:/a/root.pem"), Some(roots));
        for other in [
            "file-cert:/a/cert.pem",
            "file-cert:~/key.pem",
            "file-cert:a~b~c",
            "file-root:",
            "kubernetes://a",
        ] {
            assert_eq!(FileSecret::parse(other), None, "{other}");
        }
    }
}
