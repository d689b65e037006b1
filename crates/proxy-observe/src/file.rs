//! Log files: workers append lines to a buffer, one thread writes the buffers out (Envoy's `AccessLogFileImpl`).
//!
//! A worker never waits for a disk or a pipe. When a file cannot keep up its lines are dropped and counted.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::limits::{FLUSH_BYTES, KEPT_BYTES, MAX_PENDING_BYTES};

/// A file that lines are appended to. Shared by all workers.
#[derive(Debug)]
pub struct LogFile {
    path: String,
    pending: Mutex<Vec<u8>>,
    dropped: AtomicU64,
    wake: Arc<Wake>,
}

#[derive(Debug, Default)]
struct Wake {
    state: Mutex<WakeState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WakeState {
    flush_now: bool,
    reopen: bool,
    stop: bool,
}

/// All log files of a process, and the thread that writes them. Dropping it writes what is pending.
#[derive(Debug)]
pub struct LogFiles {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Arc<LogFile>>>,
    wake: Arc<Wake>,
}

impl LogFile {
    /// Appends a line, its newline included.
    pub fn append(&self, line: &[u8]) {
        let mut pending = self.pending.lock();
        if pending.len() + line.len() > MAX_PENDING_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = pending.len();
        pending.extend_from_slice(line);
        // Once is enough: the thread takes everything when it wakes.
        if before < FLUSH_BYTES && pending.len() >= FLUSH_BYTES {
            drop(pending);
            self.wake.notify(|s| s.flush_now = true);
        }
    }

    /// How many lines were dropped because the file could not keep up.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Where it writes.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Wake {
    fn notify(&self, change: impl FnOnce(&mut WakeState)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }
}

impl LogFiles {
    /// Starts the writing thread; it writes at least every `flush_interval`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(flush_interval: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || for_thread.run(flush_interval))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The file at `path`, opened for appending if this is its first use.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(&self, path: &str) -> io::Result<Arc<LogFile>> {
        let mut files = self.shared.files.lock();
        if let Some(file) = files.get(path) {
            return Ok(Arc::clone(file));
        }
        // Opened once here so that a wrong path is refused with the configuration; the thread opens its own.
        drop(open(path)?);
        let file = Arc::new(LogFile {
            path: path.to_owned(),
            pending: Mutex::default(),
            dropped: AtomicU64::new(0),
            wake: Arc::clone(&self.shared.wake),
        });
        files.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    /// Closes and opens every file, for log rotation (`/reopen_logs`).
    pub fn reopen(&self) {
        self.shared.wake.notify(|s| {
            s.reopen = true;
            s.flush_now = true;
        });
    }

    /// Asks for what is pending to be written now.
    pub fn flush(&self) {
        self.shared.wake.notify(|s| s.flush_now = true);
    }
}

impl Drop for LogFiles {
    fn drop(&mut self) {
        self.shared.wake.notify(|s| s.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Shared {
    fn run(&self, flush_interval: Duration) {
        let mut open_files: BTreeMap<String, File> = BTreeMap::new();
        let mut spare = Vec::new();
        loop {
            let mut state = self.wake.state.lock();
            if !state.flush_now && !state.stop {
                self.wake.changed.wait_for(&mut state, flush_interval);
            }
            let (reopen, stop) = (state.reopen, state.stop);
            *state = WakeState {
                stop,
                ..WakeState::default()
            };
            drop(state);
            if reopen {
                open_files.clear();
            }
            self.write_pending(&mut open_files, &mut spare);
            if stop {
                return;
            }
        }
    }

    /// Writes what is pending. Each file gets the memory of the one before, in `spare`, so that workers need not
    /// allocate for the lines to come.
    fn write_pending(&self, open_files: &mut BTreeMap<String, File>, spare: &mut Vec<u8>) {
        let files: Vec<Arc<LogFile>> = self.files.lock().values().cloned().collect();
        for file in files {
            if spare.capacity() > KEPT_BYTES {
                *spare = Vec::new();
            }
            spare.clear();
            std::mem::swap(&mut *file.pending.lock(), spare);
            let bytes = &*spare;
            if bytes.is_empty() {
                continue;
            }
            let written = match open_files.get_mut(&file.path) {
                Some(open) => open.write_all(bytes),
                None => open(&file.path).and_then(|mut opened| {
                    opened.write_all(bytes)?;
                    open_files.insert(file.path.clone(), opened);
                    Ok(())
                }),
            };
            if written.is_err() {
                open_files.remove(&file.path);
                let lines = bytes.iter().filter(|b| **b == b'\n').count();
                file.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_written_when_the_files_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log").display().to_string();
        let files = LogFiles::start(Duration::from_secs(3600)).unwrap();
        let file = files.open(&path).unwrap();
        file.append(b"one\n");
        file.append(b"two\n");
        drop(files);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn lines_beyond_the_limit_are_dropped_and_counted() {
        let files = LogFiles::start(Duration::from_secs(3600)).unwrap();
        let file = files.open("/dev/null").unwrap();
        *file.pending.lock() = vec![b'x'; MAX_PENDING_BYTES];
        file.append(b"too much\n");
        assert_eq!(file.dropped(), 1);
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_refused_at_once() {
        let files = LogFiles::start(Duration::from_secs(3600)).unwrap();
        assert!(files.open("/nonexistent/folder/access.log").is_err());
    }
}
