//! Named limits of this crate. Where a limit is Envoy's default, the field that it stands for is named.

use std::time::Duration;

/// `Cluster.connect_timeout` when it is absent.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `HttpProtocolOptions.idle_timeout` of upstream connections when it is absent.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// `Cluster.per_connection_buffer_limit_bytes` when it is absent.
pub const DEFAULT_BUFFER_LIMIT_BYTES: u32 = 1024 * 1024;
/// `Cluster.cleanup_interval` of `ORIGINAL_DST` clusters when it is absent.
pub const DEFAULT_CLEANUP_INTERVAL: Duration = Duration::from_secs(5);
/// `Cluster.dns_refresh_rate` when it is absent.
pub const DEFAULT_DNS_REFRESH_RATE: Duration = Duration::from_secs(5);
/// The shortest `Cluster.dns_refresh_rate` that is accepted.
pub const MIN_DNS_REFRESH_RATE: Duration = Duration::from_millis(1);
/// Addresses kept of one DNS answer; more are ignored.
pub const MAX_DNS_ADDRESSES: usize = 1024;
/// A DNS lookup that takes longer has failed; its answer is taken if it comes all the same.
pub const DNS_LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Names that are looked up at once. Each lookup holds a thread until it ends.
pub const MAX_DNS_LOOKUPS: usize = 32;
/// As many of them may be of names that have not answered in [`DNS_SLOW_AFTER`] yet.
pub const MAX_UNPROVEN_DNS_LOOKUPS: usize = 24;
/// As many of them may be of names whose last lookup took longer than [`DNS_SLOW_AFTER`].
pub const MAX_SLOW_DNS_LOOKUPS: usize = 8;
/// A name whose lookup takes longer has to wait behind others the next time.
pub const DNS_SLOW_AFTER: Duration = Duration::from_secs(1);
/// Names of which is remembered how their last lookup went; beyond it all are forgotten.
pub const MAX_DNS_NAMES_KNOWN: usize = 16 * 1024;

/// Methods of gRPC that have statistics of their own at a cluster, on one worker; what is called beyond them counts for
/// all methods together. Clients choose the names.
pub const GRPC_METHODS: usize = 500;

/// Most bytes that a peer may tell of its node before what it sends (`istio.metadata_exchange`).
pub const MAX_PEER_METADATA_BYTES: usize = 64 * 1024;

/// Most bytes of one certificate chain, key, bundle or revocation list of a TLS context.
pub const MAX_TLS_SOURCE_BYTES: u64 = 4 << 20;

/// `ConfigSource.initial_fetch_timeout` of secrets when it is absent.
pub const DEFAULT_INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// Most secrets that the configuration of one proxy may name.
pub const MAX_SECRETS: usize = 16 * 1024;

/// `CircuitBreakers.Thresholds.max_connections` when it is absent.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 1024;
/// `CircuitBreakers.Thresholds.max_pending_requests` when it is absent.
pub const DEFAULT_MAX_PENDING_REQUESTS: u32 = 1024;
/// `CircuitBreakers.Thresholds.max_requests` when it is absent.
pub const DEFAULT_MAX_REQUESTS: u32 = 1024;
/// `CircuitBreakers.Thresholds.max_retries` when it is absent.
pub const DEFAULT_MAX_RETRIES: u32 = 3;
/// `RetryBudget.budget_percent` when it is absent.
pub const DEFAULT_RETRY_BUDGET_PERCENT: f64 = 20.0;
/// `RetryBudget.min_retry_concurrency` when it is absent.
pub const DEFAULT_MIN_RETRY_CONCURRENCY: u32 = 3;

/// `Policy.overprovisioning_factor` when it is absent, in percent.
pub const DEFAULT_OVERPROVISIONING_PERCENT: u32 = 140;
/// `CommonLbConfig.healthy_panic_threshold` when it is absent, in percent.
pub const DEFAULT_PANIC_THRESHOLD_PERCENT: f64 = 50.0;
/// The highest `LocalityLbEndpoints.priority` that Envoy accepts.
pub const MAX_PRIORITY: u32 = 128;
/// `LeastRequestLbConfig.choice_count` when it is absent.
pub const DEFAULT_CHOICE_COUNT: u32 = 2;
/// The most `LeastRequestLbConfig.choice_count` that is accepted.
pub const MAX_CHOICE_COUNT: u32 = 32;

/// `OutlierDetection.consecutive_5xx` and its like when they are absent.
pub const DEFAULT_CONSECUTIVE_FAILURES: u32 = 5;
/// `OutlierDetection.interval` when it is absent.
pub const DEFAULT_OUTLIER_INTERVAL: Duration = Duration::from_secs(10);
/// `OutlierDetection.base_ejection_time` when it is absent.
pub const DEFAULT_BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
/// `OutlierDetection.max_ejection_time` when it is absent.
pub const DEFAULT_MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
/// `OutlierDetection.max_ejection_percent` when it is absent.
pub const DEFAULT_MAX_EJECTION_PERCENT: u32 = 10;

/// Idle connections that one host's pool keeps; a connection given back beyond it is closed.
pub const MAX_IDLE_CONNECTIONS_PER_HOST: usize = 1024;
/// Hosts that one `ORIGINAL_DST` cluster keeps per worker; beyond it the least recently used one is dropped.
pub const MAX_ORIGINAL_DST_HOSTS: usize = 16 * 1024;

/// `RingHashLbConfig.minimum_ring_size` when it is absent.
pub const DEFAULT_MIN_RING_SIZE: u64 = 1024;
/// `RingHashLbConfig.maximum_ring_size` when it is absent, and the most that is accepted.
pub const MAX_RING_SIZE: u64 = 8 * 1024 * 1024;
/// `SlowStartConfig.min_weight_percent` when it is absent.
pub const DEFAULT_SLOW_START_PERCENT: f64 = 10.0;
/// `MaglevLbConfig.table_size` when it is absent.
pub const DEFAULT_MAGLEV_TABLE_SIZE: u64 = 65_537;
/// The largest `MaglevLbConfig.table_size` that is accepted.
pub const MAX_MAGLEV_TABLE_SIZE: u64 = 5_000_011;

/// `Http2ProtocolOptions.hpack_table_size` when it is absent.
pub const DEFAULT_HPACK_TABLE_BYTES: u32 = 4096;
/// `Http2ProtocolOptions.max_concurrent_streams` when it is absent.
pub const DEFAULT_MAX_CONCURRENT_STREAMS: u32 = 1024;
/// The most `Http2ProtocolOptions.max_concurrent_streams` that is accepted.
pub const MAX_CONCURRENT_STREAMS: u32 = i32::MAX as u32;
/// `Http2ProtocolOptions.initial_stream_window_size` when it is absent.
pub const DEFAULT_STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// `Http2ProtocolOptions.initial_connection_window_size` when it is absent.
pub const DEFAULT_CONNECTION_WINDOW_BYTES: u32 = 24 * 1024 * 1024;
/// The smallest HTTP/2 window that is accepted.
pub const MIN_WINDOW_BYTES: u32 = 65_535;
/// The largest HTTP/2 window (RFC 9113, section 6.9.1).
pub const MAX_WINDOW_BYTES: u32 = i32::MAX as u32;
/// `max_consecutive_inbound_frames_with_empty_payload` when it is absent.
pub const DEFAULT_MAX_EMPTY_FRAMES: u32 = 1;
/// `max_inbound_priority_frames_per_stream` when it is absent.
pub const DEFAULT_MAX_PRIORITY_FRAMES: u32 = 100;
/// `max_inbound_window_update_frames_per_data_frame_sent` when it is absent.
pub const DEFAULT_MAX_WINDOW_UPDATE_FRAMES: u32 = 10;
/// `stream_reset_burst` when it is absent.
pub const DEFAULT_STREAM_RESET_BURST: u64 = 1000;
/// `stream_reset_rate` when it is absent.
pub const DEFAULT_STREAM_RESET_RATE: u64 = 33;
/// The shortest `KeepaliveSettings.interval` and `timeout` that are accepted.
pub const MIN_KEEPALIVE: Duration = Duration::from_millis(1);
/// `KeepaliveSettings.interval_jitter` when it is absent.
pub const DEFAULT_KEEPALIVE_JITTER_PERCENT: f64 = 15.0;
/// Requests that wait for a connection to one host on one worker; the circuit breaker is there first, unless it is
/// wide open.
pub const MAX_WAITING_REQUESTS: usize = 65_536;
