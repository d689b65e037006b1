//! Limits of a run, so that a page that hangs fails and a load is never unbounded.

use std::time::Duration;

/// Longest life of one page on one data plane; then its processes are killed.
pub const PAGE_TIME: Duration = Duration::from_secs(120);

/// Longest life of one scene on one data plane, beside the time that its load is to run.
pub const SCENE_TIME: Duration = Duration::from_secs(180);

/// Longest time from starting a data plane until it is ready.
pub const READY_TIME: Duration = Duration::from_secs(30);

/// Longest time from applying objects until the first exchange succeeds.
pub const CHANGE_TIME: Duration = Duration::from_secs(3);

/// Longest time for one request, from connecting to the last byte of the answer.
pub const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Requests of one exchange at most.
pub const MAX_REPEATS: u32 = 2000;

/// Requests of one exchange that are under way at the same time.
pub const CONCURRENT_REQUESTS: usize = 8;

/// Bytes of an answer that are read at most.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// How long a TCP client waits for the first word of the answer before it ends its side.
pub const BEFORE_THE_END: Duration = Duration::from_millis(500);

/// How long a TCP upstream waits for the client's first word before it speaks itself.
pub const BEFORE_GREETING: Duration = Duration::from_millis(200);

/// Longest pause that a scripted upstream makes before it answers.
pub const MAX_UPSTREAM_DELAY: Duration = Duration::from_secs(10);

/// Longest time until the access log has a line for a request.
pub const ACCESS_LOG_TIME: Duration = Duration::from_secs(5);

/// Pages that run at the same time.
pub const CONCURRENT_PAGES: usize = 2;

/// Lines of a data plane's log that a failed page shows.
pub const LOG_LINES: usize = 25;
