//! The two directions of one exchange, driven by one task: request body up, response down. No channels: each call
//! moves what can be moved and leaves wakers for the rest.

use std::task::{Context, Poll};
use std::time::Duration;

use proxy_core::ResponseFlag;
use proxy_http::{BodyFraming, ParseError, ResponseHead};
use tokio::time::Instant;

use super::body::Pulled;
use super::buffer::BufferPool;
use super::downlink::Downlink;
use super::download::Download;
use super::limits;
use super::timer::{DeadlineTimer, Due, earlier};
use super::tunnel::Tunnel;
use super::uplink::{NoMoreTaken, Uplink};
use super::upload::Upload;

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

    /// What becomes of an exchange whose timer has rung.
    pub(crate) fn phase_end(&self, due: Due) -> PhaseEnd {
        match due {
            Due::Deadline => PhaseEnd::Expired(self.expired(Instant::now())),
            Due::Drained => PhaseEnd::Client(ClientFault::Closed),
        }
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
    /// The client closed the connection, it broke, or we end it because its filter chain's drain is over.
    Closed,
    /// The client gave the request up (HTTP/2 `RST_STREAM`).
    Reset,
    /// The client's body broke HTTP/1.
    Protocol(ParseError),
    /// The client's body is not the base64 that it should be (gRPC-Web).
    NotBase64,
    /// The client's message broke HTTP/2, which has ended its stream already.
    Malformed,
}

/// Why the upstream's side ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reset {
    /// The connection ended.
    Terminated,
    /// The response broke the protocol.
    Protocol,
    /// The upstream reset the stream.
    Remote,
    /// The upstream refused the stream, or went away before it has looked at it.
    Refused,
}

impl Reset {
    /// The response flag for it.
    pub(crate) const fn flag(self) -> ResponseFlag {
        match self {
            Reset::Terminated => ResponseFlag::UpstreamConnectionTermination,
            Reset::Protocol => ResponseFlag::UpstreamProtocolError,
            Reset::Remote | Reset::Refused => ResponseFlag::UpstreamRemoteReset,
        }
    }
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
pub(crate) struct Forward<'a, D> {
    pub(crate) down: &'a mut D,
    pub(crate) up: &'a mut Uplink,
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
    /// What the request asked its connection to become.
    pub(crate) tunnel: Option<Tunnel>,
    /// 1xx responses go on to the client.
    pub(crate) forward_interim: bool,
    pub(crate) interim_seen: usize,
    /// The framing of the response, once its head is complete.
    pub(crate) framing: BodyFraming,
    /// Bytes of its fields.
    pub(crate) field_bytes: usize,
    /// Something has come from the upstream.
    pub(crate) is_active: bool,
}

impl<'a> Reception<'a> {
    /// For an answer that nobody gets to see.
    pub(crate) fn unseen(head: &'a mut ResponseHead, to_head: bool) -> Self {
        Reception {
            head,
            to_head,
            tunnel: None,
            forward_interim: false,
            interim_seen: 0,
            framing: BodyFraming::None,
            field_bytes: 0,
            is_active: false,
        }
    }

    /// Whether the head that has come opens a tunnel.
    pub(crate) fn opens_tunnel(&self) -> bool {
        self.tunnel
            .is_some_and(|tunnel| tunnel.is_opened_by(self.head.status()))
    }

    /// Looks at a complete head with its framing: true when it is the final one.
    pub(crate) fn take(
        &mut self,
        framing: BodyFraming,
        interim: &mut impl FnMut(&ResponseHead),
    ) -> Result<bool, Reset> {
        self.framing = framing;
        let status = self.head.status();
        if status >= 200 || self.opens_tunnel() {
            return Ok(true);
        }
        if status == 101 {
            // Nobody may change the protocol unasked.
            return Err(Reset::Protocol);
        }
        self.interim_seen += 1;
        if self.interim_seen > limits::INTERIM_RESPONSES {
            return Err(Reset::Protocol);
        }
        if self.forward_interim {
            interim(self.head);
        }
        Ok(false)
    }
}

impl<D: Downlink> Forward<'_, D> {
    /// Drives the exchange until the response head is there.
    pub(crate) fn poll_head(
        &mut self,
        reception: &mut Reception<'_>,
        context: &mut Context<'_>,
    ) -> Poll<PhaseEnd> {
        let awaits_client = match self.poll_upload(context) {
            Ok(awaits_client) => awaits_client,
            Err(fault) => return Poll::Ready(PhaseEnd::Client(fault)),
        };
        let (down, pool) = (&mut *self.down, self.pool);
        let interim = |head: &ResponseHead| down.write_interim(head, pool);
        match self.up.poll_head(reception, interim, pool, context) {
            Poll::Ready(Ok(())) => return Poll::Ready(PhaseEnd::Done),
            Poll::Ready(Err(reset)) => return Poll::Ready(PhaseEnd::Upstream(reset)),
            Poll::Pending => {}
        }
        // While the response is awaited the client's end is noticed; a client that sends is read.
        if !awaits_client && let Err(fault) = self.down.watch(self.pool, context) {
            return Poll::Ready(PhaseEnd::Client(fault));
        }
        // A 1xx waits, ours or the upstream's: the client may send nothing before it has it.
        if self.down.has_output()
            && let Poll::Ready(Err(fault)) = self.down.poll_flush(context, self.pool)
        {
            return Poll::Ready(PhaseEnd::Client(fault));
        }
        if reception.is_active {
            reception.is_active = false;
            self.note_activity();
        }
        self.poll_deadlines(context)
    }

    fn poll_deadlines(&mut self, context: &mut Context<'_>) -> Poll<PhaseEnd> {
        let due = self.timer.poll(self.deadlines.next(), context);
        due.map(|due| self.deadlines.phase_end(due))
    }

    /// Whether all of the request has gone out.
    fn request_is_sent(&self) -> bool {
        self.upload.is_complete() && self.up.is_flushed() && self.upload.sent_at.is_some()
    }

    /// Moves the request body as far as it goes; true when the client has to send more first, whose end is noticed
    /// then.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<bool, ClientFault> {
        if self.request_is_sent() {
            return Ok(false);
        }
        loop {
            let starved = self.fill_upload(context)?;
            self.upload.note_completion();
            if self.upload_broken {
                self.up.clear(self.pool);
                return Ok(starved);
            }
            match self.up.poll_flush(context, self.pool) {
                Poll::Ready(Ok(())) if self.upload.is_complete() => {
                    self.request_is_complete();
                    return Ok(false);
                }
                Poll::Ready(Ok(())) if starved => return Ok(true),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(NoMoreTaken)) => {
                    // The answer may already be on its way, so reading goes on.
                    self.upload_broken = true;
                    self.up.clear(self.pool);
                    return Ok(false);
                }
                Poll::Pending => return Ok(starved),
            }
        }
    }

    /// Moves body bytes to the upstream's side; true when the client has to send more first.
    fn fill_upload(&mut self, context: &mut Context<'_>) -> Result<bool, ClientFault> {
        while !self.upload.is_complete() && self.up.has_room(context) {
            let pulled = self.down.pull(self.upload, self.up, self.pool, context)?;
            if self.upload.is_malformed() {
                return Err(ClientFault::NotBase64);
            }
            match pulled {
                Pulled::Moved => {}
                Pulled::Read => {
                    if self.deadlines.idle.is_some() {
                        self.deadlines.last_activity = Instant::now();
                    }
                }
                Pulled::Starved => return Ok(true),
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

    fn note_activity(&mut self) {
        if self.deadlines.idle.is_some() || self.deadlines.per_try_idle.is_some() {
            self.deadlines.last_activity = Instant::now();
        }
    }

    /// Drives the exchange until the response has gone out. The head waits in the downstream's write buffer.
    pub(crate) fn poll_body(&mut self, download: &mut Download, context: &mut Context<'_>) -> Poll<PhaseEnd> {
        let awaits_client = match self.upload_broken {
            true => Ok(false),
            false => self.poll_upload(context),
        };
        let awaits_client = match awaits_client {
            Ok(awaits_client) => awaits_client,
            Err(fault) => return Poll::Ready(PhaseEnd::Client(fault)),
        };
        loop {
            let starved = match self.fill_download(download, context) {
                Ok(starved) => starved,
                Err(reset) => return Poll::Ready(PhaseEnd::Upstream(reset)),
            };
            match self.down.poll_flush(context, self.pool) {
                Poll::Ready(Ok(())) if download.is_done() => return Poll::Ready(PhaseEnd::Done),
                Poll::Ready(Ok(())) if starved => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(fault)) => return Poll::Ready(PhaseEnd::Client(fault)),
                Poll::Pending => {
                    if download.is_done() {
                        download.received_at.get_or_insert_with(Instant::now);
                    }
                    break;
                }
            }
        }
        // While the response is awaited the client's end is noticed; while it flows, by writing.
        if !awaits_client && let Err(fault) = self.down.watch(self.pool, context) {
            return Poll::Ready(PhaseEnd::Client(fault));
        }
        self.poll_deadlines(context)
    }

    /// Moves response bytes to the client's side; true when the upstream has to send more first.
    fn fill_download(&mut self, download: &mut Download, context: &mut Context<'_>) -> Result<bool, Reset> {
        while !download.is_done() && self.down.has_room(context) {
            match self.up.pull(download, self.down, self.pool, context)? {
                Pulled::Moved => {}
                Pulled::Read => self.note_activity(),
                Pulled::Starved => return Ok(true),
            }
        }
        Ok(false)
    }
}
