//! HTTP/2 (RFC 9113): what the connection manager speaks beside HTTP/1, on both sides.
//!
//! Frames, HPACK and flow control are the `h2` crate's. [`server`] serves a client's connection, one task for it and one
//! for each stream; [`upstream`] shares connections to hosts between requests. [`downlink`] and [`uplink`] are one stream
//! each, as an exchange sees it; [`convert`] turns heads into the proxy's own and back. [`wire`] is what connections run
//! over: it gathers what is written, and its [`meter`] watches for floods.

pub(crate) mod convert;
mod downlink;
mod keepalive;
mod meter;
mod server;
mod stream;
mod uplink;
mod upstream;
mod wire;

pub(crate) use downlink::fault_of;
pub(crate) use server::{Opened, Shared as ServerConnection, serve};
pub(crate) use stream::{FRAME_HEADER, Sending};
pub(crate) use uplink::{Http2Uplink, reset_of};
pub(crate) use upstream::{Http2Connection, connect, share};

/// How the preface of a client begins (RFC 9113, section 3.4), as far as Envoy looks at it.
const PREFACE_BEGINNING: &[u8] = b"PRI * HTTP/2";

/// What the first bytes of a connection say about the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sniffed {
    Http1,
    Http2,
    /// More bytes will tell.
    Undecided,
}

/// Tells HTTP/2 with prior knowledge from HTTP/1.
pub(crate) fn sniff(first: &[u8]) -> Sniffed {
    if first.starts_with(PREFACE_BEGINNING) {
        Sniffed::Http2
    } else if PREFACE_BEGINNING.starts_with(first) {
        Sniffed::Undecided
    } else {
        Sniffed::Http1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prior_knowledge_is_recognised_by_its_preface() {
        assert_eq!(sniff(b"PRI * HTTP/2.0\r\n"), Sniffed::Http2);
        assert_eq!(sniff(b"PRI "), Sniffed::Undecided);
        for http1 in [&b"PROPFIND"[..], b"GET /", b"PRI * HTTP/1"] {
            assert_eq!(sniff(http1), Sniffed::Http1);
        }
    }
}
