//! The limits of this crate, by name.

/// The longest ClientHello, in bytes with its record headers, that is looked into. As Envoy's `max_client_hello_size`.
pub const MAX_CLIENT_HELLO_BYTES: usize = 16 * 1024;

/// The longest ClientHello, in bytes without record headers, that there is in BoringSSL; longer ones are no TLS to Envoy.
pub const MAX_CLIENT_HELLO_MESSAGE_BYTES: usize = 16 * 1024;

/// The most certificates in one chain, trust bundle or bundle of a trust domain.
pub const MAX_CERTIFICATES_PER_BUNDLE: usize = 512;

/// The most trust domains of one SPIFFE validator.
pub const MAX_TRUST_DOMAINS: usize = 1024;

/// The most certificates that one server context presents.
pub const MAX_CERTIFICATES_PER_SERVER: usize = 4096;

/// The most subject alternative names of a refused peer that its failure lists.
pub const MAX_NAMES_IN_FAILURE: usize = 16;

/// The longest list of application protocols, in bytes, as Envoy and TLS have it (RFC 7301: a length of two bytes).
pub const MAX_ALPN_BYTES: usize = 65_534;
