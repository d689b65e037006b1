//! Named limits of this crate.

use std::time::Duration;

/// `RouteAction.timeout` when it is absent.
pub const DEFAULT_ROUTE_TIMEOUT: Duration = Duration::from_secs(15);
/// `RouteConfiguration.max_direct_response_body_size_bytes` when it is absent.
pub const DEFAULT_DIRECT_RESPONSE_BODY_BYTES: u32 = 4096;
/// Virtual hosts with at least this many routes get an index; below it trying one after the other is faster.
pub const INDEX_FROM_ROUTES: usize = 16;
/// `RetryPolicy.num_retries` when it is absent.
pub const DEFAULT_NUM_RETRIES: u32 = 1;
/// `RetryBackOff.base_interval` when it is absent.
pub const DEFAULT_RETRY_BASE_INTERVAL: Duration = Duration::from_millis(25);
/// The largest retry interval when none is given, as a multiple of the base interval.
pub const DEFAULT_RETRY_MAX_MULTIPLE: u32 = 10;
/// `RetryPolicy.host_selection_retry_max_attempts` when it is absent.
pub const DEFAULT_HOST_SELECTION_ATTEMPTS: u32 = 1;
