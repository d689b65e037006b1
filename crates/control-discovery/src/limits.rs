//! Bounds of the discovery server.

use std::time::Duration;

/// A change is published when nothing has changed for this long.
pub const DEBOUNCE_QUIET: Duration = Duration::from_millis(10);
/// A change is published after this long even if changes keep coming.
pub const DEBOUNCE_MAX: Duration = Duration::from_secs(1);
/// Proxies that are translated for and written to at the same time (Istio: `PILOT_PUSH_THROTTLE`).
pub const CONCURRENT_PUSHES: usize = 100;
/// Publications whose changed kinds are remembered for streams that lag behind.
pub const PUBLICATION_HISTORY: usize = 64;
