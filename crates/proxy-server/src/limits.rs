//! Limits of the threads and of connections that carry no HTTP; those of HTTP are in [`crate::http::limits`].

use std::time::Duration;

/// Commands that may wait for one worker; whoever sends more has to wait.
pub const WORKER_QUEUE: usize = 1024;
/// How long the main thread waits for a worker that does not take its commands; then the process ends.
pub const WORKER_PATIENCE: Duration = Duration::from_secs(30);
/// How long connections may take to end when the process does, before they are dropped.
pub const CONNECTIONS_STOP_PATIENCE: Duration = Duration::from_secs(1);
/// How often a worker that ends looks whether its connections have ended.
pub const STOP_POLL: Duration = Duration::from_millis(1);
/// How long workers may take to end.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Threads of the main thread's own for calls that block: all name lookups of clusters at once, and some for the names
/// of discovery services and files.
pub const BLOCKING_THREADS: usize = proxy_upstream::limits::MAX_DNS_LOOKUPS + 8;
/// How often idle connections and the like are looked after.
pub const TICK: Duration = Duration::from_secs(1);
/// How long accepting rests after an error that will not go away at once, such as too many open files.
pub const REST_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);
/// Connections to the admin interface at a time; further ones wait.
pub const MAX_ADMIN_CONNECTIONS: usize = 64;
/// TLS handshakes that failed which a worker logs per [`HANDSHAKE_LOG_PERIOD`]; more are counted only.
pub const HANDSHAKE_FAILURES_LOGGED: u32 = 10;
/// The time after which a worker logs failed handshakes again.
pub const HANDSHAKE_LOG_PERIOD: Duration = Duration::from_secs(1);
/// How much a listener filter reads at once, bytes.
pub const INSPECTOR_READ_BYTES: usize = 4 * 1024;
/// The buffer that all TCP connections of a worker share, bytes.
pub const COPY_BUFFER_BYTES: usize = 64 * 1024;
/// How often one direction of a connection over TLS is read before others have their turn.
pub const COPIES_PER_TURN: usize = 16;
/// Bytes that one direction between two sockets moves before it is worth two descriptors and a pipe for splice(2).
pub const SPLICE_AFTER_BYTES: u64 = 128 * 1024;
/// How long after new configuration, or an answer of the admin interface, memory that is free again goes back to the
/// system. It is also how long one such return and the next are apart.
pub const MEMORY_RELEASE_DELAY: Duration = Duration::from_secs(1);
/// How often files with certificates and secrets are looked at for changes, and secrets that nobody uses any more are
/// let go of.
pub const SECRET_FILES_EVERY: Duration = Duration::from_secs(1);
/// Most bytes of a file with a secret (`path_config_source`).
pub const SECRET_FILE_MAX_BYTES: u64 = 16 << 20;
