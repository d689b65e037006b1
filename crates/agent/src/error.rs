//! Why a workload could not join.

use std::error::Error;

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
}

impl AgentError {
    /// An error without advice.
    pub fn new(what: impl Into<String>, why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            mend: String::new(),
        }
    }

    /// Adds advice.
    #[must_use]
    pub fn mend(mut self, advice: impl Into<String>) -> Self {
        self.mend = advice.into();
        self
    }
}
