//! The sending half of a stream, with the room that flow control leaves.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use proxy_http::Headers;

use super::super::body::Piece;
use super::convert;

/// The sending half. After its end, or after an error, what is pushed is dropped.
#[derive(Debug)]
pub(crate) struct Sending {
    stream: SendStream<Bytes>,
    ended: bool,
    broken: bool,
}

impl Sending {
    /// A half whose head has gone; `ended` says that nothing follows.
    pub(crate) fn new(stream: SendStream<Bytes>, ended: bool) -> Self {
        Sending {
            stream,
            ended,
            broken: false,
        }
    }

    /// Whether everything has been handed over.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the stream takes nothing more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether more may be pushed. A little is asked for at a time: what the window allows beyond that stays with the
    /// connection, for other streams.
    pub(crate) fn has_room(&mut self, context: &mut Context<'_>) -> bool {
        if self.ended || self.broken || self.stream.capacity() > 0 {
            return true;
        }
        self.stream.reserve_capacity(1);
        match self.stream.poll_capacity(context) {
            Poll::Ready(Some(Ok(_))) => true,
            Poll::Ready(None | Some(Err(_))) => {
                self.broken = true;
                true
            }
            Poll::Pending => self.stream.capacity() > 0,
        }
    }

    /// Hands a piece over; gives the bytes of its frame.
    pub(crate) fn data(&mut self, piece: Piece<'_>, end: bool) -> u64 {
        if self.ended || self.broken {
            return 0;
        }
        self.ended = end;
        let length = piece.len() as u64;
        self.broken = self.stream.send_data(piece.into(), end).is_err();
        length + FRAME_HEADER
    }

    /// Ends the stream; gives the bytes of its last frame.
    pub(crate) fn finish(&mut self, trailers: Option<&Headers>) -> u64 {
        if self.ended || self.broken {
            return 0;
        }
        self.ended = true;
        let fields = trailers.filter(|trailers| !trailers.is_empty());
        let sent = match fields.and_then(convert::fields) {
            Some(fields) => self.stream.send_trailers(fields),
            None => self.stream.send_data(Bytes::new(), true),
        };
        self.broken = sent.is_err();
        FRAME_HEADER + trailers.map_or(0, |trailers| convert::field_bytes(trailers) as u64)
    }

    /// Gives the stream up.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
        self.broken = true;
    }

    /// Ready when the peer has given the stream up, or the connection is gone.
    pub(crate) fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.stream.poll_reset(context)
    }
}

/// Bytes of a frame beside its payload.
pub(crate) const FRAME_HEADER: u64 = 9;
