//! Bounds of what is read and made here.

/// Longest SPIFFE id, in bytes (SPIFFE-ID, section 2.3).
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// Longest name of a trust domain, in bytes (SPIFFE-ID, section 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Largest PEM text with certificates or revocation lists, in bytes; a Kubernetes object holds no more.
pub const MAX_PEM_BYTES: usize = 1 << 20;
/// Largest PEM text with one private key, in bytes; 8192 bits of RSA need 7 KB.
pub const MAX_KEY_PEM_BYTES: usize = 16 << 10;
/// Largest signing request in PEM, in bytes; 8192 bits of RSA and a name need 4 KB.
pub const MAX_REQUEST_PEM_BYTES: usize = 16 << 10;
/// Most blocks of a PEM text of which one is wanted: a key with its parameters, a signing request.
pub const MAX_SINGLE_PEM_BLOCKS: usize = 16;
/// Largest certificate, in bytes of DER.
pub const MAX_CERTIFICATE_BYTES: usize = 64 << 10;
/// Longest chain, in certificates, without the root.
pub const MAX_CHAIN_CERTIFICATES: usize = 10;
/// Most roots of one trust domain.
pub const MAX_ROOTS: usize = 512;
/// Most signatures that one search for a path to a root checks; crossed certificates could make it exponential.
pub const MAX_PATH_SIGNATURES: usize = 64;
/// Shortest RSA key that is accepted, in bits.
pub const MIN_RSA_BITS: u32 = 2048;
/// Longest RSA key that is accepted, in bits; checking a longer one's signature costs too much.
pub const MAX_RSA_BITS: u32 = 8192;
