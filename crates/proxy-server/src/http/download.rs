//! A response body on its way to the client.

use proxy_filters::grpc_web::AnswerWriter;
use proxy_http::{BodyDecoder, BodyFraming, Headers};
use tokio::time::Instant;

use super::body::{BodySink, Piece};
use super::buffer::BufferPool;
use super::forward::Reset;
use super::grpc::MessageCounter;

/// What filters do with a body.
#[derive(Debug)]
struct Filters {
    messages: Option<MessageCounter>,
    /// It goes out as gRPC-Web's.
    web: Option<AnswerWriter>,
}

impl Filters {
    /// What becomes of a piece.
    fn change<'p>(&mut self, piece: Piece<'p>, end: bool) -> Piece<'p> {
        if let Some(messages) = &mut self.messages {
            messages.look(&piece);
        }
        let Some(web) = &mut self.web else {
            return piece;
        };
        let mut written = web.write(&piece);
        if end {
            let last = web.end(None);
            written.get_or_insert_with(|| piece.to_vec()).extend(last);
        }
        written.map_or(piece, |written| Piece::Shared(written.into()))
    }
}

/// The state of a response body.
#[derive(Debug)]
pub(crate) struct Download {
    /// Takes an HTTP/1 body apart; that of an HTTP/2 stream comes in pieces already.
    decoder: BodyDecoder,
    done: bool,
    /// What filters do with it.
    filters: Option<Box<Filters>>,
    /// Trailers of the response, when it had any.
    pub(crate) trailers: Option<Box<Headers>>,
    /// Body bytes that went to the sink.
    pub(crate) sent: u64,
    /// When all of it had come, if the client was slower than that.
    pub(crate) received_at: Option<Instant>,
}

impl Download {
    pub(crate) fn new(framing: BodyFraming) -> Self {
        Download {
            decoder: BodyDecoder::new(framing, proxy_http::HeadLimits::default()),
            done: framing == BodyFraming::None,
            filters: None,
            trailers: None,
            sent: 0,
            received_at: None,
        }
    }

    /// Sends the body through filters.
    pub(crate) fn pass_through(&mut self, messages: Option<MessageCounter>, web: Option<AnswerWriter>) {
        if messages.is_some() || web.is_some() {
            self.filters = Some(Box::new(Filters { messages, web }));
        }
    }

    /// Ends what goes to the sink.
    fn finish(&mut self, with_trailers: bool, sink: &mut impl BodySink, pool: &BufferPool) {
        let trailers = self.trailers.as_deref().filter(|_| with_trailers);
        if let Some(Filters { web: Some(web), .. }) = self.filters.as_deref_mut() {
            let last = web.end(trailers);
            if !last.is_empty() {
                self.sent += last.len() as u64;
                return sink.data(Piece::Shared(last.into()), true, pool);
            }
        } else {
            return sink.finish(trailers, pool);
        }
        sink.finish(None, pool);
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
            self.finish(with_trailers, sink, pool);
        }
        Ok((step.consumed, step.consumed > 0 || step.end))
    }

    /// Moves a piece into the sink; `end` says that nothing follows, not even trailers.
    pub(crate) fn take(&mut self, piece: Piece<'_>, end: bool, sink: &mut impl BodySink, pool: &BufferPool) {
        self.done |= end;
        let piece = match &mut self.filters {
            None => piece,
            Some(filters) => filters.change(piece, end),
        };
        self.sent += piece.len() as u64;
        if !piece.is_empty() {
            sink.data(piece, end, pool);
        } else if end {
            sink.finish(None, pool);
        }
    }

    /// The body has ended behind its last piece.
    pub(crate) fn end(&mut self, trailers: Option<Headers>, sink: &mut impl BodySink, pool: &BufferPool) {
        self.done = true;
        self.trailers = trailers.map(Box::new);
        self.finish(true, sink, pool);
    }

    /// The upstream has closed its HTTP/1 connection.
    pub(crate) fn end_of_stream(&mut self, sink: &mut impl BodySink, pool: &BufferPool) -> Result<(), Reset> {
        self.decoder.close().map_err(|_| Reset::Terminated)?;
        self.end(None, sink, pool);
        Ok(())
    }
}
