//! Shared by this crate's unit tests.

use std::time::Duration;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What `work` gives, which may block, unless it blocks for too long.
pub(crate) fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, done) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(work()));
    done.recv_timeout(PATIENCE)
        .expect("it ended, in time and without a panic")
}
