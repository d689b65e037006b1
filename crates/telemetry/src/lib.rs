//! Counters per worker, and logging set-up.
//!
//! - [`stats`]: counters, gauges and histograms under Envoy's names, one shard of plain cells per thread.
//! - [`render`]: the formats of Envoy's `/stats`.
//! - [`logging`]: `tracing` with a level that can be changed while running.

pub mod histogram;
pub mod logging;
mod names;
pub mod render;
pub mod stats;
