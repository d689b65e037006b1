//! Limits of what is generated.

/// The largest direct response a route may hold, in bytes (Istio's 1 MiB; Envoy's own default is 4 KiB).
pub const MAX_DIRECT_RESPONSE_BYTES: u32 = 1024 * 1024;
/// Circuit breakers are off unless asked for: Envoy has no "none", so this is the largest number.
pub const UNLIMITED: u32 = u32::MAX;
/// Connections one wake-up may accept, so that they spread over workers.
pub const MAX_CONNECTIONS_PER_SOCKET_EVENT: u32 = 1;
/// Seconds a TLS handshake may take.
pub const TRANSPORT_SOCKET_CONNECT_TIMEOUT_SECONDS: i64 = 15;
/// Bytes the TLS inspector reads first; a ClientHello usually fits.
pub const TLS_INSPECTOR_BUFFER_BYTES: u32 = 512;
/// Seconds an idle connection of a passthrough cluster stays.
pub const PASSTHROUGH_IDLE_TIMEOUT_SECONDS: i64 = 300;
/// Hosts retries try before they give up finding one that was not tried.
pub const HOST_SELECTION_RETRY_MAX_ATTEMPTS: i64 = 5;
/// Queries one UDP channel of the resolver carries before it is replaced.
pub const DNS_UDP_MAX_QUERIES: u32 = 100;
/// Milliseconds by which DNS refreshes are spread.
pub const DNS_JITTER_MILLISECONDS: u64 = 100;
/// Hosts a dynamic forward proxy remembers.
pub const DYNAMIC_DNS_MAX_HOSTS: u32 = 1024;
/// Entries of a table of shared parts at which those that nobody uses any more are dropped first; later it is twice as
/// many as were in use then.
pub const MEMO_SWEEP_ENTRIES: usize = 1024;
