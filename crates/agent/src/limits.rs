//! The limits of the agent, by name.

use std::time::Duration;

/// How long an application's namespace may take to set up.
pub const CAPTURE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a sidecar may take from start to its first complete configuration.
pub const SIDECAR_READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a starting sidecar is asked whether it is ready.
pub const READY_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long one readiness question may take.
pub const READY_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the first table of service names may take after the sidecar is ready; the application then starts without.
pub const NAMES_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a starting application is asked for a connection, until its first answer.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// How long an application may take to accept connections before its probes become rare.
pub const PROBE_FAST_PERIOD: Duration = Duration::from_secs(10);

/// How often a slow application is asked for a connection.
pub const PROBE_SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// How long an application may take to end after it was asked to.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Wait before a process that ended is started again: the first time, doubled each time after.
pub const RESTART_BASE: Duration = Duration::from_millis(200);

/// The longest wait before a process that ended is started again.
pub const RESTART_MAX: Duration = Duration::from_secs(10);

/// How long a process must have run for its earlier ends not to lengthen the wait.
pub const RESTART_FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// The most service ports of one workload; the socket broker hands over one listener for each.
pub const MAX_PORTS: usize = 64;

/// The most bytes of a hosts file; names beyond are left out, with a warning.
pub const MAX_HOSTS_BYTES: usize = 4 * 1024 * 1024;

/// Addresses that are tried before the agent gives up to find a free one.
pub const MAX_ADDRESS_TRIES: u16 = 1024;

/// Ports that are tried before the agent gives up to find a free one for an application on the host's network.
pub const MAX_APP_PORT_TRIES: u16 = 1024;

/// The most services that an application is told of by environment variables; Linux refuses to start a program with
/// more than some megabytes of them.
pub const MAX_TOLD_SERVICES: usize = 1024;

/// How often the agent looks whether the services that an application needs are there.
pub const SERVICES_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Ports that are tried, one after the other, when a gateway's port is taken.
pub const MAX_PORT_TRIES: u16 = 50;

/// The most name servers of the host that are asked (glibc's `MAXNS`).
pub const MAX_NAMESERVERS: usize = 3;

/// How long one name server may take.
pub const DNS_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The most DNS queries of one application that are under way at once.
pub const MAX_DNS_QUERIES: usize = 64;

/// The largest DNS message, in bytes; what resolvers announce with EDNS is below.
pub const MAX_DNS_MESSAGE_BYTES: usize = 4096;

/// How long certificates are asked to be valid (`SECRET_TTL`).
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Which part of a certificate's life is left when the next one is asked for (`SECRET_GRACE_PERIOD_RATIO`).
pub const RENEWAL_GRACE: f64 = 0.5;

/// How much earlier or later, as a part of the life (`SECRET_GRACE_PERIOD_RATIO_JITTER`).
pub const RENEWAL_JITTER: f64 = 0.01;

/// The shortest time between two certificates of one workload.
pub const MIN_RENEWAL_WAIT: Duration = Duration::from_secs(1);

/// Wait after the first failed request for a certificate; doubled with each more.
pub const CSR_RETRY_BASE: Duration = Duration::from_millis(100);

/// The longest wait after a failed request for a certificate.
pub const CSR_RETRY_MAX: Duration = Duration::from_secs(30);

/// How long one request for a certificate may take, connection and all.
pub const CA_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the clock is looked at while a renewal is waited for: a machine that slept has missed time.
pub const CLOCK_LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// The largest answer of a certificate authority, in bytes: a chain and its roots.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The longest token of a service account, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// The largest file with certificates or a key, in bytes.
pub const MAX_SECRET_FILE_BYTES: usize = 1 << 20;

/// The most secrets from files that one workload's proxy may want at once.
pub const MAX_FILE_SECRETS: usize = 64;

/// How often the files of secrets are looked at.
pub const FILE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often the file of the mesh's roots is looked at.
pub const ROOTS_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The most connections to the Workload API of one host.
pub const MAX_WORKLOAD_CONNECTIONS: usize = 1024;

/// The most of them by processes of one user.
pub const MAX_WORKLOAD_CONNECTIONS_OF_USER: usize = 256;

/// The most calls at once on one connection to the Workload API.
pub const MAX_CONNECTION_STREAMS: u32 = 16;

/// The largest message that a caller of the Workload API may send, in bytes: a token and a little more.
pub const MAX_WORKLOAD_CALL_BYTES: usize = 64 << 10;

/// Wait after a connection that could not be accepted, as when there are no more descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a process that has just been started may take to be known as a workload.
pub const ATTESTATION_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked whether it is.
pub const ATTESTATION_INTERVAL: Duration = Duration::from_millis(100);

/// How long a caller of the Workload API waits for its first certificate.
pub const FIRST_IDENTITY_TIMEOUT: Duration = Duration::from_secs(15);

/// The most service accounts that a node agent keeps certificates of.
pub const MAX_NODE_IDENTITIES: usize = 256;

/// How long a certificate is kept and renewed that no caller uses.
pub const UNUSED_IDENTITY_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How often unused certificates are looked for.
pub const IDENTITY_SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The most audiences of one token.
pub const MAX_AUDIENCES: usize = 16;

/// The longest audience, in bytes.
pub const MAX_AUDIENCE_BYTES: usize = 512;

/// The longest token that is verified, in bytes.
pub const MAX_JWT_BYTES: usize = 16 << 10;

/// How much later than now a token may begin, since clocks differ.
pub const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(60);

/// The most tokens that are kept to be handed out again.
pub const MAX_KEPT_TOKENS: usize = 1024;

/// How often the control plane is asked for the roots and keys of the trust domain.
pub const BUNDLE_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is asked while there are no roots or no keys yet.
pub const FIRST_BUNDLE_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The most roots of a trust domain.
pub const MAX_BUNDLE_ROOTS: usize = 64;

/// The most keys that verify a trust domain's tokens.
pub const MAX_BUNDLE_KEYS: usize = 64;

/// The largest file that a machine outside of Kubernetes is onboarded with, in bytes.
pub const MAX_ONBOARDING_FILE_BYTES: usize = 1 << 20;

/// How long the control plane's name may take to resolve.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest name without dots that Kubernetes accepts, in bytes (RFC 1123).
pub const MAX_DNS_LABEL_BYTES: usize = 63;

/// The longest name with dots that Kubernetes accepts, in bytes.
pub const MAX_DNS_SUBDOMAIN_BYTES: usize = 253;
