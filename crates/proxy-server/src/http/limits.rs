//! Limits of the HTTP connection manager; defaults are Envoy's.

use std::time::Duration;

/// Size of a read block, and so the most that is read at once.
pub const READ_BLOCK_BYTES: usize = 16 * 1024;

/// Most free read blocks, and write buffers, that a worker keeps for the next connection that needs one.
pub const FREE_BLOCKS: usize = 64;

/// A write buffer that has grown beyond this is not kept.
pub const KEPT_WRITE_BYTES: usize = 64 * 1024;

/// Most bytes waiting to be written on one side before reading on the other pauses.
pub const PENDING_WRITE_BYTES: usize = 64 * 1024;

/// Most bytes of a request body that are kept for a retry, where the route does not say otherwise
/// (Envoy: `per_request_buffer_limit_bytes` falls back to the connection's buffer limit; a retry needs far less).
pub const RETRY_BODY_BYTES: usize = 64 * 1024;

/// Most bytes that a pipelining client may send ahead while its request is being served.
pub const PIPELINED_BYTES: usize = 64 * 1024;

/// Most 1xx responses before the final one.
pub const INTERIM_RESPONSES: usize = 16;

/// `stream_idle_timeout` when the configuration is silent.
pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// `idle_timeout` of downstream connections when the configuration is silent.
pub const CONNECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// `delayed_close_timeout` when the configuration is silent: how long a connection that was told to close may
/// linger, so that the client reads the response before it sees a reset.
pub const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// `drain_timeout` when the configuration is silent.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest `max_request_headers_kb` (Envoy: 8192).
pub const REQUEST_HEADERS_KIB_CEILING: u32 = 8192;

/// Most pairs of heads that a worker keeps for reuse.
pub const FREE_HEADS: usize = 64;

/// A request that its client resets sooner, and without an answer, was reset prematurely
/// (Envoy: `overload.premature_reset_min_stream_lifetime_seconds`, in whole seconds above one).
pub const PREMATURE_RESET_AGE: Duration = Duration::from_secs(2);

/// How many requests of a connection are looked at before it is closed because half of them were reset prematurely
/// (Envoy: `overload.premature_reset_total_stream_count`).
pub const PREMATURE_RESETS_LOOKED_AT: u64 = 500;

/// Requests of a connection that their client may have reset before they were looked at; with one more it is closed.
pub const RESETS_BEFORE_BEGINNING: usize = 250;

/// Most bytes of an answer's body that become its `grpc-message` where gRPC-Web cannot carry it (Envoy:
/// `MAX_BUFFERED_PLAINTEXT_LENGTH`).
pub const GRPC_MESSAGE_BYTES: usize = 16 * 1024;

/// Longest time of a mirrored request; nobody waits for it.
pub const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);
