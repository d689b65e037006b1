//! One try at an upstream: a host, a connection, the request, and the head of the answer.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use proxy_http::{BodyFraming, HeaderId, Version, connection_lists};
use proxy_router::TryFailure;
use proxy_upstream::outlier::Outcome as HostOutcome;
use proxy_upstream::{Host, PickContext, PickError};
use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::downlink::Downlink;
use super::exchange::Exchange;
use super::failures::{connect_failure, expired, no_host, overflow, reset_reply, unsayable};
use super::forward::{ClientFault, Expiry, Forward, PhaseEnd, Reception, Reset};
use super::local::Heads;
use super::local_reply::LocalReply;
use super::routing::Routed;
use super::timer::Due;
use super::uplink::{Unsent, Uplink};
use super::upstream::{CheckoutError, Wanted, address_of, checkout, take_ready, versions};

/// How a try ended.
pub(crate) enum TryEnd {
    /// The response head is there.
    Response(Answer),
    /// The upstream failed.
    Failed(TryFailure, LocalReply),
    /// The whole request is over, for this reason.
    Over(Box<LocalReply>),
    Client(ClientFault),
}

/// A response whose head has come.
pub(crate) struct Answer {
    pub(crate) connection: Uplink,
    pub(crate) request: proxy_upstream::ActiveRequest,
    pub(crate) framing: BodyFraming,
    pub(crate) upload_broken: bool,
}

impl<D: Downlink> ActiveStream<D> {
    /// One try: a host, a connection, the request, and the head of the answer.
    pub(crate) async fn attempt(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        routed: &mut Routed<'_>,
    ) -> TryEnd {
        exchange.info.attempt_count += 1;
        // The time of the try before must not end this one while it gets its connection.
        routed.deadlines.per_try = None;
        if routed.matched.virtual_host().include_request_attempt_count {
            let mut digits = itoa::Buffer::new();
            let count = digits.format(exchange.info.attempt_count);
            heads
                .request
                .headers
                .set(&HeaderId::XEnvoyAttemptCount, count.as_bytes());
        }
        // The first try comes right after the request's beginning; the clock need not be read again.
        let now = if exchange.info.attempt_count == 1 {
            exchange.began
        } else {
            Instant::now()
        };
        if exchange.info.attempt_count > 1 {
            announce_what_is_left(heads, routed, now);
        }
        let host = match self.pick(heads, routed, now) {
            Ok(host) => host,
            Err(error) => return no_host(error),
        };
        host.with_spec(|spec| {
            routed
                .matched
                .rewrite_host(&mut heads.request, &spec.hostname, routed.suppress)
        });
        let upstream = &mut exchange.info.upstream;
        upstream.host = address_of(&host);
        upstream.host_name =
            host.with_spec(|spec| Some(&*spec.hostname).filter(|n| !n.is_empty()).map(Rc::from));
        upstream.transport_failure_reason = Cow::Borrowed("");
        routed.host = Some(Rc::clone(&host));
        if let Some(terminate) = routed.terminate {
            return self
                .connect_tunnel(heads, exchange, routed, &host, terminate)
                .await;
        }
        let (connection, now) = match self.connection_to(exchange, routed, &host, now).await {
            Ok(connection) => connection,
            Err(end) => return end,
        };
        let begun = routed
            .cluster
            .begin_request(&host, routed.priority, now.into_std());
        let Ok(active) = begun else {
            connection.give_back(now, &self.manager.local.buffers);
            return overflow(exchange);
        };
        self.exchange_heads(heads, exchange, routed, (connection, active), now)
            .await
    }

    fn pick(&self, heads: &Heads, routed: &Routed<'_>, now: Instant) -> Result<Rc<Host>, PickError> {
        let policy = routed
            .matched
            .retry_policy()
            .filter(|policy| policy.avoid_previous_hosts);
        let header = routed.cluster.destination_header();
        let context = PickContext {
            original_destination: self.info.original_destination,
            destination_header: header.and_then(|name| heads.request.headers.get(name)),
            hash: routed.hash,
            previous_hosts: policy.map_or(&[], |_| &routed.previous_hosts),
            more_attempts: policy.map_or(0, |policy| policy.host_selection_attempts),
        };
        routed
            .cluster
            .pick(&context, now.into_std(), &mut || self.worker.random())
    }

    /// Gets a connection that speaks HTTP.
    async fn connection_to(
        &mut self,
        exchange: &mut Exchange<'_>,
        routed: &mut Routed<'_>,
        host: &Rc<Host>,
        now: Instant,
    ) -> Result<(Uplink, Instant), TryEnd> {
        let pool = &self.manager.local.buffers;
        let server_name = routed.server_name_for(host, &exchange.info.connection);
        let wanted = Wanted {
            priority: routed.priority,
            versions: versions(&routed.cluster, exchange.info.protocol.unwrap_or_default()),
            server_name: &server_name,
        };
        if let Some(connection) = take_ready(&routed.cluster, host, wanted, now, pool) {
            return Ok((connection, now));
        }
        if exchange.upload.is_complete() {
            routed.request_is_complete(now);
        }
        // Boxed: connecting is rare, and its future would make every request's future larger.
        let (worker, cluster) = (self.worker.clone(), Rc::clone(&routed.cluster));
        let local = Rc::clone(&self.manager.local);
        let connecting = Box::pin(checkout((&worker, &local), &cluster, host, wanted));
        let connection = self.wait_to_connect(exchange, routed, host, connecting).await?;
        Ok((connection, Instant::now()))
    }

    /// Waits for a connection, and watches the client and the clock meanwhile.
    pub(crate) async fn wait_to_connect<T>(
        &mut self,
        exchange: &mut Exchange<'_>,
        routed: &mut Routed<'_>,
        host: &Rc<Host>,
        mut connecting: Pin<Box<impl Future<Output = Result<T, CheckoutError>>>>,
    ) -> Result<T, TryEnd> {
        exchange.has_waited = true;
        let pool = &self.manager.local.buffers;
        let result = poll_fn(|context| {
            if let Poll::Ready(result) = connecting.as_mut().poll(context) {
                return Poll::Ready(Ok(result));
            }
            if let Err(fault) = self.down.watch(pool, context) {
                return Poll::Ready(Err(Interruption::Client(fault)));
            }
            let deadline = routed.deadlines.next();
            self.timer.poll(deadline, context).map(|due| {
                Err(match due {
                    Due::Deadline => Interruption::Expired(routed.deadlines.expired(Instant::now())),
                    Due::Drained => Interruption::Client(ClientFault::Closed),
                })
            })
        })
        .await;
        drop(connecting);
        match result {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(CheckoutError::Overflow)) => Err(overflow(exchange)),
            Ok(Err(CheckoutError::Connect(error))) => {
                host.record_failure();
                self.note(routed, host, HostOutcome::ConnectFailed);
                routed
                    .cluster
                    .shard()
                    .inc(routed.cluster.config().stats.upstream_rq_pending_failure_eject);
                Err(connect_failure(exchange, &error))
            }
            Err(Interruption::Client(fault)) => Err(TryEnd::Client(fault)),
            Err(Interruption::Expired(expiry)) => {
                self.count_expiry(expiry);
                count_upstream_timeout(routed, expiry);
                let is_complete = exchange.upload.is_complete();
                Err(expired(expiry, is_complete, routed.timeouts.alt_response))
            }
        }
    }

    /// Sends the request, and waits for the head of the answer.
    async fn exchange_heads(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        routed: &mut Routed<'_>,
        (mut connection, request): (Uplink, proxy_upstream::ActiveRequest),
        sent_at: Instant,
    ) -> TryEnd {
        exchange.has_waited = true;
        let (upstream, known) = (&mut exchange.info.upstream, connection.info());
        upstream.local_address.clone_from(known.local_address);
        upstream.connection_id = Some(known.id);
        upstream.protocol = Some(connection.version());
        upstream.tls.clone_from(known.tls);
        let pool = &self.manager.local.buffers;
        let chunked = frame_request(heads, exchange, connection.version());
        let is_empty = exchange.upload.is_empty();
        let ends = is_empty && exchange.tunnel.is_none();
        match connection.write_request(&heads.request, ends, chunked, pool) {
            Ok(bytes) => exchange.info.bytes.upstream_header_sent += bytes as u64,
            Err(Unsent::Reset(reset)) => return self.reset(routed, &request, &connection, reset),
            // That is nothing the host has done.
            Err(Unsent::Unsayable) => return unsayable(),
        }
        if exchange.info.attempt_count > 1 && !is_empty {
            exchange.upload.replay(&mut connection, pool);
        }
        exchange.info.timing.first_upstream_tx_byte = Some(sent_at.saturating_duration_since(exchange.began));
        routed.deadlines.last_activity = sent_at;
        let (global, per_try) = (limit(routed.timeouts.global), limit(routed.timeouts.per_try));
        if exchange.upload.is_complete() {
            exchange.upload.sent_at = Some(sent_at);
            routed.request_is_complete(sent_at);
            routed.deadlines.per_try = per_try.map(|limit| sent_at + limit);
        }
        let mut reception = Reception {
            head: &mut heads.response,
            to_head: exchange.to_head,
            tunnel: exchange.tunnel,
            forward_interim: self.manager.config.proxy_100_continue,
            interim_seen: 0,
            framing: BodyFraming::None,
            field_bytes: 0,
            is_active: false,
        };
        let mut forward = Forward {
            down: &mut self.down,
            up: &mut connection,
            upload: &mut exchange.upload,
            timer: &mut self.timer,
            deadlines: &mut routed.deadlines,
            pool,
            upload_broken: false,
            route_timeout: global,
            per_try_timeout: per_try,
        };
        let end = poll_fn(|context| forward.poll_head(&mut reception, context)).await;
        let (framing, upload_broken) = (reception.framing, forward.upload_broken);
        exchange.info.bytes.upstream_header_received += reception.field_bytes as u64;
        if end != PhaseEnd::Done {
            connection.end_request(&mut exchange.info.bytes);
        }
        match end {
            PhaseEnd::Done => {
                self.note_response_head(heads, exchange, routed, request.host());
                TryEnd::Response(Answer {
                    connection,
                    request,
                    framing,
                    upload_broken,
                })
            }
            PhaseEnd::Client(fault) => TryEnd::Client(fault),
            PhaseEnd::Upstream(reset) => {
                // Envoy is silent about a refusal that comes so late; it is worth a word in the access log.
                let reason = connection.take_failure().unwrap_or_default();
                exchange.info.upstream.transport_failure_reason = reason.into();
                self.reset(routed, &request, &connection, reset)
            }
            PhaseEnd::Expired(expiry) => {
                self.count_expiry(expiry);
                if matches!(expiry, Expiry::Route | Expiry::PerTry | Expiry::PerTryIdle) {
                    request.host().record_timeout();
                    self.note(routed, request.host(), HostOutcome::Timeout);
                }
                count_upstream_timeout(routed, expiry);
                let is_complete = exchange.upload.is_complete();
                expired(expiry, is_complete, routed.timeouts.alt_response)
            }
        }
    }

    /// Counts the end of a request by the connection manager's own timers.
    pub(crate) fn count_expiry(&self, expiry: Expiry) {
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        match expiry {
            Expiry::MaxStream => shard.inc(stats.downstream_rq_max_duration_reached),
            Expiry::Request => shard.inc(stats.downstream_rq_timeout),
            Expiry::Idle => shard.inc(stats.downstream_rq_idle_timeout),
            Expiry::Route | Expiry::PerTry | Expiry::PerTryIdle => {}
        }
    }

    pub(crate) fn note_response_head(
        &self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        routed: &Routed<'_>,
        host: &Rc<Host>,
    ) {
        exchange.responded = Instant::now();
        let elapsed = exchange.responded.saturating_duration_since(exchange.began);
        exchange.info.timing.first_upstream_rx_byte = Some(elapsed);
        let status = heads.response.status();
        self.note(routed, host, HostOutcome::Status(status));
        // Envoy counts from the end of the request, and is silent about an answer that came before it.
        let is_timed = !routed.suppress && exchange.tunnel.is_none();
        let asked = exchange.upload.received_at.filter(|_| is_timed);
        if let Some(asked) = asked {
            let mut digits = itoa::Buffer::new();
            let elapsed = exchange.responded.saturating_duration_since(asked);
            heads.response.headers.set(
                &HeaderId::XEnvoyUpstreamServiceTime,
                digits.format(elapsed.as_millis()).as_bytes(),
            );
        }
    }

    fn reset(
        &self,
        routed: &Routed<'_>,
        request: &proxy_upstream::ActiveRequest,
        connection: &Uplink,
        reset: Reset,
    ) -> TryEnd {
        let host = request.host();
        host.record_failure();
        self.note(routed, host, HostOutcome::Reset);
        let (shard, stats) = (routed.cluster.shard(), &routed.cluster.config().stats);
        // The end of a shared connection is counted once, by its own task.
        let is_own = connection.version() != Version::Http2;
        if is_own {
            shard.inc(stats.upstream_cx_destroy_with_active_rq);
        }
        let reply = match reset {
            Reset::Terminated => {
                if is_own {
                    shard.inc(stats.upstream_cx_destroy_remote);
                }
                reset_reply(503, "connection termination", "connection_termination", "")
            }
            Reset::Protocol => {
                if is_own {
                    shard.inc(stats.upstream_cx_destroy_local);
                    shard.inc(stats.upstream_cx_protocol_error);
                }
                reset_reply(502, "protocol error", "protocol_error", "")
            }
            Reset::Remote => {
                shard.inc(stats.upstream_rq_rx_reset);
                reset_reply(503, "remote reset", "remote_reset", "")
            }
            Reset::Refused => {
                shard.inc(stats.upstream_rq_rx_reset);
                let reply = reset_reply(
                    503,
                    "remote refused stream reset",
                    "remote_refused_stream_reset",
                    "",
                );
                return TryEnd::Failed(TryFailure::RefusedStream, reply.flag(reset.flag()));
            }
        };
        let reply = reply.flag(reset.flag());
        let request_started = connection.has_sent();
        TryEnd::Failed(TryFailure::Reset { request_started }, reply)
    }

    fn note(&self, routed: &Routed<'_>, host: &Rc<Host>, outcome: HostOutcome) {
        if routed.cluster.config().outlier_detector.is_some() {
            let now = Instant::now().into_std();
            routed
                .cluster
                .record_outcome(host, outcome, now, &mut || self.worker.random());
        }
    }
}

/// What ends the wait for a connection before its time.
enum Interruption {
    Client(ClientFault),
    Expired(Expiry),
}

impl Routed<'_> {
    /// The request is all there: its own time is over, and that of the answer runs, whether there is a connection yet
    /// or not.
    fn request_is_complete(&mut self, now: Instant) {
        let deadlines = &mut self.deadlines;
        deadlines.request = None;
        deadlines.route = deadlines
            .route
            .or(limit(self.timeouts.global).map(|limit| now + limit));
    }
}

/// A timeout that is not zero, which means none.
fn limit(timeout: Duration) -> Option<Duration> {
    Some(timeout).filter(|timeout| !timeout.is_zero())
}

/// Counts a try or a request that took too long, on its cluster.
pub(crate) fn count_upstream_timeout(routed: &Routed<'_>, expiry: Expiry) {
    let stats = &routed.cluster.config().stats;
    let counter = match expiry {
        Expiry::Route => stats.upstream_rq_timeout,
        Expiry::PerTry | Expiry::PerTryIdle => stats.upstream_rq_per_try_timeout,
        Expiry::MaxStream | Expiry::Request | Expiry::Idle => return,
    };
    routed.cluster.shard().inc(counter);
}

/// Tells the host of another try how much of the request's time is left, where it was told of it before.
fn announce_what_is_left(heads: &mut Heads, routed: &Routed<'_>, now: Instant) {
    let id = HeaderId::XEnvoyExpectedRqTimeoutMs;
    let headers = &mut heads.request.headers;
    let Some(deadline) = routed.deadlines.route else {
        return;
    };
    let left = deadline.saturating_duration_since(now);
    let per_try = Some(routed.timeouts.per_try).filter(|limit| !limit.is_zero());
    let expected = per_try.map_or(left, |limit| left.min(limit)).as_millis();
    if expected == 0 {
        return;
    }
    if !routed.suppress && headers.get_id(id).is_some() {
        headers.set(&id, itoa::Buffer::new().format(expected).as_bytes());
    }
    if routed.timeouts.tells_grpc {
        headers.set(&HeaderId::GrpcTimeout, format!("{expected}m").as_bytes());
    }
}

/// Sets the fields that frame the request for the upstream; true when its body goes out in chunks. What is sent follows
/// from the body that there is, not from the fields: they may have been removed or changed on the way here.
fn frame_request(heads: &mut Heads, exchange: &Exchange<'_>, version: Version) -> bool {
    // Methods that anticipate content say so when there is none (RFC 9110 section 8.6).
    let anticipates = !matches!(
        heads.request.method(),
        b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT"
    );
    let headers = &mut heads.request.headers;
    let has_length = headers.get_id(HeaderId::ContentLength).is_some();
    let length = match exchange.upload.is_empty() {
        // What follows the head belongs to the tunnel.
        true if exchange.tunnel.is_some() => None,
        true => (has_length || anticipates).then_some(0),
        false => exchange.upload.length().filter(|_| has_length),
    };
    match length {
        Some(length) => {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(length).as_bytes();
            if headers.get_id(HeaderId::ContentLength) != Some(digits) {
                headers.set(&HeaderId::ContentLength, digits);
            }
        }
        None => {
            headers.remove(&HeaderId::ContentLength);
        }
    }
    let chunked = length.is_none() && !exchange.upload.is_empty();
    if chunked && version != Version::Http2 {
        // HTTP/2 needs no field for that, and what it may not carry is left out there.
        headers.set(&HeaderId::TransferEncoding, b"chunked");
    } else {
        // An earlier try may have set it.
        headers.remove(&HeaderId::TransferEncoding);
    }
    chunked
}

/// True when the upstream will take another request on its connection.
pub(crate) fn upstream_persists(heads: &Heads) -> bool {
    let head = &heads.response;
    match head.version {
        Version::Http10 => connection_lists(&head.headers, b"keep-alive"),
        _ => {
            head.headers.get_id(HeaderId::Connection).is_none() || !connection_lists(&head.headers, b"close")
        }
    }
}
