//! The limits of the command line, by name.

use std::time::Duration;

/// The most processes between one and its ancestor when a workload is looked for.
pub(crate) const MAX_PROCESS_DEPTH: usize = 64;

/// How long the control plane may take to answer its API after it was started.
pub(crate) const CONTROL_PLANE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a starting control plane is asked.
pub(crate) const CONTROL_PLANE_POLL: Duration = Duration::from_millis(10);

/// How long the first page may take, once everything is ready.
pub(crate) const FIRST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the first page is asked for.
pub(crate) const FIRST_RESPONSE_POLL: Duration = Duration::from_millis(10);

/// How long one request of the load generator, or one question to a proxy, may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The most requests per second that the load generator makes.
pub(crate) const MAX_LOAD_RPS: u32 = 50;

/// The largest body that is read, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Ports that are tried, one after the other, when one is taken.
pub(crate) const MAX_PORT_TRIES: u16 = 100;

/// How long `lateen down` waits for a mesh to end before it makes it.
pub(crate) const DOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long requests under way may take when a workload of the demo stops.
pub(crate) const DEMO_DRAIN: Duration = Duration::ZERO;

/// How often `lateen logs -f` looks for new lines.
pub(crate) const LOG_POLL: Duration = Duration::from_millis(200);

/// How long `lateen demo --detach` waits for the demo to be ready.
pub(crate) const DETACH_TIMEOUT: Duration = Duration::from_secs(60);

/// How long after a change of the mesh memory that is free again goes back to the system. It is also how long one such
/// return and the next are apart.
pub(crate) const MEMORY_RELEASE_DELAY: Duration = Duration::from_secs(1);

/// Which part of a certificate's life is left when commands say that it expires soon: its renewal, which is due at half of
/// it, has then failed for a while.
pub(crate) const EXPIRES_SOON: f64 = 0.25;
