//! Limits of what every crate of the data plane reads.

/// Longest line of version 1 of the PROXY protocol that is read, with its end, bytes. The longest that makes sense has
/// 107; a header of version 2 says its own length in 16 bits.
pub const PROXY_PROTOCOL_V1_MAX_BYTES: usize = 108;
