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
    pending: Mutex<Pending>,
    wake: Arc<Wake>,
}

/// What waits for a file, and how many lines have come so far.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    taken: u64,
    dropped: u64,
}

/// How the files have fared so far, under the names of Envoy's `filesystem.` statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounts {
    /// Lines taken into a buffer.
    pub write_buffered: u64,
    /// Writes of a buffer that succeeded.
    pub write_completed: u64,
    /// Writes of a buffer that failed, which loses its lines; and lines that found no room, of which Envoy, whose
    /// buffers have no limit, knows none.
    pub write_failed: u64,
    /// Writes of a buffer because the flush interval was over.
    pub flushed_by_timer: u64,
    /// Times that a file could not be opened again.
    pub reopen_failed: u64,
    /// Bytes in the buffers now.
    pub write_total_buffered: u64,
}

/// What the writing thread counts.
#[derive(Debug, Default)]
struct Written {
    completed: AtomicU64,
    failed: AtomicU64,
    by_timer: AtomicU64,
    reopen_failed: AtomicU64,
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

/// Opens the file that configuration names, for appending.
pub type Opener = fn(&str) -> io::Result<File>;

#[derive(Debug)]
struct Shared {
    opener: Opener,
    files: Mutex<BTreeMap<String, Arc<LogFile>>>,
    wake: Arc<Wake>,
    written: Written,
}

impl LogFile {
    /// Appends a line, its newline included.
    pub fn append(&self, line: &[u8]) {
        let mut pending = self.pending.lock();
        if pending.bytes.len() + line.len() > MAX_PENDING_BYTES {
            pending.dropped += 1;
            return;
        }
        let before = pending.bytes.len();
        pending.bytes.extend_from_slice(line);
        pending.taken += 1;
        // Once is enough: the thread takes everything when it wakes.
        if before < FLUSH_BYTES && pending.bytes.len() >= FLUSH_BYTES {
            drop(pending);
            self.wake.notify(|s| s.flush_now = true);
        }
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
        Self::start_opening(flush_interval, open)
    }

    /// [`LogFiles::start`] with another way to open files, for who compiles configuration that nobody vouches for.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start_opening(flush_interval: Duration, opener: Opener) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            opener,
            files: Mutex::default(),
            wake: Arc::default(),
            written: Written::default(),
        });
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
        drop((self.shared.opener)(path)?);
        let file = Arc::new(LogFile {
            path: path.to_owned(),
            pending: Mutex::default(),
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

    /// How the files have fared so far.
    #[must_use]
    pub fn counts(&self) -> FileCounts {
        let written = &self.shared.written;
        let mut counts = FileCounts {
            write_completed: written.completed.load(Ordering::Relaxed),
            write_failed: written.failed.load(Ordering::Relaxed),
            flushed_by_timer: written.by_timer.load(Ordering::Relaxed),
            reopen_failed: written.reopen_failed.load(Ordering::Relaxed),
            ..FileCounts::default()
        };
        for file in self.shared.files.lock().values() {
            let pending = file.pending.lock();
            counts.write_buffered += pending.taken;
            counts.write_failed += pending.dropped;
            counts.write_total_buffered += pending.bytes.len() as u64;
        }
        counts
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
            let mut by_timer = false;
            if !state.flush_now && !state.stop {
                by_timer = self.wake.changed.wait_for(&mut state, flush_interval).timed_out();
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
            let flushed = self.write_pending(&mut open_files, &mut spare);
            if by_timer {
                self.written.by_timer.fetch_add(flushed, Ordering::Relaxed);
            }
            if stop {
                return;
            }
        }
    }

    /// Writes what is pending. Each file gets the memory of the one before, in `spare`, so that workers need not
    /// allocate for the lines to come. Returns how many files had something.
    fn write_pending(&self, open_files: &mut BTreeMap<String, File>, spare: &mut Vec<u8>) -> u64 {
        let mut flushed = 0;
        let files: Vec<Arc<LogFile>> = self.files.lock().values().cloned().collect();
        for file in files {
            if spare.capacity() > KEPT_BYTES {
                *spare = Vec::new();
            }
            spare.clear();
            std::mem::swap(&mut file.pending.lock().bytes, spare);
            if spare.is_empty() {
                continue;
            }
            flushed += 1;
            let counter = match self.write(&file.path, open_files, spare) {
                Ok(()) => &self.written.completed,
                Err(_) => {
                    open_files.remove(&file.path);
                    &self.written.failed
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        flushed
    }

    fn write(&self, path: &str, open_files: &mut BTreeMap<String, File>, bytes: &[u8]) -> io::Result<()> {
        if let Some(open) = open_files.get_mut(path) {
            return open.write_all(bytes);
        }
        let mut opened = (self.opener)(path).inspect_err(|_| {
            self.written.reopen_failed.fetch_add(1, Ordering::Relaxed);
        })?;
        opened.write_all(bytes)?;
        open_files.insert(path.to_owned(), opened);
        Ok(())
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
        file.pending.lock().bytes = vec![b'x'; MAX_PENDING_BYTES];
        file.append(b"too much\n");
        let counts = FileCounts {
            write_failed: 1,
            write_total_buffered: MAX_PENDING_BYTES as u64,
            ..FileCounts::default()
        };
        assert_eq!(files.counts(), counts);
    }

    /// Waits until the writing thread has written, or failed to.
    fn counts_after_a_write(files: &LogFiles) -> FileCounts {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let counts = files.counts();
            if counts.write_completed + counts.write_failed > 0 {
                return counts;
            }
            assert!(std::time::Instant::now() < deadline, "{counts:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_was_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let files = LogFiles::start(Duration::from_secs(3600)).unwrap();
        let file = files.open(&dir.path().join("log").display().to_string()).unwrap();
        file.append(b"one\n");
        file.append(b"two\n");
        let waiting = FileCounts {
            write_buffered: 2,
            write_total_buffered: 8,
            ..FileCounts::default()
        };
        assert_eq!(files.counts(), waiting);
        files.flush();
        let written = FileCounts {
            write_completed: 1,
            write_total_buffered: 0,
            ..waiting
        };
        assert_eq!(counts_after_a_write(&files), written);
    }

    #[test]
    fn a_flush_by_the_timer_is_counted_as_such() {
        let files = LogFiles::start(Duration::from_millis(1)).unwrap();
        files.open("/dev/null").unwrap().append(b"one\n");
        counts_after_a_write(&files);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while files.counts().flushed_by_timer == 0 {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_write_that_fails_is_counted() {
        let files = LogFiles::start(Duration::from_secs(3600)).unwrap();
        files.open("/dev/full").unwrap().append(b"one\n");
        files.flush();
        let counts = counts_after_a_write(&files);
        assert_eq!((counts.write_failed, counts.reopen_failed), (1, 0));
        assert_eq!(counts.write_total_buffered, 0, "its lines are lost");
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let files = LogFiles::start(Duration::from_secs(3600)).unwrap();
        let file = files.open(&dir.path().join("log").display().to_string()).unwrap();
        drop(dir);
        file.append(b"one\n");
        files.reopen();
        let counts = counts_after_a_write(&files);
        assert_eq!((counts.write_failed, counts.reopen_failed), (1, 1));
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_refused_at_once() {
        let files = LogFiles::start(Duration::from_secs(3600)).unwrap();
        assert!(files.open("/nonexistent/folder/access.log").is_err());
    }
}
