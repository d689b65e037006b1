//! Bounds of the discovery server.

use std::time::Duration;

/// A change is published when nothing has changed for this long.
pub const DEBOUNCE_QUIET: Duration = Duration::from_millis(10);
/// A change is published after this long even if changes keep coming.
pub const DEBOUNCE_MAX: Duration = Duration::from_secs(1);
/// Proxies that are translated for at the same time (Istio: `PILOT_PUSH_THROTTLE`).
pub const CONCURRENT_PUSHES: usize = 100;
/// How long a client may take to make room for a response before its stream is closed (Istio: `PILOT_XDS_SEND_TIMEOUT`).
pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Publications whose changed kinds are remembered for streams that lag behind.
pub const PUBLICATION_HISTORY: usize = 64;
/// Tokens that the API server is asked about at the same time.
pub const CONCURRENT_TOKEN_REVIEWS: usize = 32;
/// How long an answer to whether an account may have Secrets holds on a stream before it is asked again (istiod's
/// `cacheTTL`). An answer that never came is asked for again at once.
pub const SECRET_REVIEW_LIFETIME: Duration = Duration::from_secs(60);
/// Wait before the API server is asked again whether an account may have Secrets, where it has not answered.
pub const SECRET_REVIEW_RETRY: Duration = Duration::from_secs(5);
/// How long a stream may stay open without a first request, which says whose configuration is wanted.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// ADS streams of one service account: a quarter of all connections, so that whoever has the credentials of one workload
/// leaves room for the others.
pub const MAX_STREAMS_OF_ACCOUNT: usize = MAX_SECURE_CONNECTIONS / 4;
/// Longest bearer token, in bytes; Kubernetes' have about one thousand.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Connections of the secure port; more are closed at once.
pub const MAX_SECURE_CONNECTIONS: usize = 32_768;
/// Those of one address, or of one network of 64 bits in IPv6, that have shown no certificate of the mesh: of clients that
/// come with a token. A gateway may have a whole cluster of such behind its address.
pub const MAX_UNPROVEN_CONNECTIONS_OF_ADDRESS: usize = 4096;
/// TLS handshakes with one address at the same time; connections beyond are closed at once.
pub const MAX_HANDSHAKES_OF_ADDRESS: usize = 128;
/// How long a client may take after its TLS handshake to begin with HTTP/2.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// TLS handshakes of the secure port at the same time; more wait in the system's queue.
pub const CONCURRENT_HANDSHAKES: usize = 1024;
/// How long one of them may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of the secure port that may wait for the server after their handshakes.
pub const SECURE_ACCEPT_QUEUE: usize = 64;
/// Wait after a connection that could not be accepted, as when there are no more descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long the control plane's own certificate is valid. It is renewed at half of that.
pub const SERVING_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How often the clock is looked at while the renewal of that is waited for: a machine that slept has missed time.
pub const CLOCK_LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Wait before the control plane's certificate is tried again.
pub const SERVING_RETRY: Duration = Duration::from_secs(5);
/// Wait before an authority that could not be read, made or renewed is tried again, and the shortest between two looks
/// at the age of its root.
pub const AUTHORITY_RETRY: Duration = Duration::from_secs(1);
/// Largest document with the keys of an issuer of JWTs, or with where they are, in bytes.
pub const MAX_KEYS_BYTES: usize = 1 << 20;
/// How often a file with such keys is looked at, and a web server that did not give them is asked again.
pub const KEYS_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// How often a web server that has given them is asked again.
pub const KEYS_FETCH_INTERVAL: Duration = Duration::from_secs(300);
/// How long a web server may take for one document.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the keys for JWT-SVIDs are looked at, though nothing tells of a change.
pub const JWT_KEYS_CHECK_INTERVAL: Duration = Duration::from_secs(60);
