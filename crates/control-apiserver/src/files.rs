//! Files that only their owner may read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::start_error::StartError;

/// Mode of every file with a secret in it.
const PRIVATE: u32 = 0o600;

/// The content of a file, which is made when it is missing.
pub(crate) fn read_or_create(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, StartError>,
) -> Result<Vec<u8>, StartError> {
    match fs::read(path) {
        Ok(content) if !content.is_empty() => Ok(content),
        Ok(_) => create(path, make),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path, make),
        Err(error) => Err(StartError::file(path, error)),
    }
}

fn create(path: &Path, make: impl FnOnce() -> Result<Vec<u8>, StartError>) -> Result<Vec<u8>, StartError> {
    let content = make()?;
    write(path, &content)?;
    Ok(content)
}

/// Makes the file when it is missing, and takes it away from everybody but its owner.
pub(crate) fn make_private(path: &Path) -> Result<(), StartError> {
    let restrict = || -> std::io::Result<()> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(PRIVATE)
            .open(path)?;
        file.set_permissions(fs::Permissions::from_mode(PRIVATE))
    };
    restrict().map_err(|error| StartError::file(path, error))
}

/// Replaces a file at once: readers see the old content or the new, with mode 0600 from its first moment.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), StartError> {
    let temporary = path.with_extension("new");
    let replace = || -> std::io::Result<()> {
        if let Err(error) = fs::remove_file(&temporary)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    replace().map_err(|error| StartError::file(path, error))
}
