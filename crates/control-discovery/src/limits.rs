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
/// Stream events that may wait for whoever listens to them.
pub const STREAM_EVENTS: usize = 256;
/// Wait for open streams to end when the server stops.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// Most ports tried when the wanted one is taken.
pub const PORTS_TRIED: u16 = 50;
