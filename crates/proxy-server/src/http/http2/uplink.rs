//! A stream to a host as an exchange sees it.

use std::rc::Rc;
use std::task::{Context, Poll};

use h2::RecvStream;
use h2::client::ResponseFuture;
use proxy_core::Address;
use proxy_core::stream_info::StreamBytes;
use proxy_http::{BodyFraming, Headers, RequestHead, ResponseHead, response_framing};

use super::super::body::{BodySink, Piece, Pulled};
use super::super::buffer::BufferPool;
use super::super::download::Download;
use super::super::forward::{Reception, Reset};
use super::super::transport::SocketStream;
use super::super::tunnel_end::{StreamEnd, StreamOf, TunnelEnd};
use super::super::uplink::{NoMoreTaken, Unsent};
use super::convert;
use super::stream::{FRAME_HEADER, Sending};
use super::upstream::Http2Connection;

/// One request on a shared connection. It counts against what the connection carries until it is dropped.
#[derive(Debug)]
pub(crate) struct Http2Uplink {
    connection: Rc<Http2Connection>,
    request: Option<Sending>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    /// The response came to its end, or the stream to its own.
    over: bool,
    /// The protocol that the request wants the stream to carry.
    upgrade: Option<Box<[u8]>>,
    sent: u64,
    received: u64,
}

/// What the host has done, out of an error of the stream.
pub(crate) fn reset_of(error: &h2::Error) -> Reset {
    if error.is_remote() && error.is_reset() {
        return match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => Reset::Refused,
            Some(h2::Reason::PROTOCOL_ERROR) => Reset::Protocol,
            _ => Reset::Remote,
        };
    }
    if error.is_remote() && error.is_go_away() {
        // Streams that the host has begun with go on until the connection ends.
        return Reset::Refused;
    }
    if error.is_library() {
        Reset::Protocol
    } else {
        Reset::Terminated
    }
}

impl Http2Uplink {
    /// Takes a place on a connection.
    pub(crate) fn new(connection: &Rc<Http2Connection>) -> Box<Self> {
        connection.request_began();
        Box::new(Http2Uplink {
            connection: Rc::clone(connection),
            request: None,
            response: None,
            body: None,
            over: true,
            upgrade: None,
            sent: 0,
            received: 0,
        })
    }

    pub(crate) fn connection_info(&self) -> (u64, &Option<Address>, &Option<Rc<tls::ConnectionInfo>>) {
        let connection = &*self.connection;
        (connection.id, &connection.local_address, &connection.tls)
    }

    /// Opens the stream.
    pub(crate) fn write_request(&mut self, head: &RequestHead, end: bool) -> Result<usize, Unsent> {
        let request = convert::request(head).ok_or(Unsent::Unsayable)?;
        self.upgrade = request
            .extensions()
            .get::<h2::ext::Protocol>()
            .map(|protocol| protocol.as_str().as_bytes().into());
        let (response, stream) = self
            .connection
            .send(request, end)
            .map_err(|error| Unsent::Reset(reset_of(&error)))?;
        self.response = Some(response);
        self.request = Some(Sending::new(stream, end));
        self.over = false;
        let bytes = convert::field_bytes(&head.headers);
        self.sent = bytes as u64 + FRAME_HEADER;
        Ok(bytes)
    }

    pub(crate) fn has_room(&mut self, context: &mut Context<'_>) -> bool {
        self.request
            .as_mut()
            .is_none_or(|request| request.has_room(context))
    }

    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), NoMoreTaken>> {
        let Some(request) = &mut self.request else {
            return Poll::Ready(Ok(()));
        };
        if !request.has_room(context) {
            return Poll::Pending;
        }
        Poll::Ready(match request.is_broken() {
            true => Err(NoMoreTaken),
            false => Ok(()),
        })
    }

    /// Drives the answer until its final head is there.
    pub(crate) fn poll_head(
        &mut self,
        reception: &mut Reception<'_>,
        mut interim: impl FnMut(&ResponseHead),
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Reset>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(Reset::Terminated));
        };
        while let Poll::Ready(Some(Ok(early))) = response.poll_informational(context) {
            reception.is_active = true;
            convert::read_response(early.status(), early.headers(), reception.head);
            if let Err(reset) = reception.take(BodyFraming::None, &mut interim) {
                return Poll::Ready(Err(reset));
            }
        }
        let answer = match std::pin::Pin::new(response).poll(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => {
                self.over = true;
                self.connection.note(&error);
                return Poll::Ready(Err(reset_of(&error)));
            }
            Poll::Ready(Ok(answer)) => answer,
        };
        let (parts, body) = answer.into_parts();
        convert::read_response(parts.status, &parts.headers, reception.head);
        if let Some(protocol) = self.upgrade.as_deref().filter(|_| reception.head.status() == 200) {
            convert::agree(reception.head, protocol);
        }
        reception.field_bytes = convert::field_bytes(&reception.head.headers);
        self.received += reception.field_bytes as u64 + FRAME_HEADER;
        self.over = body.is_end_stream();
        let framing = match body.is_end_stream() || reception.opens_tunnel() {
            true => BodyFraming::None,
            false => match framing(reception.head, reception.to_head) {
                Ok(framing) => framing,
                Err(reset) => return Poll::Ready(Err(reset)),
            },
        };
        self.body = Some(body);
        if self.connection.too_large(reception.head, reception.field_bytes) {
            // As if the host had said so: in these words Envoy tells it.
            return Poll::Ready(Err(Reset::Remote));
        }
        match reception.take(framing, &mut interim) {
            Ok(true) => Poll::Ready(Ok(())),
            // An informational response cannot be a stream's last.
            Ok(false) => Poll::Ready(Err(Reset::Protocol)),
            Err(reset) => Poll::Ready(Err(reset)),
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
        let Some(body) = &mut self.body else {
            return Err(Reset::Terminated);
        };
        match body.poll_data(context) {
            Poll::Pending => return Ok(Pulled::Starved),
            Poll::Ready(Some(Err(error))) => return Err(self.ended_by(&error)),
            Poll::Ready(Some(Ok(bytes))) => {
                self.received += bytes.len() as u64 + FRAME_HEADER;
                // The sink has had room for it, so that the host may send as much again.
                let _ = body.flow_control().release_capacity(bytes.len());
                let end = body.is_end_stream();
                self.over = end;
                if !bytes.is_empty() {
                    download.take(Piece::Shared(bytes), end, sink, pool);
                } else if end {
                    download.end(None, sink, pool);
                }
                return Ok(Pulled::Read);
            }
            Poll::Ready(None) => {}
        }
        match body.poll_trailers(context) {
            Poll::Pending => Ok(Pulled::Starved),
            Poll::Ready(Err(error)) => Err(self.ended_by(&error)),
            Poll::Ready(Ok(trailers)) => {
                self.over = true;
                let trailers = trailers.as_ref().map(convert::read_trailers);
                if let Some(trailers) = &trailers {
                    self.received += convert::field_bytes(trailers) as u64 + FRAME_HEADER;
                    self.connection.count_trailers();
                }
                download.end(trailers, sink, pool);
                Ok(Pulled::Read)
            }
        }
    }

    /// Its end of a tunnel, once the host has agreed.
    pub(crate) fn tunnel_end(&mut self) -> TunnelEnd<'_, SocketStream> {
        let (Some(sending), Some(body)) = (&mut self.request, &mut self.body) else {
            return TunnelEnd::Gone;
        };
        TunnelEnd::Stream(StreamEnd {
            sending,
            body,
            received: &mut self.received,
            sent: &mut self.sent,
            connection: StreamOf::Host(&self.connection),
            failure: None,
        })
    }

    /// A tunnel has ended as it should.
    pub(crate) fn tunnel_is_over(&mut self) {
        self.over = self.request.as_ref().is_some_and(Sending::is_ended);
    }

    fn ended_by(&mut self, error: &h2::Error) -> Reset {
        self.over = true;
        self.connection.note(error);
        reset_of(error)
    }

    /// Why the transport ended the connection, where that tells more than that it did.
    pub(crate) fn take_failure(&mut self) -> Option<String> {
        self.connection.failure()
    }

    /// Tells the bytes of the request; those of the connection are counted by its own task.
    pub(crate) fn end_request(&self, bytes: &mut StreamBytes) {
        bytes.upstream_wire_sent += self.sent;
        bytes.upstream_wire_received += self.received;
    }
}

/// How long a body is that does not end with its head. What tells several lengths is refused, as of hosts of HTTP/1.
fn framing(head: &ResponseHead, to_head: bool) -> Result<BodyFraming, Reset> {
    if to_head || matches!(head.status(), 204 | 304) {
        return Ok(BodyFraming::None);
    }
    Ok(
        match response_framing(head, to_head).map_err(|_| Reset::Protocol)? {
            length @ BodyFraming::Length(_) => length,
            // A body of no bytes that has not ended yet may have trailers.
            _ => BodyFraming::Chunked,
        },
    )
}

impl BodySink for Http2Uplink {
    fn data(&mut self, piece: Piece<'_>, end: bool, _: &BufferPool) {
        self.sent += self
            .request
            .as_mut()
            .map_or(0, |request| request.data(piece, end));
        self.connection.count_data();
    }

    fn finish(&mut self, trailers: Option<&Headers>, _: &BufferPool) {
        self.sent += self
            .request
            .as_mut()
            .map_or(0, |request| request.finish(trailers));
        self.connection.count_data();
    }
}

impl Drop for Http2Uplink {
    fn drop(&mut self) {
        // What is not over is reset by dropping it.
        self.connection.request_ended(!self.over);
    }
}
