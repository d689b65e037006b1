//! Limits of the snapshot.

/// Diagnostics kept of one build; a world with more has one cause for most of them.
pub const MAX_DIAGNOSTICS: usize = 1000;
