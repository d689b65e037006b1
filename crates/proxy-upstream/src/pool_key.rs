//! Which connections to a host can stand in for each other.

use std::hash::{BuildHasher as _, Hash, RandomState};

/// The versions of HTTP that a connection may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpVersions {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Either, as the handshake decides.
    Either,
}

/// What Envoy would keep a pool for: the protocol of connections to a host, and what was asked of their handshake.
/// Compared by a hash with a secret of its own per worker, for clients choose a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey(u64);

thread_local! {
    static HASHER: RandomState = RandomState::new();
}

impl PoolKey {
    /// Connections for HTTP whose handshake was asked for `wish`.
    #[must_use]
    pub fn http(versions: HttpVersions, wish: &impl Hash) -> Self {
        Self(HASHER.with(|hasher| hasher.hash_one((versions, wish))))
    }

    /// Connections that carry bytes.
    #[must_use]
    pub fn tcp() -> Self {
        Self(HASHER.with(|hasher| hasher.hash_one("tcp")))
    }
}
