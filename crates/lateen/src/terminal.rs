//! Single keys from the terminal, without Enter, as long as a guard lives.

use std::io::Read as _;

use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// The keys that wait to be read; more are dropped.
const KEY_QUEUE: usize = 8;

/// The terminal in single-key mode; dropping it restores the mode it had.
#[derive(Debug)]
pub(crate) struct Keys {
    before: Termios,
    keys: mpsc::Receiver<u8>,
}

impl Keys {
    /// `None` when there is no terminal to read from.
    pub(crate) fn listen() -> Option<Self> {
        let input = std::io::stdin();
        if !isatty(&input) || !isatty(std::io::stdout()) {
            return None;
        }
        let before = tcgetattr(&input).ok()?;
        let mut single = before.clone();
        single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Now, &single).ok()?;
        let (sender, keys) = mpsc::channel(KEY_QUEUE);
        // A read from a terminal cannot be cancelled, so it has a thread, which ends with the process.
        std::thread::spawn(move || {
            let mut input = std::io::stdin();
            let mut key = [0];
            while input.read_exact(&mut key).is_ok() {
                let _ = sender.try_send(key[0]);
            }
        });
        Some(Self { before, keys })
    }

    /// The next key; waits forever once the terminal is gone.
    pub(crate) async fn next(&mut self) -> u8 {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
