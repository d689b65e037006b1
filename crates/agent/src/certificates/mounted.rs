//! Certificates that somebody else keeps in files (`FILE_MOUNTED_CERTS`; `security/pkg/nodeagent/cache` of Istio): a
//! chain, its key, and the roots, looked at again and again. What does not hold together, has expired, or is another
//! service account's, is refused whole: what was in force stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use identity::{ServiceAccount, Svid, SvidError};
use telemetry::logging::chain as causes;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::roots::{self, RootsError};
use super::{Clock, Held, NotOurs, State};
use crate::limits::{FILE_POLL_INTERVAL, MAX_SECRET_FILE_BYTES};
use crate::metrics::Metrics;
use crate::small_file;

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedFiles {
    /// The workload's certificate and what leads to the roots.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// What it trusts.
    pub roots: PathBuf,
}

impl MountedFiles {
    /// Where Istio has them.
    pub const FOLDER: &'static str = "/etc/certs";

    /// The files of a folder, under Istio's names.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Self {
        Self {
            chain: folder.join("cert-chain.pem"),
            key: folder.join("key.pem"),
            roots: folder.join("root-cert.pem"),
        }
    }
}

/// Why files are not taken. Nothing of a key is in it.
#[derive(Debug, thiserror::Error)]
enum MountedError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Read(PathBuf, std::io::Error),
    #[error("the roots")]
    Roots(#[from] RootsError),
    #[error("the certificate")]
    Svid(#[from] SvidError),
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
}

fn read(files: &MountedFiles, account: &ServiceAccount, now: SystemTime) -> Result<Held, MountedError> {
    let text = |path: &PathBuf| -> Result<Zeroizing<Vec<u8>>, MountedError> {
        let read = small_file::read(path, MAX_SECRET_FILE_BYTES);
        read.map_err(|error| MountedError::Read(path.clone(), error))
    };
    let roots = roots::read(&files.roots)?;
    let svid = Svid::from_pem(&text(&files.chain)?, &text(&files.key)?)?;
    Ok(Held::new(svid, roots, account, now)?)
}

/// Follows the files, for ever; `state` tells how things stand.
pub async fn follow(
    files: MountedFiles,
    account: ServiceAccount,
    clock: Clock,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
) {
    loop {
        match read(&files, &account, clock()) {
            Ok(new) => {
                let known = state.borrow().held.clone();
                if !known.is_some_and(|known| same(&known, &new)) {
                    tracing::info!(identity = %new.svid.id(), serial = new.svid.leaf().serial(), "a certificate from files");
                    state.send_replace(State {
                        held: Some(Arc::new(new)),
                        ..State::default()
                    });
                } else if state.borrow().failure.is_some() {
                    state.send_modify(|state| (state.failure, state.failures) = (None, 0));
                }
            }
            Err(error) => {
                let reason: Arc<str> = causes(&error).into();
                if state.borrow().failure.as_ref() != Some(&reason) {
                    metrics.file_failed();
                    tracing::warn!(%reason, "certificates from files are refused; what was in force still is");
                    state.send_modify(|state| {
                        state.failures += 1;
                        state.failure = Some(reason);
                    });
                }
            }
        }
        tokio::time::sleep(FILE_POLL_INTERVAL).await;
    }
}

fn same(known: &Held, new: &Held) -> bool {
    known.svid.chain().eq(new.svid.chain()) && known.roots == new.roots
}
