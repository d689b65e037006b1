//! A response body on its way to the client.

use proxy_http::{BodyDecoder, BodyFraming, Headers};
use tokio::time::Instant;

use super::body::{BodySink, Piece};
use super::buffer::BufferPool;
use super::forward::Reset;

/// The state of a response body.
#[derive(Debug)]
pub(crate) struct Download {
    /// Takes an HTTP/1 body apart; that of an HTTP/2 stream comes in pieces already.
    decoder: BodyDecoder,
    done: bool,
    /// Trailers of the response, when it had any.
    pub(crate) trailers: Option<Box<Headers>>,
    /// Body bytes.
    pub(crate) received: u64,
    /// When all of it had come, if the client was slower than that.
    pub(crate) received_at: Option<Instant>,
}

impl Download {
    pub(crate) fn new(framing: BodyFraming) -> Self {
        Download {
            decoder: BodyDecoder::new(framing, proxy_http::HeadLimits::default()),
            done: framing == BodyFraming::None,
            trailers: None,
            received: 0,
            received_at: None,
        }
    }

    /// True when the whole body has gone to the sink.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Decodes one piece of an HTTP/1 body from `input` into the sink; gives the bytes consumed, and whether anything
    /// happened. Trailers are noted, and passed on if `with_trailers`.
    pub(crate) fn advance(
        &mut self,
        input: &[u8],
        with_trailers: bool,
        sink: &mut impl BodySink,
        pool: &BufferPool,
    ) -> Result<(usize, bool), Reset> {
        let step = self.decoder.decode(input).map_err(|_| Reset::Protocol)?;
        if step.end {
            self.trailers = self.decoder.take_trailers().map(Box::new);
        }
        let data = &input[step.data];
        let ends = step.end && !(with_trailers && self.trailers.is_some());
        if !data.is_empty() {
            self.take(Piece::Borrowed(data), ends, sink, pool);
        }
        if step.end && !self.done {
            self.done = true;
            sink.finish(self.trailers.as_deref().filter(|_| with_trailers), pool);
        }
        Ok((step.consumed, step.consumed > 0 || step.end))
    }

    /// Moves a piece into the sink; `end` says that nothing follows, not even trailers.
    pub(crate) fn take(&mut self, piece: Piece<'_>, end: bool, sink: &mut impl BodySink, pool: &BufferPool) {
        self.received += piece.len() as u64;
        self.done |= end;
        sink.data(piece, end, pool);
    }

    /// The body has ended behind its last piece.
    pub(crate) fn end(&mut self, trailers: Option<Headers>, sink: &mut impl BodySink, pool: &BufferPool) {
        self.done = true;
        self.trailers = trailers.map(Box::new);
        sink.finish(self.trailers.as_deref(), pool);
    }

    /// The upstream has closed its HTTP/1 connection.
    pub(crate) fn end_of_stream(&mut self, sink: &mut impl BodySink, pool: &BufferPool) -> Result<(), Reset> {
        self.decoder.close().map_err(|_| Reset::Terminated)?;
        self.end(None, sink, pool);
        Ok(())
    }
}
