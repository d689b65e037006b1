//! Limits of the snapshot.

/// Diagnostics kept of one build; a world with more has one cause for most of them.
pub const MAX_DIAGNOSTICS: usize = 1000;

/// The largest table of Maglev that proxies take (`envoy.config.cluster.v3.Cluster.MaglevLbConfig`).
pub const MAX_MAGLEV_TABLE_SIZE: u64 = 5_000_011;
/// The largest ring that proxies take (`envoy.config.cluster.v3.Cluster.RingHashLbConfig`).
pub const MAX_RING_SIZE: u64 = 8 * 1024 * 1024;
