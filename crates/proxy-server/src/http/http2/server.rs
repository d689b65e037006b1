//! A client's HTTP/2 connection: takes its streams, each of which is a task of its own; ends well.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{Either, select};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use proxy_core::ResponseFlag;
use proxy_http::{BodyFraming, request_framing};
use proxy_upstream::config::Http2Options;
use tokio::time::Instant;

use super::super::active_stream::{ActiveStream, Origin};
use super::super::buffer::ReadBuffer;
use super::super::exchange::Next;
use super::super::limits;
use super::super::timer::{DeadlineTimer, earlier};
use super::super::transport::SocketStream;
use super::super::upload::Upload;
use super::convert;
use super::downlink::Http2Downlink;
use super::keepalive::Keepalive;
use super::meter::{Flood, Meter};
use super::wire::{Outlet, Wire};
use crate::drain::Watch;

/// A connection that is known to speak HTTP/2.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: SocketStream,
    /// What was read of it.
    pub(crate) read: ReadBuffer,
    pub(crate) origin: Origin,
}

/// What the streams of a connection share with it.
#[derive(Debug)]
pub(crate) struct Shared {
    origin: Origin,
    meter: Rc<Meter>,
    /// When the last stream ended, or the connection began.
    idle_since: Cell<Instant>,
    wants_drain: Cell<bool>,
    /// Streams that have ended, and those of them that the client reset soon and without an answer.
    ended: Cell<u64>,
    ended_prematurely: Cell<u64>,
    /// Wakes the connection's task.
    waker: RefCell<Option<Waker>>,
}

impl Shared {
    /// A piece of a body goes out.
    pub(crate) fn count_data(&self) {
        self.meter.data_sent.set(self.meter.data_sent.get() + 1);
    }

    /// A stream was reset by us.
    pub(crate) fn count_reset(&self) {
        let stats = &self.origin.manager.config.http2_stats;
        self.origin.worker.shard().inc(stats.tx_reset);
    }

    /// Trailers came.
    pub(crate) fn count_trailers(&self) {
        let stats = &self.origin.manager.config.http2_stats;
        self.origin.worker.shard().inc(stats.trailers);
    }

    /// The connection ends when the requests on it are done.
    pub(crate) fn ask_to_drain(&self) {
        if !self.wants_drain.replace(true) {
            self.origin.life.begin_drain();
            self.wake();
        }
    }

    /// A request has ended, `answered` or not.
    pub(crate) fn note_end(&self, answered: bool, elapsed: Duration) {
        self.ended.set(self.ended.get() + 1);
        if !answered && elapsed < limits::PREMATURE_RESET_AGE {
            self.ended_prematurely.set(self.ended_prematurely.get() + 1);
        }
    }

    /// Whether the client resets so many streams that it means harm (CVE-2023-44487): more than half, as in Envoy.
    fn resets_too_much(&self) -> bool {
        let premature = 2 * self.ended_prematurely.get();
        let ended = self.ended.get();
        premature >= ended.max(limits::PREMATURE_RESETS_LOOKED_AT)
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(opened: Opened) {
    let Opened { stream, read, origin } = opened;
    let (config, worker) = (Rc::clone(&origin.manager), origin.worker.clone());
    let config = &config.config;
    origin.life.speaks((
        config.stats.downstream_cx_http2_total,
        config.stats.downstream_cx_http2_active,
    ));
    let meter = Rc::new(Meter::new(config.http2, true));
    let wire = Wire::new(stream, read, &origin.manager.local, &meter);
    let outlet = wire.outlet();
    let builder = builder(&config.http2, config.head_limits);
    let patience = config
        .timeouts
        .connection_idle
        .unwrap_or(limits::CONNECTION_IDLE_TIMEOUT);
    let drain = origin.drain.watch();
    let over = poll_fn(|context| drain.poll_over(context));
    let handshake = builder.handshake::<_, Bytes>(wire);
    let handshake = pin!(tokio::time::timeout(patience, handshake));
    let Either::Left((shaken, _)) = select(handshake, over).await else {
        return;
    };
    let mut connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            if !error.is_io() {
                worker.shard().inc(config.stats.downstream_cx_protocol_error);
            }
            origin.life.client_is_gone();
            return;
        }
        Err(_) => return worker.shard().inc(config.stats.downstream_cx_idle_timeout),
    };
    let keepalive = Keepalive::new(config.http2.keepalive, connection.ping_pong(), worker.random());
    outlet.take_over();
    let server = Server {
        outlet,
        keepalive,
        drain,
        timer: DeadlineTimer::default(),
        requests: 0,
        state: State::Open,
        shared: Rc::new(Shared {
            idle_since: Cell::new(origin.life.opened),
            origin,
            meter,
            wants_drain: Cell::new(false),
            ended: Cell::new(0),
            ended_prematurely: Cell::new(0),
            waker: RefCell::default(),
        }),
        connection,
    };
    server.run().await;
}

fn builder(options: &Http2Options, heads: proxy_http::HeadLimits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .header_table_size(options.hpack_table_bytes)
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_header_list_size(header_list_bytes(heads))
        .max_send_buffer_size(limits::PENDING_WRITE_BYTES)
        .max_pending_accept_reset_streams(limits::RESETS_BEFORE_BEGINNING);
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// The limit of heads as HTTP/2 counts them: with 32 bytes for each field (RFC 9113, section 6.5.2). What is a little
/// beyond the configured limits is then refused here, and recorded; what is far beyond, by the codec.
fn header_list_bytes(limits: proxy_http::HeadLimits) -> u32 {
    let overhead = limits.fields.saturating_add(1).saturating_mul(32);
    u32::try_from(limits.bytes.saturating_add(overhead)).unwrap_or(u32::MAX)
}

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It takes requests.
    Open,
    /// The client was told to open no more streams. What it says to that is waited for until then.
    Draining(Instant),
    /// It ends now; this is how long the last words may take.
    Closing(Instant),
}

struct Server {
    connection: Connection<Wire, Bytes>,
    outlet: Outlet,
    shared: Rc<Shared>,
    keepalive: Option<Keepalive>,
    drain: Watch,
    timer: DeadlineTimer,
    requests: u32,
    state: State,
}

impl Server {
    async fn run(mut self) {
        poll_fn(|context| self.poll(context)).await;
        self.count_bytes();
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        *self.shared.waker.borrow_mut() = Some(context.waker().clone());
        loop {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.start_stream(request, respond);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.note_error(&error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    if self.state == State::Open {
                        self.shared.origin.life.client_is_gone();
                    }
                    return Poll::Ready(());
                }
                Poll::Pending => {}
            }
            self.count_bytes();
            if !self.react(context) {
                break;
            }
        }
        if let Poll::Ready(Err(_)) = self.outlet.poll_flush(context) {
            if !matches!(self.state, State::Closing(_)) {
                self.shared.origin.life.client_is_gone();
            }
            return Poll::Ready(());
        }
        match self.state {
            State::Closing(until) => self.timer.poll(Some(until), context).map(|_| ()),
            State::Open | State::Draining(_) => Poll::Pending,
        }
    }

    /// Looks at everything but frames; true when the connection has something to say because of it.
    fn react(&mut self, context: &mut Context<'_>) -> bool {
        if matches!(self.state, State::Closing(_)) {
            return false;
        }
        let config = &self.shared.origin.manager.config;
        let shard = self.shared.origin.worker.shard();
        if let Some(flood) = self.shared.meter.flood() {
            let stats = &config.http2_stats;
            shard.inc(match flood {
                Flood::Empty => stats.inbound_empty_frames_flood,
                Flood::Priority => stats.inbound_priority_frames_flood,
                Flood::WindowUpdate => stats.inbound_window_update_frames_flood,
                // Envoy counts these nowhere else.
                Flood::Reset => config.stats.downstream_rq_too_many_premature_resets,
            });
            shard.inc(config.stats.downstream_cx_protocol_error);
            return self.close(Reason::ENHANCE_YOUR_CALM);
        }
        if self.shared.resets_too_much() {
            shard.inc(config.stats.downstream_rq_too_many_premature_resets);
            return self.close(Reason::ENHANCE_YOUR_CALM);
        }
        if self.drain.poll_over(context).is_ready() {
            return self.close(Reason::NO_ERROR);
        }
        let worker = &self.shared.origin.worker;
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(context, &|| worker.random()).is_ready()
        {
            shard.inc(config.http2_stats.keepalive_timeout);
            return self.close(Reason::NO_ERROR);
        }
        match self.state {
            State::Open => self.drain_when_due(context),
            State::Draining(until) => self.end_when_drained(until, context),
            State::Closing(_) => false,
        }
    }

    /// A client that does not react gets its last words as soon as no request of it is left.
    fn end_when_drained(&mut self, until: Instant, context: &mut Context<'_>) -> bool {
        let is_over = self.timer.poll(Some(until), context).is_ready();
        is_over && self.shared.origin.life.active() == 0 && self.close(Reason::NO_ERROR)
    }

    /// Begins to drain because somebody wants it, its filter chain drains, or the connection was idle or there for long
    /// enough.
    fn drain_when_due(&mut self, context: &mut Context<'_>) -> bool {
        let shared = Rc::clone(&self.shared);
        let config = &shared.origin.manager.config;
        if shared.wants_drain.get() {
            return self.drain();
        }
        loop {
            let active = shared.origin.life.active() > 0;
            let idle = config.timeouts.connection_idle.filter(|_| !active);
            let idle = idle.map(|timeout| shared.idle_since.get() + timeout);
            let oldest = config.timeouts.max_connection_duration;
            let oldest = oldest.map(|limit| shared.origin.life.opened + limit);
            let closing = shared.origin.life.closing_time(&shared.origin.drain);
            let next = earlier(earlier(idle, oldest), closing);
            if self.timer.poll(next, context).is_pending() {
                return false;
            }
            let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
            if is_over(closing) {
                shared.origin.life.begin_drain();
                return self.drain();
            }
            let counter = if is_over(idle) {
                config.stats.downstream_cx_idle_timeout
            } else if is_over(oldest) {
                config.stats.downstream_cx_max_duration_reached
            } else {
                continue;
            };
            shared.origin.worker.shard().inc(counter);
            return self.drain();
        }
    }

    fn drain(&mut self) -> bool {
        let patience = self.shared.origin.manager.config.timeouts.drain;
        self.state = State::Draining(Instant::now() + patience);
        self.count_goaway();
        self.connection.graceful_shutdown();
        true
    }

    fn close(&mut self, reason: Reason) -> bool {
        let limit = self.shared.origin.manager.config.timeouts.delayed_close;
        self.state = State::Closing(Instant::now() + limit.unwrap_or(limits::DELAYED_CLOSE_TIMEOUT));
        self.count_goaway();
        self.connection.abrupt_shutdown(reason);
        true
    }

    fn count_goaway(&self) {
        let stats = &self.shared.origin.manager.config.http2_stats;
        self.shared.origin.worker.shard().inc(stats.goaway_sent);
    }

    fn note_error(&self, error: &h2::Error) {
        let origin = &self.shared.origin;
        let stats = &origin.manager.config.stats;
        if error.is_library() {
            origin.worker.shard().inc(stats.downstream_cx_protocol_error);
            ::tracing::debug!(%error, "an HTTP/2 connection broke the protocol");
        } else if !matches!(self.state, State::Closing(_)) {
            origin.life.client_is_gone();
        }
    }

    fn count_bytes(&self) {
        let meter = &self.shared.meter;
        let life = &self.shared.origin.life;
        life.count_bytes(meter.received.get(), meter.sent.get());
    }

    fn start_stream(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (shared, origin) = (&self.shared, &self.shared.origin);
        shared.meter.streams.set(shared.meter.streams.get() + 1);
        self.requests += 1;
        let most = origin.manager.config.max_requests_per_connection;
        if most > 0 && self.requests >= most && !shared.wants_drain.replace(true) {
            let stats = &origin.manager.config.stats;
            origin
                .worker
                .shard()
                .inc(stats.downstream_cx_max_requests_reached);
        }
        let open = OpenStream::new(shared);
        tokio::task::spawn_local(async move {
            let shared = Rc::clone(&open.shared);
            let served = AssertUnwindSafe(serve_stream(&shared, request, respond)).catch_unwind();
            if served.await.is_err() {
                let stats = &shared.origin.manager.config.stats;
                shared.origin.worker.shard().inc(stats.downstream_cx_panic);
                ::tracing::error!("a fault ended an HTTP/2 stream");
            }
        });
    }
}

/// Counts a stream as open.
struct OpenStream {
    shared: Rc<Shared>,
}

impl OpenStream {
    fn new(shared: &Rc<Shared>) -> Self {
        let stats = &shared.origin.manager.config.http2_stats;
        shared.origin.worker.shard().move_gauge(stats.streams_active, 1);
        OpenStream {
            shared: Rc::clone(shared),
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let shared = &self.shared;
        let stats = &shared.origin.manager.config.http2_stats;
        shared.origin.worker.shard().move_gauge(stats.streams_active, -1);
        shared.idle_since.set(Instant::now());
        shared.wake();
    }
}

/// Carries one request to its end.
async fn serve_stream(shared: &Rc<Shared>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let manager = &shared.origin.manager;
    let mut heads = manager.local.take_heads();
    let (parts, body) = request.into_parts();
    convert::read_request(&parts, &mut heads.request);
    let is_well_formed = convert::is_well_formed(&parts);
    drop(parts);
    let field_bytes = convert::field_bytes(&heads.request.headers);
    let framing = request_framing(&heads.request);
    let is_well_formed = is_well_formed && framing.is_ok();
    let upload = match framing {
        _ if body.is_end_stream() => Upload::none(),
        Ok(BodyFraming::Length(length)) => Upload::streamed(Some(length)),
        _ => Upload::streamed(None),
    };
    let down = Http2Downlink::new(respond, body, field_bytes, shared);
    let mut stream = ActiveStream::new(down, shared.origin.clone());
    stream.field_bytes = field_bytes;
    let most = manager.config.head_limits;
    let refused = if !is_well_formed {
        Some("http2.invalid.header.field")
    } else if field_bytes > most.bytes {
        Some("http2.header_list_size_too_large")
    } else if heads.request.headers.len() > most.fields {
        Some("http2.too_many_headers")
    } else {
        None
    };
    let next = match refused {
        Some(details) => {
            if is_well_formed {
                let shard = shared.origin.worker.shard();
                shard.inc(manager.config.http2_stats.header_overflow);
            }
            stream.give_up(&mut heads, ResponseFlag::DownstreamRemoteReset, details)
        }
        None => stream.exchange(&mut heads, upload).await,
    };
    manager.local.give_heads(heads);
    if next == Next::Abort {
        stream.down.abort();
    }
}
