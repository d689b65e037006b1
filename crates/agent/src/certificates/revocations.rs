//! What the mesh's authorities have revoked, from a file: that of the mounted ConfigMap `istio-ca-crl` in Kubernetes, or
//! the one that the control plane writes on one machine. No file, or an empty one, revokes nothing; one that cannot be
//! read does not, and until it could be read once, nobody gets roots to trust by.

use std::io;
use std::path::{Path, PathBuf};

use identity::{RevocationError, RevocationList};

use super::followed::Followed;
use crate::limits::MAX_SECRET_FILE_BYTES;
use crate::small_file;

/// Why revocation lists are not taken.
#[derive(Debug, thiserror::Error)]
enum RevocationsError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Read(PathBuf, io::Error),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Content(PathBuf, RevocationError),
}

/// The revocation lists of a file, in PEM, as they change.
pub type Revocations = Followed<String>;

/// The revocation lists of a file, and the future that follows it for ever.
pub fn of_file(path: PathBuf) -> (Revocations, impl Future<Output = ()> + Send) {
    Followed::of_file(path, "the file of the mesh's revocation lists", read)
}

fn read(path: &Path) -> Result<String, RevocationsError> {
    let text = match small_file::read(path, MAX_SECRET_FILE_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(RevocationsError::Read(path.to_owned(), error)),
    };
    if text.trim_ascii().is_empty() {
        return Ok(String::new());
    }
    // Who has signed them is for those to check who know the whole chain: the proxies.
    RevocationList::normalize_pem(&text).map_err(|error| RevocationsError::Content(path.to_owned(), error))
}
