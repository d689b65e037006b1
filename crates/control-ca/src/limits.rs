//! Bounds of the authority, with Istio's setting where there is one.

use std::time::Duration;

/// How long a workload's certificate is valid unless it asks for something else (`DEFAULT_WORKLOAD_CERT_TTL`).
pub const DEFAULT_LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The longest that a workload's certificate may be valid (`MAX_WORKLOAD_CERT_TTL`).
pub const MAX_LEAF_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a self-signed root is valid (`CITADEL_SELF_SIGNED_CA_CERT_TTL`).
pub const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The longest that a self-signed root may be valid; certificates cannot write dates without end.
pub const MAX_ROOT_LIFETIME: Duration = Duration::from_secs(36_500 * 24 * 3600);
/// Certificates begin this long before "now", so that clocks that differ a little still agree (as Istio's do).
pub const CLOCK_SKEW: Duration = Duration::from_secs(120);
/// How often the root's age is looked at (`CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL`).
pub const ROOT_CHECK_INTERVAL: Duration = Duration::from_secs(3600);
/// A root is renewed when this percentage of its lifetime is left (`CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE`).
pub const ROOT_GRACE_PERCENT: u32 = 20;
/// Most names in one certificate.
pub const MAX_NAMES: usize = 32;
/// Most roots that are handed out and trusted at once.
pub const MAX_ROOTS: usize = 64;
/// Largest call of the certificate service, in bytes: a signing request and a little metadata.
pub const MAX_CALL_BYTES: usize = 64 << 10;
/// Most public keys of an issuer of JWTs.
pub const MAX_ISSUER_KEYS: usize = 64;
/// Longest JWT, in bytes.
pub const MAX_JWT_BYTES: usize = 16 << 10;
/// How much later than now a JWT may begin, since clocks differ (as istiod's library has it).
pub const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(5 * 60);
/// How long a JWT-SVID is valid unless it asks for something else (SPIRE's `default_jwt_svid_ttl`).
pub const DEFAULT_JWT_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// The longest that a JWT-SVID may be valid: it cannot be taken back.
pub const MAX_JWT_LIFETIME: Duration = Duration::from_secs(3600);
/// How long a key that signs JWT-SVIDs is to be believed.
pub const JWT_KEY_LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// How long after a key that signs JWT-SVIDs was made the next one is.
pub const JWT_KEY_RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// How long a new key is published before it signs JWT-SVIDs, where there is another that does.
pub const JWT_KEY_PREPARATION: Duration = Duration::from_secs(3600);
/// Most keys for JWT-SVIDs at once.
pub const MAX_JWT_KEYS: usize = 8;
/// Most audiences of a JWT-SVID.
pub const MAX_AUDIENCES: usize = 16;
/// Longest audience of a JWT-SVID, in bytes.
pub const MAX_AUDIENCE_BYTES: usize = 512;
/// How often agents are told to look whether roots and keys have changed.
pub const BUNDLE_REFRESH_HINT: Duration = Duration::from_secs(5);
