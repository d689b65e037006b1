//! Bounds of the watches and writes.

use std::time::Duration;

/// Changes that may wait between the watches and the snapshot.
pub const CHANGE_QUEUE: usize = 1024;
/// First wait after a failed list or watch.
pub const WATCH_RETRY_BASE: Duration = Duration::from_millis(200);
/// Longest wait after a failed list or watch.
pub const WATCH_RETRY_MAX: Duration = Duration::from_secs(10);
/// Wait before looking again for a kind that the API server does not serve, in any of its versions.
pub const ABSENT_KIND_RETRY: Duration = Duration::from_secs(2);
/// Objects per page of a list.
pub const LIST_PAGE: u32 = 500;
/// How long an auto-registered workload may be without a stream before its entry is removed
/// (Istio: `PILOT_WORKLOAD_ENTRY_GRACE_PERIOD`).
pub const REGISTRATION_GRACE: Duration = Duration::from_secs(10);
/// Stream events that may wait for the registrar.
pub const REGISTRATION_QUEUE: usize = 1024;
/// Times that a write of the registrar is tried.
pub const WRITE_ATTEMPTS: u32 = 5;
/// Wait between tries of a write; it doubles each time.
pub const WRITE_RETRY: Duration = Duration::from_millis(50);
/// Longest `metadata.name`.
pub const NAME_BYTES: usize = 253;
/// How long an entry that was registered before this process started waits for its workload to come back. Longer than
/// the longest reconnect wait of a proxy.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(60);
/// Wait before a registration that failed is tried again.
pub const PENDING_RETRY: Duration = Duration::from_secs(1);
/// How long the API server may take over a review of a token or of somebody's rights.
pub const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before roots that could not be written into a namespace are written again.
pub const ROOTS_RETRY: Duration = Duration::from_secs(5);
