//! Connections to hosts that requests share.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant as StdInstant;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use proxy_core::Address;
use proxy_http::ResponseHead;
use proxy_upstream::http2_stats::Http2Stats;
use proxy_upstream::transport::Transport as HostTransport;
use proxy_upstream::{
    Attempt, Cluster, ConnectError, ConnectionPermit, Host, HttpVersions, Multiplexed, PoolKey,
    RequestPriority, SharedError, Stream,
};
use tokio::time::Instant;

use super::super::buffer::ReadBuffer;
use super::super::limits;
use super::super::local::HttpLocal;
use super::super::transport::SocketStream;
use super::super::upstream::{CheckoutError, ServerName};
use super::keepalive::Keepalive;
use super::meter::{Flood, Meter};
use super::uplink::Http2Uplink;
use super::wire::{Outlet, Wire};
use crate::http::uplink::Uplink;
use crate::local::Local;

/// A connection to a host. When nobody holds it any more it ends.
#[derive(Debug)]
pub(crate) struct Http2Connection {
    /// Opens streams; gone once no more may be opened.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    active: Cell<u32>,
    requests: Cell<u32>,
    idle_since: Cell<Instant>,
    pub(crate) id: u64,
    pub(crate) local_address: Option<Address>,
    /// What its TLS handshake told.
    pub(crate) tls: Option<Rc<tls::ConnectionInfo>>,
    /// The server name that a request has asked for; others need another connection.
    server_name: ServerName,
    /// The host's transport socket when the connection was made.
    transport: HostTransport,
    opened: Instant,
    /// Why the transport ended it.
    failure: RefCell<Option<String>>,
    meter: Rc<Meter>,
    /// Nothing has come for long, and there is a new stream.
    wants_ping: Rc<Cell<bool>>,
    stats: Option<Http2Stats>,
    permit: ConnectionPermit,
}

impl Http2Connection {
    /// Whether a request that asks for this server name may use it. After a change of its settings nobody may use what
    /// was agreed on before.
    pub(crate) fn fits(&self, server_name: &ServerName) -> bool {
        self.server_name == *server_name
            && self
                .permit
                .host()
                .with_spec(|spec| spec.transport == self.transport)
    }

    /// Takes a place on it.
    pub(crate) fn request_began(&self) {
        self.active.set(self.active.get() + 1);
        self.requests.set(self.requests.get() + 1);
        self.meter.streams.set(self.meter.streams.get() + 1);
        if let Some(stats) = &self.stats {
            self.shard().move_gauge(stats.streams_active, 1);
        }
    }

    /// Gives the place back; `reset` says that the stream was given up.
    pub(crate) fn request_ended(&self, reset: bool) {
        let cluster = self.permit.cluster();
        self.active.set(self.active.get().saturating_sub(1));
        self.idle_since.set(Instant::now());
        if let Some(stats) = &self.stats {
            self.shard().move_gauge(stats.streams_active, -1);
            if reset {
                self.shard().inc(stats.tx_reset);
            }
        }
        if reset {
            self.shard().inc(cluster.config().stats.upstream_rq_tx_reset);
        }
        let options = &cluster.config().http;
        let most = options.max_requests_per_connection;
        if most > 0 && self.requests.get() >= most && self.sender.take().is_some() {
            self.shard().inc(cluster.config().stats.upstream_cx_max_requests);
        }
        let permit = &self.permit;
        permit.host().room_was_made(permit.priority(), permit.key());
    }

    /// Opens a stream.
    pub(crate) fn send(
        &self,
        request: http::Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let silence = self
            .permit
            .cluster()
            .config()
            .http
            .http2
            .keepalive
            .and_then(|k| k.idle_interval);
        if silence.is_some_and(|limit| self.meter.silence() >= Some(limit)) {
            // The connection's task, which the new stream wakes, asks whether the host is still there.
            self.wants_ping.set(true);
        }
        match &mut *self.sender.borrow_mut() {
            Some(sender) => sender.send_request(request, end),
            None => Err(h2::Reason::REFUSED_STREAM.into()),
        }
    }

    /// Counts an error that ended a stream.
    pub(crate) fn note(&self, error: &h2::Error) {
        let Some(stats) = &self.stats else { return };
        if error.is_reset() && error.is_remote() {
            self.shard().inc(stats.rx_reset);
        } else if error.is_reset() && error.is_library() {
            self.shard().inc(stats.rx_messaging_error);
        }
    }

    /// Whether the head of an answer is beyond the cluster's limits.
    pub(crate) fn too_large(&self, head: &ResponseHead, field_bytes: usize) -> bool {
        let http = &self.permit.cluster().config().http;
        let most_fields = http
            .max_headers_count
            .map_or(proxy_http::limits::HEADER_COUNT, |count| count as usize);
        let over = head.headers.len() > most_fields || field_bytes > response_head_bytes(http);
        if over && let Some(stats) = &self.stats {
            self.shard().inc(stats.header_overflow);
        }
        over
    }

    /// A piece of a body goes out.
    pub(crate) fn count_data(&self) {
        self.meter.data_sent.set(self.meter.data_sent.get() + 1);
    }

    /// Trailers came.
    pub(crate) fn count_trailers(&self) {
        if let Some(stats) = &self.stats {
            self.shard().inc(stats.trailers);
        }
    }

    /// Why the transport ended it, where that tells more than that it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    fn shard(&self) -> &telemetry::stats::Shard {
        self.permit.cluster().shard()
    }

    /// It has ended.
    fn ended(&self, result: Result<(), Fault>) {
        let was_open = self.sender.take().is_some();
        let stats = &self.permit.cluster().config().stats;
        if let Err(fault) = result {
            if fault.is_of_protocol() {
                self.shard().inc(stats.upstream_cx_protocol_error);
            }
            if self.tls.is_some()
                && let Some(io) = fault.io()
            {
                *self.failure.borrow_mut() = Some(tls::HandshakeFailure::from_io(io).envoy_reason());
            }
        }
        self.shard().inc(match was_open {
            true => stats.upstream_cx_destroy_remote,
            false => stats.upstream_cx_destroy_local,
        });
        if self.active.get() > 0 {
            self.shard().inc(stats.upstream_cx_destroy_with_active_rq);
        }
    }
}

fn response_head_bytes(http: &proxy_upstream::config::HttpOptions) -> usize {
    http.max_response_headers_kib
        .map_or(proxy_http::limits::RESPONSE_HEAD_BYTES, |kib| kib as usize * 1024)
}

impl Multiplexed for Http2Connection {
    type Failure = ConnectError;

    fn key(&self) -> PoolKey {
        self.permit.key()
    }

    fn is_open(&self) -> bool {
        let mut slot = self.sender.borrow_mut();
        let Some(sender) = &mut *slot else {
            return false;
        };
        let cluster = self.permit.cluster();
        let oldest = cluster.config().http.max_connection_duration;
        if oldest.is_some_and(|limit| self.opened.elapsed() >= limit) {
            *slot = None;
            return false;
        }
        // An error is the connection's: it has ended.
        let mut context = Context::from_waker(Waker::noop());
        let has_ended = matches!(sender.poll_ready(&mut context), Poll::Ready(Err(_)));
        if has_ended || self.meter.going_away.get() {
            *slot = None;
            return false;
        }
        true
    }

    fn has_room(&self) -> bool {
        let http = &self.permit.cluster().config().http;
        let most = http.max_requests_per_connection;
        let active = self.active.get();
        if active >= http.http2.max_concurrent_streams || (most > 0 && self.requests.get() >= most) {
            return false;
        }
        let sender = self.sender.borrow();
        sender
            .as_ref()
            .is_some_and(|sender| (active as usize) < sender.current_max_send_streams())
    }

    fn idle_since(&self) -> Option<StdInstant> {
        (self.active.get() == 0).then(|| self.idle_since.get().into_std())
    }
}

impl Drop for Http2Connection {
    fn drop(&mut self) {
        let length = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let cluster = self.permit.cluster();
        cluster
            .shard()
            .record(cluster.config().stats.upstream_cx_length_ms, length);
    }
}

/// A place on a connection to the host that others may share.
pub(crate) async fn share(
    (worker, local): (&Local, &Rc<HttpLocal>),
    target: (&Rc<Cluster>, &Rc<Host>, RequestPriority),
    server_name: &ServerName,
) -> Result<Uplink, CheckoutError> {
    let fits = |connection: &Http2Connection| connection.fits(server_name);
    // The connection is for all who wait, so that it does not depend on who was first.
    let open = |permit: ConnectionPermit, attempt: Attempt<Http2Connection>| {
        let (worker, local) = (worker.clone(), Rc::clone(local));
        let server_name = server_name.clone();
        tokio::task::spawn_local(async move {
            attempt.end(establish((&worker, &local), permit, server_name).await);
        });
    };
    let key = server_name.key(HttpVersions::Http2);
    match proxy_upstream::acquire_shared(target, key, fits, open).await {
        Ok(connection) => Ok(Uplink::Http2(Http2Uplink::new(&connection))),
        Err(SharedError::Overflow) => Err(CheckoutError::Overflow),
        Err(SharedError::Connect(error)) => Err(CheckoutError::Connect(error)),
    }
}

async fn establish(
    who: (&Local, &Rc<HttpLocal>),
    permit: ConnectionPermit,
    server_name: ServerName,
) -> Result<Rc<Http2Connection>, ConnectError> {
    let dialer = who.0.dialer();
    let transport = permit.host().with_spec(|spec| spec.transport.clone());
    let options = server_name.handshake(HttpVersions::Http2);
    let stream = proxy_upstream::connect_with(&permit, dialer.as_deref(), options).await?;
    connect(who, stream, permit, (server_name, transport)).await
}

/// Begins to speak HTTP/2 on a new connection, and drives it from then on.
pub(crate) async fn connect(
    (worker, local): (&Local, &Rc<HttpLocal>),
    stream: Stream,
    permit: ConnectionPermit,
    (server_name, transport): (ServerName, HostTransport),
) -> Result<Rc<Http2Connection>, ConnectError> {
    let cluster = Rc::clone(permit.cluster());
    let config = cluster.config();
    cluster.shard().inc(config.stats.upstream_cx_http2_total);
    let options = config.http.http2;
    let local_address = stream.local_addr().map(Address::from);
    let tls = stream.tls().cloned();
    let meter = Rc::new(Meter::new(options, false));
    let wire = Wire::new(SocketStream(stream), ReadBuffer::default(), local, &meter);
    let outlet = wire.outlet();
    let overhead = 32 * proxy_http::limits::HEADER_COUNT;
    let head_bytes = response_head_bytes(&config.http).saturating_add(overhead);
    let handshake = Builder::new()
        .header_table_size(options.hpack_table_bytes)
        .initial_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits::PENDING_WRITE_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(wire);
    let (sender, mut connection) = handshake.await.map_err(|error| match error.into_io() {
        Some(error) => ConnectError::Io(error),
        None => ConnectError::Io(std::io::ErrorKind::ConnectionReset.into()),
    })?;
    let keepalive = Keepalive::new(options.keepalive, connection.ping_pong(), worker.random());
    let shared = Rc::new(Http2Connection {
        sender: RefCell::new(Some(sender)),
        active: Cell::new(0),
        requests: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        id: local.next_upstream_connection(),
        local_address,
        tls,
        server_name,
        transport,
        opened: Instant::now(),
        failure: RefCell::default(),
        meter,
        wants_ping: Rc::default(),
        stats: config.http2_stats.clone(),
        permit,
    });
    outlet.take_over();
    let driver = Driver {
        outlet,
        shared: Rc::downgrade(&shared),
        meter: Rc::clone(&shared.meter),
        cluster: Rc::clone(&cluster),
        keepalive,
        wants_ping: Rc::clone(&shared.wants_ping),
        worker: worker.clone(),
        counted: (0, 0),
        told_to_close: false,
    };
    tokio::task::spawn_local(driver.run(connection));
    Ok(shared)
}

/// Why a connection ended.
enum Fault {
    Protocol(h2::Error),
    /// It took nothing more.
    Socket(io::Error),
}

impl Fault {
    fn is_of_protocol(&self) -> bool {
        matches!(self, Self::Protocol(error) if error.is_library())
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Protocol(error) => error.get_io(),
            Self::Socket(error) => Some(error),
        }
    }
}

/// Drives a connection until it ends.
struct Driver {
    outlet: Outlet,
    shared: Weak<Http2Connection>,
    meter: Rc<Meter>,
    cluster: Rc<Cluster>,
    keepalive: Option<Keepalive>,
    wants_ping: Rc<Cell<bool>>,
    worker: Local,
    counted: (u64, u64),
    /// The host has said that the connection ends, which is counted.
    told_to_close: bool,
}

impl Driver {
    async fn run(mut self, connection: Connection<Wire, Bytes>) {
        let mut connection = pin!(connection);
        let result = poll_fn(|context| {
            let polled = connection.as_mut().poll(context);
            self.count_bytes();
            if self.meter.going_away.get() && !self.told_to_close {
                self.told_to_close = true;
                let stats = &self.cluster.config().stats;
                self.cluster.shard().inc(stats.upstream_cx_close_notify);
            }
            match polled {
                Poll::Ready(result) => Poll::Ready(result.map_err(Fault::Protocol)),
                Poll::Pending if self.is_given_up(context) => Poll::Ready(Ok(())),
                Poll::Pending => match self.outlet.poll_flush(context) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(Fault::Socket(error))),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                },
            }
        })
        .await;
        if let Some(shared) = self.shared.upgrade() {
            shared.ended(result);
        }
    }

    /// Whether the host floods the connection, or does not answer any more. Streams end with the connection.
    fn is_given_up(&mut self, context: &mut Context<'_>) -> bool {
        let (shard, config) = (self.cluster.shard(), self.cluster.config());
        let Some(stats) = &config.http2_stats else {
            return false;
        };
        if let Some(flood) = self.meter.flood() {
            shard.inc(match flood {
                Flood::Empty => stats.inbound_empty_frames_flood,
                Flood::Priority => stats.inbound_priority_frames_flood,
                Flood::WindowUpdate => stats.inbound_window_update_frames_flood,
                // Hosts' resets are not limited.
                Flood::Reset => stats.rx_reset,
            });
            shard.inc(config.stats.upstream_cx_protocol_error);
            return true;
        }
        let worker = &self.worker;
        if let Some(keepalive) = &mut self.keepalive
            && self.wants_ping.take()
        {
            keepalive.ask_now();
        }
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(context, &|| worker.random()).is_ready()
        {
            shard.inc(stats.keepalive_timeout);
            return true;
        }
        false
    }

    fn count_bytes(&mut self) {
        let moved = (self.meter.received.get(), self.meter.sent.get());
        let stats = &self.cluster.config().stats;
        let shard = self.cluster.shard();
        shard.add(stats.upstream_cx_rx_bytes_total, moved.0 - self.counted.0);
        shard.add(stats.upstream_cx_tx_bytes_total, moved.1 - self.counted.1);
        self.counted = moved;
    }
}
