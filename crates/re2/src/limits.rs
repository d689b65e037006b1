//! Bounds of regular expressions.

/// Compiled size, in bytes, at which a regular expression is refused.
pub const MAX_EXPRESSION_BYTES: usize = 1 << 20;
/// How often a counted repetition may repeat, together with those around it. RE2's bound.
pub const MAX_REPEAT: u32 = 1000;
/// How deep groups may be in one another. RE2's bound.
pub const MAX_DEPTH: u32 = 1000;
