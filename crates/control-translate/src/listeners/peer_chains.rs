//! Which filter chains a port of the own workload has, by what the workload demands of callers and what the port speaks.
//!
//! Callers of the mesh offer its ALPN names, so that their mutual TLS is told from TLS that is the application's own.

use control_snapshot::{PeerMode, Protocol, ProxyView};

use super::chain::{self, RAW_BUFFER, TLS};
use crate::mutual_tls::{ALL_ALPN, HTTP_ALPN, TCP_ALPN};

/// One chain of a port.
#[derive(Debug)]
pub(super) struct Variant {
    /// Whether a connection manager takes it, or the TCP proxy.
    pub(super) http: bool,
    /// `tls` or `raw_buffer`.
    pub(super) transport: &'static str,
    /// What the connection must have announced, or be found to speak.
    pub(super) alpn: Alpn,
    /// Whether the proxy ends the TLS, and asks the caller for its certificate.
    pub(super) mutual: bool,
}

/// Application protocols that a chain is for.
#[derive(Debug)]
pub(super) enum Alpn {
    /// Whatever it is.
    Any,
    /// Names of the mesh.
    Mesh(&'static [&'static str]),
    /// HTTP without TLS.
    PlainHttp,
}

impl Alpn {
    pub(super) fn names(&self, view: &ProxyView) -> Vec<String> {
        match self {
            Self::Any => Vec::new(),
            Self::Mesh(names) => names.iter().map(|name| (*name).to_owned()).collect(),
            Self::PlainHttp => chain::plaintext_http(view),
        }
    }
}

/// TLS of the mesh, ended here.
const fn mutual(http: bool, alpn: Alpn) -> Variant {
    Variant {
        http,
        transport: TLS,
        alpn,
        mutual: true,
    }
}

/// Bytes without TLS.
const fn plain(http: bool, alpn: Alpn) -> Variant {
    Variant {
        http,
        transport: RAW_BUFFER,
        alpn,
        mutual: false,
    }
}

/// TLS that the application ends by itself.
const APPLICATION_TLS: Variant = Variant {
    http: false,
    transport: TLS,
    alpn: Alpn::Any,
    mutual: false,
};

const PERMISSIVE_SNIFFED: &[Variant] = &[
    mutual(true, Alpn::Mesh(&HTTP_ALPN)),
    plain(true, Alpn::PlainHttp),
    mutual(false, Alpn::Mesh(&TCP_ALPN)),
    plain(false, Alpn::Any),
    APPLICATION_TLS,
];
const PERMISSIVE_HTTP: &[Variant] = &[mutual(true, Alpn::Mesh(&ALL_ALPN)), plain(true, Alpn::Any)];
const PERMISSIVE_TCP: &[Variant] = &[
    mutual(false, Alpn::Mesh(&ALL_ALPN)),
    APPLICATION_TLS,
    plain(false, Alpn::Any),
];
const STRICT_SNIFFED: &[Variant] = &[mutual(true, Alpn::Mesh(&HTTP_ALPN)), mutual(false, Alpn::Any)];
const STRICT_HTTP: &[Variant] = &[mutual(true, Alpn::Any)];
const STRICT_TCP: &[Variant] = &[mutual(false, Alpn::Any)];
const PLAIN_SNIFFED: &[Variant] = &[plain(true, Alpn::PlainHttp), plain(false, Alpn::Any)];
const PLAIN_HTTP: &[Variant] = &[plain(true, Alpn::Any)];
const PLAIN_TCP: &[Variant] = &[plain(false, Alpn::Any)];

/// The chains in order; `None` where everybody is refused, because what is demanded cannot be had: without an identity
/// of its own the workload cannot speak mutual TLS. It then takes plain text, unless that is what must not be taken.
pub(super) fn variants(mode: PeerMode, identity: bool, protocol: Protocol) -> Option<&'static [Variant]> {
    let mode = match mode {
        PeerMode::Strict if !identity => return None,
        PeerMode::Permissive if !identity => PeerMode::Disable,
        mode => mode,
    };
    let [sniffed, http, tcp] = match mode {
        PeerMode::Permissive => [PERMISSIVE_SNIFFED, PERMISSIVE_HTTP, PERMISSIVE_TCP],
        PeerMode::Strict => [STRICT_SNIFFED, STRICT_HTTP, STRICT_TCP],
        PeerMode::Disable => [PLAIN_SNIFFED, PLAIN_HTTP, PLAIN_TCP],
    };
    Some(if protocol.is_sniffed() {
        sniffed
    } else if protocol.is_http() {
        http
    } else {
        tcp
    })
}
