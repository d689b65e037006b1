//! What the control plane logs while a test runs. Tests have one thread each, so that each sees its own lines.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// How often a line is looked for.
const LOOKS: u32 = 200;

/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What was written.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Listens for warnings and errors on this thread until the guard is dropped.
    pub(crate) fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_writer(log.clone())
            .with_ansi(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Fails unless a line with all of these words comes in time: a client may hear of a refusal before it is logged.
    pub(crate) async fn must_say(&self, words: &[&str]) {
        for _ in 0..LOOKS {
            if self
                .text()
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
            {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        panic!("no line of the log says {words:?}:\n{}", self.text());
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
