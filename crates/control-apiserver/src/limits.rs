//! Every limit of the API server, by name.

use std::time::Duration;

/// Largest request body, in bytes; the real server's limit for a resource is 3 MiB too.
pub const REQUEST_BODY_MAX_BYTES: usize = 3 * 1024 * 1024;
/// Deepest nesting of objects and lists in a request body.
pub const REQUEST_DEPTH_MAX: usize = 100;
/// Events remembered per resource for watches that start in the past.
pub const HISTORY_EVENTS_PER_RESOURCE: usize = 1024;
/// Bytes of objects that the history of one resource may keep alive.
pub const HISTORY_BYTES_PER_RESOURCE: usize = 4 * 1024 * 1024;
/// Writes that may wait for the disk at the same time; more wait in their request.
pub const WRITE_QUEUE: usize = 256;
/// Writes that share one commit at most.
pub const COMMIT_BATCH: usize = 128;
/// Page cache of the embedded store, in bytes; reads are answered from memory and never touch it.
pub const DISK_CACHE_BYTES: usize = 1024 * 1024;
/// Chunks of a response that may wait for a slow client.
pub const RESPONSE_QUEUE: usize = 16;
/// Events put into one chunk of a watch response.
pub const WATCH_EVENTS_PER_CHUNK: usize = 64;
/// Time between bookmarks of a watch that asked for them.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends after this time, as the real server's do after 30 to 60 minutes.
pub const WATCH_DURATION: Duration = Duration::from_secs(45 * 60);
/// Open TCP connections; more are accepted only when others close.
pub const CONNECTIONS: usize = 1024;
/// Time a client has for the TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts to apply a patch onto an object that others change at the same time.
pub const PATCH_ATTEMPTS: usize = 5;
/// Attempts of the server's own writes and of deletions onto an object that others change at the same time.
pub const WRITE_ATTEMPTS: usize = 10;
/// Deepest nesting of a schema in a CRD.
pub const SCHEMA_DEPTH_MAX: usize = 100;
/// Operations in one JSON patch, as in the real server.
pub const JSON_PATCH_OPERATIONS: usize = 10_000;
/// Longest time a ServiceAccount token may be valid.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Shortest time a ServiceAccount token may be valid, as in the real server.
pub const TOKEN_LIFETIME_MIN: Duration = Duration::from_secs(600);
/// Lifetime of a ServiceAccount token when the request names none.
pub const TOKEN_LIFETIME_DEFAULT: Duration = Duration::from_secs(3600);
/// Errors reported for one object; the rest is cut, as the list would not be read anyway.
pub const CAUSES_MAX: usize = 64;
/// Bytes of all keys and values of annotations together, as in the real server.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
/// Bytes of data in a ConfigMap or Secret, as in the real server.
pub const DATA_MAX_BYTES: usize = 1024 * 1024;
