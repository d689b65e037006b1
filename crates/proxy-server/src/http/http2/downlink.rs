//! A client's HTTP/2 stream as an exchange sees it.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use proxy_http::{Headers, ResponseHead, Version};

use super::super::body::{BodySink, Piece, Pulled};
use super::super::buffer::BufferPool;
use super::super::downlink::{Delimiter, Downlink};
use super::super::forward::ClientFault;
use super::super::transport::SocketStream;
use super::super::tunnel_end::{StreamEnd, StreamOf, TunnelEnd};
use super::super::uplink::Uplink;
use super::super::upload::Upload;
use super::convert;
use super::server::Shared;
use super::stream::{FRAME_HEADER, Sending};

/// One stream. The connection's own task does the reading and writing.
#[derive(Debug)]
pub(crate) struct Http2Downlink {
    respond: SendResponse<Bytes>,
    /// The response, once its head has gone.
    response: Option<Sending>,
    body: RecvStream,
    received: u64,
    sent: u64,
    /// What the client is told when its request cannot be carried to its end.
    abort_reason: Reason,
    connection: Rc<Shared>,
}

impl Http2Downlink {
    pub(crate) fn new(
        respond: SendResponse<Bytes>,
        body: RecvStream,
        head_bytes: usize,
        connection: &Rc<Shared>,
    ) -> Self {
        Http2Downlink {
            respond,
            response: None,
            body,
            received: head_bytes as u64 + FRAME_HEADER,
            sent: 0,
            abort_reason: Reason::INTERNAL_ERROR,
            connection: Rc::clone(connection),
        }
    }

    /// Gives the stream up, unless its response is complete.
    pub(crate) fn abort(&mut self) {
        let reason = self.abort_reason;
        match &mut self.response {
            Some(response) if response.is_ended() => return,
            Some(response) => response.reset(reason),
            None => self.respond.send_reset(reason),
        }
        self.connection.count_reset();
    }

    fn count_sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.connection.count_data();
    }
}

/// What the client has done, out of an error of the stream.
pub(crate) fn fault_of(error: &h2::Error) -> ClientFault {
    if error.is_reset() && error.is_remote() {
        ClientFault::Reset
    } else if error.is_reset() && error.is_library() {
        ClientFault::Malformed
    } else {
        ClientFault::Closed
    }
}

impl BodySink for Http2Downlink {
    fn data(&mut self, piece: Piece<'_>, end: bool, _: &BufferPool) {
        let sent = self
            .response
            .as_mut()
            .map_or(0, |response| response.data(piece, end));
        self.count_sent(sent);
    }

    fn finish(&mut self, trailers: Option<&Headers>, _: &BufferPool) {
        let sent = self
            .response
            .as_mut()
            .map_or(0, |response| response.finish(trailers));
        self.count_sent(sent);
    }
}

impl Downlink for Http2Downlink {
    type Stream = SocketStream;

    const MULTIPLEXED: bool = true;

    fn tunnel_end(&mut self) -> TunnelEnd<'_, SocketStream> {
        // A tunnel that breaks ends with an error of its own (RFC 9113, section 8.5).
        self.abort_reason = Reason::CONNECT_ERROR;
        let Some(sending) = &mut self.response else {
            return TunnelEnd::Gone;
        };
        TunnelEnd::Stream(StreamEnd {
            sending,
            body: &mut self.body,
            received: &mut self.received,
            sent: &mut self.sent,
            connection: StreamOf::Client(&self.connection),
            failure: None,
        })
    }

    fn write_continue(&mut self, pool: &BufferPool) {
        self.write_interim(&ResponseHead::with_status(100), pool);
    }

    fn write_interim(&mut self, head: &ResponseHead, _: &BufferPool) {
        // A stream that is gone will say so when it is watched.
        if let Some(interim) = convert::response(head) {
            let _ = self.respond.send_informational(interim);
        }
    }

    fn write_head(&mut self, head: &ResponseHead, end: bool, _: bool, _: &BufferPool) -> usize {
        let bytes = convert::field_bytes(&head.headers);
        self.sent += bytes as u64 + FRAME_HEADER;
        match convert::response(head) {
            Some(mut response) => {
                if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                    // HTTP/2 says in this way that a stream carries another protocol (RFC 8441, section 5).
                    *response.status_mut() = http::StatusCode::OK;
                }
                let sent = self.respond.send_response(response, end);
                self.response = sent.ok().map(|stream| Sending::new(stream, end));
            }
            // An upstream's field that HTTP/2 has no way to say.
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
        bytes
    }

    fn delimiter(_: Version) -> Delimiter {
        Delimiter::Frames
    }

    fn has_room(&mut self, context: &mut Context<'_>) -> bool {
        self.response
            .as_mut()
            .is_none_or(|response| response.has_room(context))
    }

    fn has_output(&self) -> bool {
        false
    }

    /// What was pushed is the connection's to write; what is waited for here is room for more.
    fn poll_flush(&mut self, context: &mut Context<'_>, _: &BufferPool) -> Poll<Result<(), ClientFault>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(ClientFault::Reset));
        };
        if !response.has_room(context) {
            return Poll::Pending;
        }
        if response.is_broken() {
            let fault = match response.poll_reset(context) {
                Poll::Ready(Err(error)) => fault_of(&error),
                Poll::Ready(Ok(_)) | Poll::Pending => ClientFault::Reset,
            };
            return Poll::Ready(Err(fault));
        }
        Poll::Ready(Ok(()))
    }

    fn pull(
        &mut self,
        upload: &mut Upload,
        sink: &mut Uplink,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Result<Pulled, ClientFault> {
        match self.body.poll_data(context) {
            Poll::Pending => return Ok(Pulled::Starved),
            Poll::Ready(Some(Err(error))) => return Err(fault_of(&error)),
            Poll::Ready(Some(Ok(bytes))) => {
                self.received += bytes.len() as u64 + FRAME_HEADER;
                // The sink has had room for it, so that the client may send as much again.
                let _ = self.body.flow_control().release_capacity(bytes.len());
                let end = self.body.is_end_stream();
                if !bytes.is_empty() {
                    upload.take(Piece::Shared(bytes), end, sink, pool);
                } else if end {
                    upload.end(None, sink, pool);
                }
                return Ok(Pulled::Read);
            }
            Poll::Ready(None) => {}
        }
        match self.body.poll_trailers(context) {
            Poll::Pending => Ok(Pulled::Starved),
            Poll::Ready(Err(error)) => Err(fault_of(&error)),
            Poll::Ready(Ok(trailers)) => {
                let trailers = trailers.as_ref().map(convert::read_trailers);
                if let Some(trailers) = &trailers {
                    self.received += convert::field_bytes(trailers) as u64 + FRAME_HEADER;
                    self.connection.count_trailers();
                }
                upload.end(trailers, sink, pool);
                Ok(Pulled::Read)
            }
        }
    }

    fn discard(&mut self, _: &mut Upload) {}

    fn watch(&mut self, _: &BufferPool, context: &mut Context<'_>) -> Result<(), ClientFault> {
        let polled = match &mut self.response {
            Some(response) => response.poll_reset(context),
            None => self.respond.poll_reset(context),
        };
        match polled {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(_)) => Err(ClientFault::Reset),
            Poll::Ready(Err(error)) => Err(fault_of(&error)),
        }
    }

    fn moved(&self) -> (u64, u64) {
        (self.received, self.sent)
    }

    fn note_end(&mut self, answered: bool, elapsed: Duration) {
        self.connection.note_end(answered, elapsed);
    }

    fn drain(&mut self) {
        self.connection.ask_to_drain();
    }
}
