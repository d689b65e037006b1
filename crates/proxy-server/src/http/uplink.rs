//! The upstream's side of an exchange, whichever version of HTTP it speaks. One enum, as for connections: a request costs
//! a few predictable branches.

use std::rc::Rc;
use std::task::{Context, Poll};

use proxy_core::Address;
use proxy_core::stream_info::StreamBytes;
use proxy_http::{Headers, RequestHead, ResponseHead, Version, write_request_head};
use tokio::time::Instant;

use super::body::{BodySink, Piece, Pulled};
use super::buffer::BufferPool;
use super::download::Download;
use super::forward::{Reception, Reset};
use super::http2::Http2Uplink;
use super::limits;
use super::transport::SocketStream;
use super::tunnel_end::{ConnectionEnd, TunnelEnd};
use super::upstream::UpstreamConnection;

/// A connection, or a stream of one, that carries a request.
#[derive(Debug)]
pub(crate) enum Uplink {
    /// A connection of its own.
    Http1(Box<UpstreamConnection>),
    /// A stream of a shared connection.
    Http2(Box<Http2Uplink>),
}

/// What is known of the connection under a request.
pub(crate) struct UplinkInfo<'a> {
    pub(crate) id: u64,
    pub(crate) local_address: &'a Option<Address>,
    pub(crate) tls: &'a Option<Rc<tls::ConnectionInfo>>,
}

impl BodySink for Uplink {
    fn data(&mut self, piece: Piece<'_>, end: bool, pool: &BufferPool) {
        match self {
            Uplink::Http1(connection) => connection.data(piece, end, pool),
            Uplink::Http2(stream) => stream.data(piece, end, pool),
        }
    }

    fn finish(&mut self, trailers: Option<&Headers>, pool: &BufferPool) {
        match self {
            Uplink::Http1(connection) => connection.finish(trailers, pool),
            Uplink::Http2(stream) => stream.finish(trailers, pool),
        }
    }
}

impl Uplink {
    /// The version that requests are sent in.
    pub(crate) fn version(&self) -> Version {
        match self {
            Uplink::Http1(_) => Version::Http11,
            Uplink::Http2(_) => Version::Http2,
        }
    }

    /// What is known of the connection.
    pub(crate) fn info(&self) -> UplinkInfo<'_> {
        let (id, local_address, tls) = match self {
            Uplink::Http1(up) => (up.id, &up.local_address, &up.tls),
            Uplink::Http2(up) => up.connection_info(),
        };
        UplinkInfo {
            id,
            local_address,
            tls,
        }
    }

    /// Begins a request; `end` says that it ends with its head, `chunked` that its body has no length. Gives the bytes
    /// of its fields.
    pub(crate) fn write_request(
        &mut self,
        head: &RequestHead,
        end: bool,
        chunked: bool,
        pool: &BufferPool,
    ) -> Result<usize, Unsent> {
        match self {
            Uplink::Http1(up) => {
                up.begin_request(chunked);
                Ok(write_request_head(up.write.bytes(pool), head))
            }
            Uplink::Http2(up) => up.write_request(head, end),
        }
    }

    /// Whether more may be pushed now; who gets no for an answer is woken when that changes.
    pub(crate) fn has_room(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            Uplink::Http1(up) => up.write.pending() < limits::PENDING_WRITE_BYTES,
            Uplink::Http2(up) => up.has_room(context),
        }
    }

    /// Whether nothing waits to be flushed.
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Uplink::Http1(up) => up.write.is_empty(),
            Uplink::Http2(_) => true,
        }
    }

    /// Writes out what waits; ready once nothing does. An error: the upstream takes no more; its answer may already be
    /// on its way.
    pub(crate) fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
        pool: &BufferPool,
    ) -> Poll<Result<(), NoMoreTaken>> {
        match self {
            Uplink::Http1(up) => up
                .write
                .poll_flush(&mut up.stream, context, pool, &mut up.sent)
                .map_err(|error| {
                    up.note_failure(&error);
                    NoMoreTaken
                }),
            Uplink::Http2(up) => up.poll_flush(context),
        }
    }

    /// Forgets what waits to be flushed.
    pub(crate) fn clear(&mut self, pool: &BufferPool) {
        if let Uplink::Http1(up) = self {
            up.write.clear(pool);
        }
    }

    /// Drives the answer until its final head is there.
    pub(crate) fn poll_head(
        &mut self,
        reception: &mut Reception<'_>,
        interim: impl FnMut(&ResponseHead),
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Reset>> {
        match self {
            Uplink::Http1(up) => up.poll_head(reception, interim, pool, context),
            Uplink::Http2(up) => up.poll_head(reception, interim, context),
        }
    }

    /// Moves a piece of the response body on.
    pub(crate) fn pull(
        &mut self,
        download: &mut Download,
        sink: &mut impl BodySink,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Result<Pulled, Reset> {
        match self {
            Uplink::Http1(up) => up.pull(download, sink, pool, context),
            Uplink::Http2(up) => up.pull(download, sink, pool, context),
        }
    }

    /// What carries the request, as the end of a tunnel.
    pub(crate) fn tunnel_end(&mut self) -> TunnelEnd<'_, SocketStream> {
        match self {
            Uplink::Http1(up) => TunnelEnd::Connection(ConnectionEnd {
                stream: &mut up.stream,
                read: &mut up.read,
                write: &mut up.write,
                received: &mut up.received,
                sent: &mut up.sent,
                ends: false,
                is_shut: false,
            }),
            Uplink::Http2(up) => up.tunnel_end(),
        }
    }

    /// Whether a byte of the request has left.
    pub(crate) fn has_sent(&self) -> bool {
        match self {
            Uplink::Http1(up) => up.sent > 0,
            Uplink::Http2(_) => true,
        }
    }

    /// Why the transport ended it, where that tells more than that it did.
    pub(crate) fn take_failure(&mut self) -> Option<String> {
        match self {
            Uplink::Http1(up) => up.failure.take(),
            Uplink::Http2(up) => up.take_failure(),
        }
    }

    /// Counts the bytes of the request that has ended.
    pub(crate) fn end_request(&self, bytes: &mut StreamBytes) {
        match self {
            Uplink::Http1(up) => up.end_request(bytes),
            Uplink::Http2(up) => up.end_request(bytes),
        }
    }

    /// Gives a connection back that was checked out and not used.
    pub(crate) fn give_back(self, now: Instant, pool: &BufferPool) {
        if let Uplink::Http1(up) = self {
            up.give_back(now, pool);
        }
    }
}

/// Why a request could not be begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unsent {
    /// HTTP/2 has no way to say it.
    Unsayable,
    /// The connection took it no more.
    Reset(Reset),
}

/// The upstream takes no more of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoMoreTaken;
