//! `tracing` output on standard error, with a level that can be changed while running (Envoy's `/logging`).

use std::sync::OnceLock;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

static HANDLE: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// An error and its causes on one line: errors say their own level only.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Where and how log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One readable line per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging to standard error. `filter` is a `tracing` directive list, such as `info` or `warn,xds=debug`.
/// Only the first call of a process counts.
///
/// # Errors
/// The filter does not parse.
pub fn init(filter: &str, format: Format) -> Result<(), String> {
    let filter = parse(filter)?;
    let (layer, handle) = reload::Layer::new(filter);
    if HANDLE.set(handle).is_err() {
        return Ok(());
    }
    let registry = tracing_subscriber::registry().with(layer);
    let output = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(true);
    // A logger that somebody else installed first stays; that is no reason to stop.
    let _ = match format {
        Format::Text => registry.with(output.with_ansi(false)).try_init(),
        Format::Json => registry.with(output.json()).try_init(),
    };
    Ok(())
}

/// Changes the filter of a running process.
///
/// # Errors
/// The filter does not parse, or logging was not started.
pub fn set_filter(filter: &str) -> Result<(), String> {
    let filter = parse(filter)?;
    let handle = HANDLE.get().ok_or("logging was not started")?;
    handle.reload(filter).map_err(|e| e.to_string())
}

/// The filter in force, or nothing when logging was not started.
#[must_use]
pub fn filter() -> Option<String> {
    HANDLE.get()?.with_current(ToString::to_string).ok()
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter:?}: {e}"))
}
