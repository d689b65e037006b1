//! Limits of configuration and of what listener filters may hold back.

use std::time::Duration;

/// `per_connection_buffer_limit_bytes` when a listener does not say (Envoy's default), bytes.
pub const DEFAULT_CONNECTION_BUFFER_LIMIT_BYTES: u32 = 1 << 20;
/// Length of the accept queue when a listener does not say (`tcp_backlog_size`).
pub const DEFAULT_BACKLOG: u32 = 4096;
/// `listener_filters_timeout` when a listener does not say, seconds.
pub const DEFAULT_LISTENER_FILTERS_TIMEOUT_SECONDS: u64 = 15;
/// `transport_socket_connect_timeout` when a filter chain does not say. Envoy then waits for as long as the client likes.
pub const DEFAULT_TRANSPORT_SOCKET_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// `initial_fetch_timeout` of a config source that does not say, seconds.
pub const DEFAULT_INITIAL_FETCH_TIMEOUT_SECONDS: u64 = 15;
/// `idle_timeout` of the TCP proxy when it does not say, seconds.
pub const DEFAULT_TCP_IDLE_TIMEOUT_SECONDS: u64 = 3600;
/// `backoff_options.max_interval` of the TCP proxy when it does not say, in base intervals.
pub const TCP_BACKOFF_MAX_MULTIPLE: u32 = 10;
/// Least `max_client_hello_size` of the TLS inspector that is accepted, as in Envoy, bytes.
pub const MIN_CLIENT_HELLO_BYTES: usize = 256;
/// Most bytes of a request line that the HTTP inspector waits for.
pub const REQUEST_LINE_MAX_BYTES: usize = 64 * 1024;
/// Most filter chains in one listener.
pub const MAX_FILTER_CHAINS: usize = 20_000;
/// Refused listeners of which none was ever taken that `/config_dump` tells of; of more it tells of the latest.
pub const MAX_REFUSED_LISTENERS: usize = 1000;
/// Most workers (`--concurrency`).
pub const MAX_WORKERS: usize = 256;
/// Most bytes of a bootstrap file.
pub const BOOTSTRAP_MAX_BYTES: u64 = 64 << 20;
