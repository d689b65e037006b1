//! Roots from a file: what is trusted before the authority has answered, and beside what it answers.
//!
//! In Kubernetes the file is that of the mounted ConfigMap `istio-ca-root-cert`; on one machine the control plane writes
//! it. When the roots of a mesh change, the file has the new ones at once, while a certificate, and the roots that came
//! with it, may be hours old.

use std::path::{Path, PathBuf};

use super::followed::Followed;
use crate::limits::MAX_SECRET_FILE_BYTES;
use crate::small_file;
use identity::Certificate;

/// Why there are no roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Read(PathBuf, std::io::Error),
    /// It holds something else.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Content(PathBuf, identity::CertificateError),
}

/// Reads the roots in a file of at most [`MAX_SECRET_FILE_BYTES`].
///
/// # Errors
/// When it cannot be read, or holds anything but certificates.
pub fn read(path: &Path) -> Result<Vec<Certificate>, RootsError> {
    let failed = |error| RootsError::Read(path.to_owned(), error);
    let text = small_file::read(path, MAX_SECRET_FILE_BYTES).map_err(failed)?;
    Certificate::bundle_from_pem(&text).map_err(|error| RootsError::Content(path.to_owned(), error))
}

/// The roots of a file as they change; there may be none, and there may be no file.
pub type Roots = Followed<Vec<Certificate>>;

/// The roots of a file, and the future that follows it for ever.
pub fn of_file(path: PathBuf) -> (Roots, impl Future<Output = ()> + Send) {
    Followed::of_file(path, "the file of the mesh's roots", read)
}
