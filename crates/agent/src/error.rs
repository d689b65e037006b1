//! Why a workload could not join.

use std::error::Error;
use std::io;

/// The shells' exit code for a command that does not exist.
const COMMAND_NOT_FOUND: u8 = 127;

/// The shells' exit code for a command that cannot be executed.
const COMMAND_NOT_EXECUTABLE: u8 = 126;

/// What failed, why, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct AgentError {
    /// What was tried, for which workload.
    pub what: String,
    /// The reason, from whoever refused.
    pub why: Box<dyn Error + Send + Sync>,
    /// What the user can do, as a full sentence; empty when there is nothing to say.
    pub mend: String,
    /// The exit code of a program that fails with this error.
    pub exit_code: u8,
}

impl AgentError {
    /// An error without advice.
    pub fn new(what: impl Into<String>, why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            mend: String::new(),
            exit_code: 1,
        }
    }

    /// The application's own command cannot be started; the exit code is the one that a shell would give.
    pub fn command(what: impl Into<String>, why: io::Error) -> Self {
        let exit_code = match why.kind() {
            io::ErrorKind::NotFound => COMMAND_NOT_FOUND,
            _ => COMMAND_NOT_EXECUTABLE,
        };
        Self {
            exit_code,
            ..Self::new(what, why)
        }
        .mend("Check the command after --; it is looked up in PATH.")
    }

    /// Adds advice.
    #[must_use]
    pub fn mend(mut self, advice: impl Into<String>) -> Self {
        self.mend = advice.into();
        self
    }
}
