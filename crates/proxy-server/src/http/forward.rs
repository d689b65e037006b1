//! The two directions of one exchange, driven by one task: request body up, response down. No channels: each call
//! moves what can be moved and leaves wakers for the rest.

use std::task::{Context, Poll};
use std::time::Duration;

use proxy_http::{
    BodyDecoder, BodyFraming, Headers, ParseError, ResponseHead, response_framing, write_chunk_header,
    write_last_chunk, write_response_head,
};
use tokio::time::Instant;

use super::buffer::{BufferPool, ReadBuffer, WriteBuffer};
use super::limits;
use super::timer::{DeadlineTimer, earlier};
use super::transport::Transport;
use super::upload::Upload;
use super::upstream::UpstreamConnection;

/// The downstream side of a connection.
#[derive(Debug)]
pub(crate) struct Downlink<S> {
    pub(crate) stream: S,
    pub(crate) read: ReadBuffer,
    pub(crate) write: WriteBuffer,
    /// Bytes since the connection began.
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl<S> Downlink<S> {
    /// Bytes that came and were used.
    pub(crate) fn used(&self) -> u64 {
        self.received - self.read.unread().len() as u64
    }
}

/// Times at which an exchange is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// The route's timeout, running since the request was complete.
    pub(crate) route: Option<Instant>,
    pub(crate) per_try: Option<Instant>,
    pub(crate) max_stream: Option<Instant>,
    /// `request_timeout`, until the request is complete.
    pub(crate) request: Option<Instant>,
    /// `stream_idle_timeout`.
    pub(crate) idle: Option<Duration>,
    /// `per_try_idle_timeout`.
    pub(crate) per_try_idle: Option<Duration>,
    pub(crate) last_activity: Instant,
}

/// Which time is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expiry {
    Route,
    PerTry,
    MaxStream,
    Request,
    Idle,
    PerTryIdle,
}

impl Deadlines {
    pub(crate) fn next(&self) -> Option<Instant> {
        let idle = earlier(
            self.idle.map(|idle| self.last_activity + idle),
            self.per_try_idle.map(|idle| self.last_activity + idle),
        );
        let total = earlier(
            earlier(self.route, self.per_try),
            earlier(self.max_stream, self.request),
        );
        earlier(idle, total)
    }

    pub(crate) fn expired(&self, now: Instant) -> Expiry {
        let over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if over(self.max_stream) {
            Expiry::MaxStream
        } else if over(self.route) {
            Expiry::Route
        } else if over(self.per_try) {
            Expiry::PerTry
        } else if over(self.request) {
            Expiry::Request
        } else if over(self.per_try_idle.map(|idle| self.last_activity + idle)) {
            Expiry::PerTryIdle
        } else {
            Expiry::Idle
        }
    }
}

/// Why the client's side ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClientFault {
    /// The client closed the connection, or it broke.
    Closed,
    /// The client's body broke the protocol.
    Protocol(ParseError),
}

/// Why the upstream's side ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reset {
    /// The connection ended.
    Terminated,
    /// The response broke the protocol.
    Protocol,
}

/// How a phase of an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PhaseEnd {
    /// As it should.
    Done,
    Upstream(Reset),
    Client(ClientFault),
    Expired(Expiry),
}

/// What both phases of an exchange move.
pub(crate) struct Forward<'a, S> {
    pub(crate) down: &'a mut Downlink<S>,
    pub(crate) up: &'a mut UpstreamConnection,
    pub(crate) upload: &'a mut Upload,
    pub(crate) timer: &'a mut DeadlineTimer,
    pub(crate) deadlines: &'a mut Deadlines,
    pub(crate) pool: &'a BufferPool,
    /// Set once the upstream takes no more of the request; what it has answered still counts.
    pub(crate) upload_broken: bool,
    /// How long the route's timeout is once the request is complete.
    pub(crate) route_timeout: Option<Duration>,
    pub(crate) per_try_timeout: Option<Duration>,
}

/// What a response head is read with.
pub(crate) struct Reception<'a> {
    pub(crate) head: &'a mut ResponseHead,
    /// The request was HEAD.
    pub(crate) to_head: bool,
    /// 1xx responses go on to the client.
    pub(crate) forward_interim: bool,
    pub(crate) interim_seen: usize,
    /// The framing of the response, once its head is complete.
    pub(crate) framing: BodyFraming,
    /// Bytes of its fields.
    pub(crate) field_bytes: usize,
}

impl<S: Transport> Forward<'_, S> {
    /// Drives the exchange until the response head is there.
    pub(crate) fn poll_head(
        &mut self,
        reception: &mut Reception<'_>,
        context: &mut Context<'_>,
    ) -> Poll<PhaseEnd> {
        if let Err(fault) = self.poll_upload(context) {
            return Poll::Ready(PhaseEnd::Client(fault));
        }
        match self.poll_response_head(reception, context) {
            Poll::Ready(Ok(())) => return Poll::Ready(PhaseEnd::Done),
            Poll::Ready(Err(reset)) => return Poll::Ready(PhaseEnd::Upstream(reset)),
            Poll::Pending => {}
        }
        // A 1xx waits, ours or the upstream's: the client may send nothing before it has it.
        if !self.down.write.is_empty() {
            let down = &mut *self.down;
            if let Poll::Ready(Err(_)) =
                down.write
                    .poll_flush(&mut down.stream, context, self.pool, &mut down.sent)
            {
                return Poll::Ready(PhaseEnd::Client(ClientFault::Closed));
            }
        }
        self.poll_deadlines(context)
    }

    fn poll_deadlines(&mut self, context: &mut Context<'_>) -> Poll<PhaseEnd> {
        match self.timer.poll(self.deadlines.next(), context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(PhaseEnd::Expired(self.deadlines.expired(Instant::now()))),
        }
    }

    /// Moves the request body as far as it goes, then watches for the client's end.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), ClientFault> {
        if self.upload.is_complete() && self.up.write.is_empty() {
            return self.watch_client(context);
        }
        loop {
            let starved = self.fill_upload(context)?;
            self.upload.note_completion();
            if self.upload_broken {
                self.up.write.clear(self.pool);
                return Ok(());
            }
            let up = &mut *self.up;
            match up
                .write
                .poll_flush(&mut up.stream, context, self.pool, &mut up.sent)
            {
                Poll::Ready(Ok(())) if self.upload.is_complete() => {
                    self.request_is_complete();
                    return self.watch_client(context);
                }
                Poll::Ready(Ok(())) if starved => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    up.note_failure(&error);
                    // The answer may already be on its way, so reading goes on.
                    self.upload_broken = true;
                    self.up.write.clear(self.pool);
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Decodes body bytes into the upstream's write buffer; true when the client has to send more first.
    fn fill_upload(&mut self, context: &mut Context<'_>) -> Result<bool, ClientFault> {
        let down = &mut *self.down;
        while !self.upload.is_complete() && self.up.write.pending() < limits::PENDING_WRITE_BYTES {
            let out = self.up.write.bytes(self.pool);
            let (consumed, advanced) = self
                .upload
                .advance(down.read.unread(), out)
                .map_err(ClientFault::Protocol)?;
            down.read.consume(consumed);
            if advanced {
                continue;
            }
            match down.read.poll_fill(&mut down.stream, context, self.pool) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(ClientFault::Closed),
                Poll::Ready(Ok(count)) => {
                    down.received += count as u64;
                    if self.deadlines.idle.is_some() {
                        self.deadlines.last_activity = Instant::now();
                    }
                }
                Poll::Pending => {
                    down.read.release(self.pool);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The request has gone out completely: the route's time begins to run.
    fn request_is_complete(&mut self) {
        self.deadlines.request = None;
        if self.upload.sent_at.is_some() {
            return;
        }
        let now = Instant::now();
        self.upload.sent_at = Some(now);
        if self.deadlines.route.is_none() {
            self.deadlines.route = self.route_timeout.map(|timeout| now + timeout);
        }
        if self.deadlines.per_try.is_none() {
            self.deadlines.per_try = self.per_try_timeout.map(|timeout| now + timeout);
        }
    }

    fn watch_client(&mut self, context: &mut Context<'_>) -> Result<(), ClientFault> {
        watch_client(self.down, self.pool, context)
    }

    fn poll_response_head(
        &mut self,
        reception: &mut Reception<'_>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Reset>> {
        loop {
            if !self.up.read.is_empty() {
                let Ok(parsed) = self.up.parser.response(self.up.read.unread(), reception.head) else {
                    return Poll::Ready(Err(Reset::Protocol));
                };
                self.up.read.consume(parsed.consumed);
                if parsed.complete {
                    reception.field_bytes = parsed.field_bytes;
                    match self.take_head(reception) {
                        Ok(true) => return Poll::Ready(Ok(())),
                        Ok(false) => continue,
                        Err(reset) => return Poll::Ready(Err(reset)),
                    }
                }
            } else {
                self.up.read.release(self.pool);
                if self.up.stream.poll_readable(context).is_pending() {
                    return Poll::Pending;
                }
            }
            let up = &mut *self.up;
            match up.read.poll_fill(&mut up.stream, context, self.pool) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Reset::Terminated)),
                Poll::Ready(Err(error)) => {
                    up.note_failure(&error);
                    return Poll::Ready(Err(Reset::Terminated));
                }
                Poll::Ready(Ok(count)) => {
                    up.received += count as u64;
                    self.note_activity();
                }
                Poll::Pending => {
                    up.read.release(self.pool);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Looks at a complete head: true when it is the final one.
    fn take_head(&mut self, reception: &mut Reception<'_>) -> Result<bool, Reset> {
        let head = &*reception.head;
        reception.framing = response_framing(head, reception.to_head).map_err(|_| Reset::Protocol)?;
        if head.status() >= 200 || head.status() == 101 {
            return Ok(true);
        }
        reception.interim_seen += 1;
        if reception.interim_seen > limits::INTERIM_RESPONSES {
            return Err(Reset::Protocol);
        }
        if reception.forward_interim {
            write_response_head(self.down.write.bytes(self.pool), reception.head);
        }
        Ok(false)
    }

    fn note_activity(&mut self) {
        if self.deadlines.idle.is_some() || self.deadlines.per_try_idle.is_some() {
            self.deadlines.last_activity = Instant::now();
        }
    }

    /// Drives the exchange until the response has gone out. The head waits in the downstream's write buffer.
    pub(crate) fn poll_body(&mut self, download: &mut Download, context: &mut Context<'_>) -> Poll<PhaseEnd> {
        if !self.upload.is_complete()
            && !self.upload_broken
            && let Err(fault) = self.poll_upload(context)
        {
            return Poll::Ready(PhaseEnd::Client(fault));
        }
        loop {
            let starved = match self.fill_download(download, context) {
                Ok(starved) => starved,
                Err(reset) => return Poll::Ready(PhaseEnd::Upstream(reset)),
            };
            let down = &mut *self.down;
            match down
                .write
                .poll_flush(&mut down.stream, context, self.pool, &mut down.sent)
            {
                Poll::Ready(Ok(())) if download.is_done() => return Poll::Ready(PhaseEnd::Done),
                Poll::Ready(Ok(())) if starved => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(PhaseEnd::Client(ClientFault::Closed)),
                Poll::Pending => {
                    if download.is_done() {
                        download.received_at.get_or_insert_with(Instant::now);
                    }
                    break;
                }
            }
        }
        // While the response is awaited the client's end is noticed; while it flows, by writing.
        if self.upload.is_complete()
            && let Err(fault) = self.watch_client(context)
        {
            return Poll::Ready(PhaseEnd::Client(fault));
        }
        self.poll_deadlines(context)
    }

    /// Decodes response bytes into the downstream's write buffer; true when the upstream has to send more first.
    fn fill_download(&mut self, download: &mut Download, context: &mut Context<'_>) -> Result<bool, Reset> {
        let up = &mut *self.up;
        while !download.is_done() && self.down.write.pending() < limits::PENDING_WRITE_BYTES {
            let out = self.down.write.bytes(self.pool);
            let (consumed, advanced) = download.advance(up.read.unread(), out)?;
            up.read.consume(consumed);
            if advanced {
                continue;
            }
            match up.read.poll_fill(&mut up.stream, context, self.pool) {
                Poll::Ready(Ok(0)) => download.end_of_stream(self.down.write.bytes(self.pool))?,
                Poll::Ready(Err(_)) => return Err(Reset::Terminated),
                Poll::Ready(Ok(count)) => {
                    up.received += count as u64;
                    if self.deadlines.idle.is_some() || self.deadlines.per_try_idle.is_some() {
                        self.deadlines.last_activity = Instant::now();
                    }
                }
                Poll::Pending => {
                    up.read.release(self.pool);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Notices that the client has gone. Bytes that it sends ahead are kept, up to a limit, for the next request.
pub(crate) fn watch_client<S: Transport>(
    down: &mut Downlink<S>,
    pool: &BufferPool,
    context: &mut Context<'_>,
) -> Result<(), ClientFault> {
    loop {
        if down.read.unread().len() >= limits::PIPELINED_BYTES {
            return Ok(());
        }
        down.read.release(pool);
        if down.stream.poll_readable(context).is_pending() {
            return Ok(());
        }
        match down.read.poll_fill(&mut down.stream, context, pool) {
            Poll::Ready(Ok(0) | Err(_)) => return Err(ClientFault::Closed),
            Poll::Ready(Ok(count)) => down.received += count as u64,
            Poll::Pending => {
                down.read.release(pool);
                return Ok(());
            }
        }
    }
}

/// A response body on its way to the client.
#[derive(Debug)]
pub(crate) struct Download {
    decoder: BodyDecoder,
    /// It goes out in chunks.
    chunked: bool,
    done: bool,
    enable_trailers: bool,
    /// Trailers of the response, when it had any.
    pub(crate) trailers: Option<Headers>,
    /// Body bytes.
    pub(crate) received: u64,
    /// When all of it had come, if the client was slower than that.
    pub(crate) received_at: Option<Instant>,
}

impl Download {
    pub(crate) fn new(framing: BodyFraming, chunked: bool, enable_trailers: bool) -> Self {
        Download {
            decoder: BodyDecoder::new(framing, proxy_http::HeadLimits::default()),
            chunked,
            done: framing == BodyFraming::None,
            enable_trailers,
            trailers: None,
            received: 0,
            received_at: None,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), Reset> {
        let step = self.decoder.decode(input).map_err(|_| Reset::Protocol)?;
        let data = &input[step.data];
        if !data.is_empty() {
            self.received += data.len() as u64;
            if self.chunked {
                write_chunk_header(out, data.len());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            } else {
                out.extend_from_slice(data);
            }
        }
        if step.end {
            self.trailers = self.decoder.take_trailers();
            self.finish(out);
        }
        Ok((step.consumed, step.consumed > 0 || step.end))
    }

    fn end_of_stream(&mut self, out: &mut Vec<u8>) -> Result<(), Reset> {
        self.decoder.close().map_err(|_| Reset::Terminated)?;
        self.finish(out);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.done = true;
        if self.chunked {
            write_last_chunk(out, self.trailers.as_ref().filter(|_| self.enable_trailers));
        }
    }
}
