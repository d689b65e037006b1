//! Reads small files that may hold secrets.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The whole of a regular file of at most `limit` bytes.
///
/// Paths come from configuration, too, and the thread that reads serves everybody else: nothing here waits for a pipe's
/// other end or for a terminal's next line.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    open_regular(path)?
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let why = format!("it has more than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// It is looked at before it is opened, since opening a device may do something already, and afterwards, since it may
/// be another one by then.
fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(&std::fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = options.read(true).custom_flags(flags.cast_signed()).open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// Reads on another thread, as that may never return.
    fn read_in_time(path: PathBuf) -> io::Result<Vec<u8>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || sender.send(read(&path, 8).map(|bytes| bytes.to_vec())));
        receiver.recv_timeout(Duration::from_secs(5)).expect("it returns")
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        let others = ["/dev/ptmx", "/dev/zero"].map(PathBuf::from);
        for path in [pipe, link, folder.path().to_owned()].into_iter().chain(others) {
            let refused = read_in_time(path.clone()).expect_err("it is no regular file");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"12345678").unwrap();
        assert_eq!(read_in_time(path.clone()).unwrap(), b"12345678");
        std::fs::write(&path, b"123456789").unwrap();
        let refused = read_in_time(path).expect_err("it is too large");
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
    }
}
