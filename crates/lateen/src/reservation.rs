//! A workload's name, or a mesh's folder, held by the process that starts it until that has ended.
//!
//! The record of a workload comes only when it is ready. Until then another `lateen run` of the same service would take
//! the same name, and with it the folder; so would two meshes that start at the same time take each other's. The kernel
//! gives a lock on a file back however the process ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A name that belongs to this process as long as this value lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    path: PathBuf,
    _file: File,
}

impl Reservation {
    /// Reserves what the lock file stands for; `None` when another process has it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = File::options().create(true).append(true).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever had it before may have removed the file after it was opened here; then the lock is worth nothing.
            let same = |there: fs::Metadata| Ok(there.ino() == file.metadata()?.ino());
            match fs::metadata(path).and_then(same) {
                Ok(true) => {
                    return Ok(Some(Self {
                        path: path.to_owned(),
                        _file: file,
                    }));
                }
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_once_and_again_when_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reviews-v4.default.lock");
        let first = Reservation::take(&path).unwrap();
        assert!(first.is_some());
        assert!(Reservation::take(&path).unwrap().is_none());
        drop(first);
        assert!(!path.exists());
        assert!(Reservation::take(&path).unwrap().is_some());
    }
}
