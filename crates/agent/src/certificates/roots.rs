//! Roots from a file: what is trusted before the authority has answered, and beside what it answers.
//!
//! In Kubernetes the file is that of the mounted ConfigMap `istio-ca-root-cert`; on one machine the control plane writes
//! it. When the roots of a mesh change, the file has the new ones at once, while a certificate, and the roots that came
//! with it, may be hours old.

use std::path::{Path, PathBuf};

use identity::Certificate;
use tokio::sync::watch;

use crate::limits::{MAX_SECRET_FILE_BYTES, ROOTS_POLL_INTERVAL};
use crate::small_file;

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
#[derive(Clone, Debug)]
pub struct Roots(Option<watch::Receiver<Vec<Certificate>>>);

impl Roots {
    /// No file.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Those that somebody tells.
    #[must_use]
    pub fn of(told: watch::Receiver<Vec<Certificate>>) -> Self {
        Self(Some(told))
    }

    /// The roots of a file, and the future that follows it for ever.
    pub fn of_file(path: PathBuf) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = watch::channel(Vec::new());
        (Self(Some(receiver)), follow(path, sender))
    }

    /// The present ones, seen by this value from now on.
    pub(super) fn see(&mut self) -> Vec<Certificate> {
        let roots = self.0.as_mut();
        roots
            .map(|roots| roots.borrow_and_update().clone())
            .unwrap_or_default()
    }

    /// Waits until there are others than were seen last.
    pub(super) async fn changed(&mut self) {
        if let Some(roots) = &mut self.0
            && roots.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// What cannot be read leaves those that were there.
async fn follow(path: PathBuf, roots: watch::Sender<Vec<Certificate>>) {
    let mut told = String::new();
    loop {
        match read(&path) {
            Ok(read) => {
                told.clear();
                roots.send_if_modified(|known| {
                    let changed = *known != read;
                    *known = read;
                    changed
                });
            }
            Err(error) => {
                let error = error.to_string();
                if told != error {
                    tracing::warn!(%error, "the file of the mesh's roots is not taken");
                    told = error;
                }
            }
        }
        tokio::time::sleep(ROOTS_POLL_INTERVAL).await;
    }
}
