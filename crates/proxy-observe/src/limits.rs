//! Limits of this crate; docs/limits.md lists them all.

/// Most bytes that wait for one log file; lines beyond are dropped, and counted in `filesystem.write_failed`.
pub const MAX_PENDING_BYTES: usize = 4 << 20;
/// When so many bytes wait, the writer is woken without waiting for the flush interval (Envoy: 64 KiB).
pub const FLUSH_BYTES: usize = 64 << 10;
/// A buffer that has grown beyond this is not kept for the next lines.
pub const KEPT_BYTES: usize = 256 << 10;
/// Longest line; what goes beyond is cut.
pub const MAX_LINE_BYTES: usize = 64 << 10;
