//! Access logs (Envoy: "Access logging").
//!
//! - [`access_log`]: one configured log, compiled: its filter, its format, its file.
//! - [`filter`]: which streams are logged (`envoy.config.accesslog.v3.AccessLogFilter`).
//! - [`format`]: text and JSON lines.
//! - [`file`]: the files, and the thread that writes them.

pub mod access_log;
pub mod file;
pub mod filter;
pub mod format;
pub mod limits;

pub use access_log::{AccessLog, FileAccessLogger};
pub use file::{FileCounts, LogFiles, Opener};
