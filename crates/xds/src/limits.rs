//! Bounds of the protocol and of its gRPC shell.

use std::time::Duration;

/// Largest response a client accepts, in bytes. A mesh of some thousand services needs several megabytes of clusters.
pub const MAX_RESPONSE_BYTES: usize = 256 << 20;
/// Largest request a server accepts, in bytes (Istio: `ISTIO_GPRC_MAXRECVMSGSIZE`, 4 MiB).
pub const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Longest `error_detail.message` a client sends, in bytes; what is longer is cut.
pub const MAX_ERROR_DETAIL_BYTES: usize = 8 << 10;
/// Requests that may wait for the wire on one client stream.
pub const CLIENT_REQUEST_QUEUE: usize = 32;
/// Responses that may wait for the wire on one server stream.
pub const SERVER_RESPONSE_QUEUE: usize = 4;
/// Commands that may wait for a client loop.
pub const COMMAND_QUEUE: usize = 64;
/// First wait before a new connection attempt (Envoy: `RETRY_INITIAL_DELAY_MS`).
pub const RECONNECT_BASE: Duration = Duration::from_millis(500);
/// Longest wait before a new connection attempt (Envoy: `RETRY_MAX_DELAY_MS`).
pub const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// How long one connection attempt may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 keepalive: a ping after this much silence (Istio: `GRPC_KEEPALIVE_INTERVAL`).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// HTTP/2 keepalive: the peer is gone when a ping is unanswered for this long (Istio: `GRPC_KEEPALIVE_TIMEOUT`).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server that stops waits for clients that do not read.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that one connection to the server may open.
pub const MAX_CONCURRENT_STREAMS: u32 = 1024;
/// Resource types that one stream may watch.
pub const MAX_TYPES_PER_STREAM: usize = 32;
/// Names that one stream may subscribe to, per type.
pub const MAX_NAMES_PER_TYPE: usize = 200_000;
/// Responses of one type since the last that was accepted whose refusals are understood; older ones are forgotten.
pub const MAX_UNANSWERED_RESPONSES: usize = 16;
/// How long a connection attempt waits for the secrets of its TLS context.
pub const SECRETS_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks for them.
pub const SECRETS_POLL_INTERVAL: Duration = Duration::from_millis(5);
