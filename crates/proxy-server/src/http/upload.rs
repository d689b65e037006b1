//! A request body on its way upstream, with what is kept of it for retries.

use proxy_filters::grpc_web::TextReader;
use proxy_http::{BodyDecoder, BodyFraming, BodyStep, HeadLimits, Headers, ParseError};
use tokio::time::Instant;

use super::body::{BodySink, Piece};
use super::buffer::BufferPool;
use super::grpc::MessageCounter;

/// What filters do with a body.
#[derive(Debug, Default)]
struct Filters {
    /// It comes in base64.
    text: Option<TextReader>,
    messages: Option<MessageCounter>,
    is_malformed: bool,
}

impl Filters {
    /// What becomes of a piece.
    fn change<'p>(&mut self, piece: Piece<'p>, end: bool) -> Piece<'p> {
        let piece = match &mut self.text {
            None => piece,
            Some(text) => {
                let read = text.read(&piece);
                self.is_malformed |= read.is_err() || (end && text.end().is_err());
                Piece::Shared(read.unwrap_or_default().into())
            }
        };
        if let Some(messages) = &mut self.messages {
            messages.look(&piece);
        }
        piece
    }
}

/// The state of a request body across tries.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Takes an HTTP/1 body apart; that of an HTTP/2 stream comes in pieces already.
    decoder: BodyDecoder,
    /// Its length, where that is known before its end.
    length: Option<u64>,
    complete: bool,
    /// What has been sent, while a retry is possible.
    replay: Option<Vec<u8>>,
    replay_limit: usize,
    /// What filters do with it.
    filters: Option<Box<Filters>>,
    /// Trailers of the request, where they are passed on.
    trailers: Option<Box<Headers>>,
    /// Body bytes received.
    pub(crate) received: u64,
    /// When the last byte had come; a request without a body is complete with its head.
    pub(crate) received_at: Option<Instant>,
    /// When the last byte had gone upstream.
    pub(crate) sent_at: Option<Instant>,
}

impl Upload {
    /// The body of an HTTP/1 request with this framing.
    pub(crate) fn new(framing: BodyFraming, limits: HeadLimits) -> Self {
        Upload {
            decoder: BodyDecoder::new(framing, limits),
            length: match framing {
                BodyFraming::Length(length) => Some(length),
                BodyFraming::None | BodyFraming::Chunked | BodyFraming::UntilClose => None,
            },
            complete: framing == BodyFraming::None,
            replay: None,
            replay_limit: 0,
            filters: None,
            trailers: None,
            received: 0,
            received_at: None,
            sent_at: None,
        }
    }

    /// The body of an HTTP/2 request, which is of this length if it tells one.
    pub(crate) fn streamed(length: Option<u64>) -> Self {
        let mut upload = Upload::none();
        (upload.length, upload.complete) = (length, false);
        upload
    }

    /// There is no body.
    pub(crate) fn none() -> Self {
        Upload::new(BodyFraming::None, HeadLimits::default())
    }

    /// The head of its request has come.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.received_at = self.complete.then_some(now);
    }

    /// Keeps what is sent, up to `limit` bytes, so that a retry can send it again.
    pub(crate) fn record(&mut self, limit: usize) {
        self.replay = Some(Vec::new());
        self.replay_limit = limit;
    }

    /// The body is gRPC-Web's; with a reader it comes in base64. Its length is not that of what goes on.
    pub(crate) fn translate(&mut self, text: Option<TextReader>) {
        self.length = None;
        self.filters.get_or_insert_default().text = text;
    }

    /// Has the messages of the body counted.
    pub(crate) fn count_messages(&mut self, counter: MessageCounter) {
        self.filters.get_or_insert_default().messages = Some(counter);
    }

    /// True when a filter could not read it.
    pub(crate) fn is_malformed(&self) -> bool {
        self.filters.as_ref().is_some_and(|filters| filters.is_malformed)
    }

    /// True when the whole body has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// True when the request ended with its head.
    pub(crate) fn is_empty(&self) -> bool {
        self.complete && self.received == 0 && self.trailers.is_none()
    }

    /// Notes the time when the whole body has come. The clock is read once, and only for requests with a body.
    pub(crate) fn note_completion(&mut self) {
        if self.complete {
            self.received_at.get_or_insert_with(Instant::now);
        }
    }

    /// The length of the body. `None`: it is told by nothing but its end.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// True when another try could send everything again.
    pub(crate) fn can_replay(&self) -> bool {
        self.replay.is_some()
    }

    /// What has been sent so far, when all of it was kept.
    pub(crate) fn recorded(&self) -> Option<&[u8]> {
        self.replay.as_deref()
    }

    /// Sends again what earlier tries have sent already.
    pub(crate) fn replay(&self, sink: &mut impl BodySink, pool: &BufferPool) {
        let sent = self.replay.as_deref().unwrap_or_default();
        let ends = self.complete && self.trailers.is_none();
        if !sent.is_empty() {
            sink.data(Piece::Borrowed(sent), ends, pool);
        }
        if self.complete && (!ends || sent.is_empty()) {
            sink.finish(self.trailers.as_deref(), pool);
        }
    }

    /// Decodes one piece of an HTTP/1 body from `input` into the sink; gives the bytes consumed, and whether anything
    /// happened. Trailers are dropped unless `with_trailers`.
    pub(crate) fn advance(
        &mut self,
        input: &[u8],
        with_trailers: bool,
        sink: &mut impl BodySink,
        pool: &BufferPool,
    ) -> Result<(usize, bool), ParseError> {
        let BodyStep { consumed, data, end } = self.decoder.decode(input)?;
        let trailers = match end {
            true => self.decoder.take_trailers().filter(|_| with_trailers),
            false => None,
        };
        let data = &input[data];
        let ends = end && trailers.is_none();
        if !data.is_empty() {
            self.take(Piece::Borrowed(data), ends, sink, pool);
        }
        if end && !self.complete {
            self.end(trailers, sink, pool);
        }
        Ok((consumed, consumed > 0 || end))
    }

    /// Moves a piece into the sink; `end` says that nothing follows, not even trailers.
    pub(crate) fn take(&mut self, piece: Piece<'_>, end: bool, sink: &mut impl BodySink, pool: &BufferPool) {
        self.received += piece.len() as u64;
        self.complete |= end;
        let piece = match &mut self.filters {
            None => piece,
            Some(filters) => filters.change(piece, end),
        };
        self.keep(&piece);
        if !piece.is_empty() {
            sink.data(piece, end, pool);
        } else if end && !self.is_malformed() {
            sink.finish(None, pool);
        }
    }

    /// The body has ended behind its last piece.
    pub(crate) fn end(&mut self, trailers: Option<Headers>, sink: &mut impl BodySink, pool: &BufferPool) {
        self.complete = true;
        self.trailers = trailers.map(Box::new);
        if let Some(filters) = &mut self.filters
            && filters.text.as_ref().is_some_and(|text| text.end().is_err())
        {
            filters.is_malformed = true;
            return;
        }
        sink.finish(self.trailers.as_deref(), pool);
    }

    /// Reads on in an HTTP/1 body that nobody wants any more; gives the bytes consumed.
    pub(crate) fn discard(&mut self, input: &[u8]) -> Result<usize, ParseError> {
        let BodyStep { consumed, data, end } = self.decoder.decode(input)?;
        self.received += data.len() as u64;
        self.complete |= end;
        Ok(consumed)
    }

    fn keep(&mut self, data: &[u8]) {
        if let Some(replay) = &mut self.replay {
            if replay.len() + data.len() <= self.replay_limit {
                replay.extend_from_slice(data);
            } else {
                // Too large to be sent twice: from here on there is one try.
                self.replay = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an upstream is sent: bytes, whether they have ended, and the trailers behind them.
    #[derive(Debug, Default, PartialEq)]
    struct Sent {
        body: Vec<u8>,
        ended: bool,
        trailers: Vec<(String, String)>,
    }

    impl BodySink for Sent {
        fn data(&mut self, piece: Piece<'_>, end: bool, _: &BufferPool) {
            assert!(!self.ended && !piece.is_empty());
            self.body.extend_from_slice(&piece);
            self.ended = end;
        }

        fn finish(&mut self, trailers: Option<&Headers>, _: &BufferPool) {
            assert!(!self.ended);
            self.ended = true;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let all = trailers.into_iter().flat_map(Headers::iter);
            self.trailers = all.map(|(name, value)| (text(name), text(value))).collect();
        }
    }

    fn upload(framing: BodyFraming, limit: usize, input: &[u8]) -> (Upload, Sent) {
        let pool = BufferPool::default();
        let mut upload = Upload::new(framing, HeadLimits::default());
        upload.record(limit);
        let (mut at, mut sent) = (0, Sent::default());
        while let Ok((consumed, true)) = upload.advance(&input[at..], true, &mut sent, &pool) {
            at += consumed;
            if upload.is_complete() {
                break;
            }
        }
        (upload, sent)
    }

    #[test]
    fn a_retry_sends_the_same_again() {
        for (framing, input) in [
            (BodyFraming::Length(5), &b"hello"[..]),
            (
                BodyFraming::Chunked,
                b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nt: 1\r\n\r\n",
            ),
            (BodyFraming::Chunked, b"5\r\nhello\r\n0\r\n\r\n"),
        ] {
            let (upload, sent) = upload(framing, 100, input);
            let mut again = Sent::default();
            upload.replay(&mut again, &BufferPool::default());
            assert_eq!(sent.body, b"hello");
            assert!(sent.ended);
            assert_eq!(sent, again);
        }
    }

    #[test]
    fn a_body_beyond_the_limit_cannot_be_sent_again() {
        assert!(upload(BodyFraming::Length(5), 5, b"hello").0.can_replay());
        assert!(!upload(BodyFraming::Length(5), 4, b"hello").0.can_replay());
    }
}
