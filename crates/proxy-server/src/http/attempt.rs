//! The router: tries at upstreams until one answers, or the retries are used up (`envoy.filters.http.router`).

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use proxy_core::ResponseFlag;
use proxy_http::{BodyFraming, HeaderId, Version, connection_lists, write_request_head};
use proxy_router::{
    ClusterRef, Forward as ForwardAction, Match, RequestTimeouts, RetryDecision, RetryState, TryFailure,
};
use proxy_upstream::outlier::Outcome as HostOutcome;
use proxy_upstream::{ActiveRetry, Cluster, ConnectError, Host, PickContext, PickError, RequestPriority};
use tokio::time::Instant;

use super::connection::Connection;
use super::exchange::{Exchange, Outcome};
use super::forward::{ClientFault, Deadlines, Expiry, Forward, PhaseEnd, Reception, Reset, watch_client};
use super::limits;
use super::local::Heads;
use super::local_reply::LocalReply;
use super::transport::Transport;
use super::upstream::{CheckoutError, UpstreamConnection, address_of, checkout, take_idle};

/// What stays the same over all tries of a request.
pub(crate) struct Routed<'m> {
    pub(crate) matched: &'m Match<'m>,
    pub(crate) cluster: Rc<Cluster>,
    pub(crate) priority: RequestPriority,
    pub(crate) timeouts: RequestTimeouts,
    retry: Option<RetryState>,
    previous_hosts: Vec<Rc<Host>>,
    /// Kept while a retry is in flight.
    active_retry: Option<ActiveRetry>,
    pub(crate) deadlines: Deadlines,
    hash: Option<u64>,
    /// `set-cookie` values by which later requests find the same host.
    pub(crate) set_cookies: Vec<String>,
    pub(crate) suppress: bool,
}

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
    pub(crate) connection: Box<UpstreamConnection>,
    pub(crate) request: proxy_upstream::ActiveRequest,
    pub(crate) framing: BodyFraming,
    pub(crate) upload_broken: bool,
}

impl<S: Transport> Connection<S> {
    /// Forwards a request to the route's cluster.
    pub(crate) async fn forward(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange,
        matched: &Match<'_>,
        action: &ForwardAction,
    ) -> Outcome {
        let cluster = match matched.cluster(&heads.request) {
            Some(ClusterRef::Slot(slot, _)) => self.worker.cluster(slot),
            Some(ClusterRef::Header(Some(name))) => self.worker.cluster_by_name(name),
            Some(ClusterRef::Header(None)) | None => None,
        };
        let Some(cluster) = cluster else {
            self.worker.shard().inc(self.manager.config.stats.no_cluster);
            let reply = LocalReply::new(action.cluster_not_found_status, "cluster_not_found")
                .flag(ResponseFlag::NoClusterFound);
            return self.reply(heads, exchange, reply, Some(matched)).await;
        };
        let mut routed = self.begin_routing(heads, exchange, matched, action, cluster);
        loop {
            let end = self.attempt(heads, exchange, &mut routed).await;
            let (decision, end) = self.judge(heads, exchange, &mut routed, end);
            match decision {
                RetryDecision::Retry(wait) => {
                    if let Some(fault) = self.wait_for_retry(wait).await {
                        return self.client_fault(heads, exchange, fault).await;
                    }
                }
                RetryDecision::No | RetryDecision::LimitExceeded => {
                    return self.conclude(heads, exchange, &mut routed, end).await;
                }
            }
        }
    }

    /// Everything that is done to a request once its cluster is known.
    fn begin_routing<'m>(
        &self,
        heads: &mut Heads,
        exchange: &mut Exchange,
        matched: &'m Match<'m>,
        action: &'m ForwardAction,
        cluster: Rc<Cluster>,
    ) -> Routed<'m> {
        let config = &self.manager.config;
        exchange.info.cluster_name = Some(Rc::clone(cluster.name()));
        exchange.info.cluster_observability_name = Some(Rc::clone(cluster.observability_name()));
        let suppress = config.filters.router.suppress_envoy_headers;
        let request = &mut heads.request;
        let timeouts = matched.timeouts(request, suppress);
        matched.rewrite_request(request, &exchange.info, self.worker.process(), suppress);
        let retry = matched.begin_retries(request);
        let buffer_limit = matched
            .buffer_limit_bytes()
            .and_then(|limit| usize::try_from(limit).ok());
        if retry.is_some() || !matched.mirrors().is_empty() {
            exchange
                .upload
                .record(buffer_limit.unwrap_or(limits::RETRY_BODY_BYTES));
        }
        let hashed = if action.hash_policies.is_empty() {
            proxy_router::RequestHash::default()
        } else {
            let (remote, local) = (&self.info.remote_address, &self.info.local_address);
            let connection = || format!("{remote}{local}");
            action.hash_policies.hash(request, remote.ip(), &connection)
        };
        let idle = match action.timeouts.idle_timeout {
            Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
            None => config.timeouts.stream_idle,
        };
        let max_stream = timeouts
            .max_stream_duration
            .or(config.timeouts.max_stream_duration);
        Routed {
            matched,
            priority: if action.high_priority {
                RequestPriority::High
            } else {
                RequestPriority::Default
            },
            cluster,
            timeouts,
            retry,
            previous_hosts: Vec::new(),
            active_retry: None,
            deadlines: Deadlines {
                route: None,
                per_try: None,
                max_stream: max_stream
                    .filter(|limit| !limit.is_zero())
                    .map(|limit| exchange.began + limit),
                request: config.timeouts.request.map(|limit| exchange.began + limit),
                idle,
                per_try_idle: Some(timeouts.per_try_idle).filter(|timeout| !timeout.is_zero()),
                last_activity: exchange.began,
            },
            hash: hashed.hash,
            set_cookies: hashed.set_cookies,
            suppress,
        }
    }

    /// One try: a host, a connection, the request, and the head of the answer.
    async fn attempt(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange,
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
        upstream.transport_failure_reason = Cow::Borrowed("");
        if routed.retry.is_some() {
            routed.previous_hosts.push(Rc::clone(&host));
        }
        let (connection, now) = match self.connection_to(exchange, routed, &host, now).await {
            Ok(connection) => connection,
            Err(end) => return end,
        };
        let Ok(active) = routed.cluster.begin_request(&host, routed.priority) else {
            connection.give_back(now, &self.worker.http().buffers);
            return overflow();
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
            ..PickContext::default()
        };
        routed
            .cluster
            .pick(&context, now.into_std(), &mut || self.worker.random())
    }

    /// Gets a connection, and watches the client and the clock meanwhile.
    async fn connection_to(
        &mut self,
        exchange: &mut Exchange,
        routed: &mut Routed<'_>,
        host: &Rc<Host>,
        now: Instant,
    ) -> Result<(Box<UpstreamConnection>, Instant), TryEnd> {
        let pool = &self.worker.http().buffers;
        if let Some(connection) = take_idle(&routed.cluster, host, now, pool) {
            return Ok((connection, now));
        }
        // Boxed: connecting is rare, and its future would make every request's future larger.
        let worker = self.worker.clone();
        let mut connecting = Box::pin(checkout(&worker, &routed.cluster, host, routed.priority));
        let result = poll_fn(|context| {
            if let Poll::Ready(result) = connecting.as_mut().poll(context) {
                return Poll::Ready(Ok(result));
            }
            if let Err(fault) = watch_client(&mut self.down, pool, context) {
                return Poll::Ready(Err(TryEnd::Client(fault)));
            }
            let deadline = routed.deadlines.next();
            self.timer
                .poll(deadline, context)
                .map(|()| Err(expired(routed.deadlines.expired(Instant::now()), false)))
        })
        .await;
        drop(connecting);
        match result? {
            Ok(connection) => Ok((connection, Instant::now())),
            Err(CheckoutError::Overflow) => Err(overflow()),
            Err(CheckoutError::Connect(error)) => {
                host.record_failure();
                self.note(routed, host, HostOutcome::ConnectFailed);
                routed
                    .cluster
                    .shard()
                    .inc(routed.cluster.config().stats.upstream_rq_pending_failure_eject);
                Err(connect_failure(exchange, &error))
            }
        }
    }

    /// Sends the request, and waits for the head of the answer.
    async fn exchange_heads(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange,
        routed: &mut Routed<'_>,
        (mut connection, request): (Box<UpstreamConnection>, proxy_upstream::ActiveRequest),
        sent_at: Instant,
    ) -> TryEnd {
        connection.begin_request();
        let upstream = &mut exchange.info.upstream;
        upstream.local_address.clone_from(&connection.local_address);
        upstream.connection_id = Some(connection.id);
        upstream.connection_request_count = connection.requests;
        upstream.protocol = Some(Version::Http11);
        let pool = &self.worker.http().buffers;
        frame_request(heads, exchange);
        let out = connection.write.bytes(pool);
        write_request_head(out, &heads.request);
        exchange.info.bytes.upstream_header_sent += out.len() as u64;
        if exchange.info.attempt_count > 1 {
            exchange.upload.replay(out);
        }
        exchange.info.timing.first_upstream_tx_byte = Some(sent_at.saturating_duration_since(exchange.began));
        routed.deadlines.last_activity = sent_at;
        let limit = |timeout: Duration| Some(timeout).filter(|timeout| !timeout.is_zero());
        let (global, per_try) = (limit(routed.timeouts.global), limit(routed.timeouts.per_try));
        if exchange.upload.is_complete() {
            // The request is all there: its time runs from now.
            routed.deadlines.request = None;
            routed.deadlines.route = routed.deadlines.route.or(global.map(|limit| sent_at + limit));
            routed.deadlines.per_try = per_try.map(|limit| sent_at + limit);
        }
        let mut reception = Reception {
            head: &mut heads.response,
            to_head: exchange.to_head,
            forward_interim: self.manager.config.proxy_100_continue,
            interim_seen: 0,
            framing: BodyFraming::None,
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
        let request_started = connection.sent > 0;
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
            PhaseEnd::Upstream(reset) => self.reset(routed, request.host(), reset, request_started),
            PhaseEnd::Expired(expiry) => {
                self.count_expiry(expiry);
                if matches!(expiry, Expiry::Route | Expiry::PerTry | Expiry::PerTryIdle) {
                    request.host().record_timeout();
                    self.note(routed, request.host(), HostOutcome::Timeout);
                    let stats = &routed.cluster.config().stats;
                    let per_try = expiry != Expiry::Route;
                    routed.cluster.shard().inc(if per_try {
                        stats.upstream_rq_per_try_timeout
                    } else {
                        stats.upstream_rq_timeout
                    });
                }
                expired(expiry, exchange.upload.is_complete())
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

    fn note_response_head(
        &self,
        heads: &mut Heads,
        exchange: &mut Exchange,
        routed: &Routed<'_>,
        host: &Rc<Host>,
    ) {
        exchange.responded = Instant::now();
        let elapsed = exchange.responded.saturating_duration_since(exchange.began);
        exchange.info.timing.first_upstream_rx_byte = Some(elapsed);
        let status = heads.response.status();
        self.note(routed, host, HostOutcome::Status(status));
        if !routed.suppress {
            let sent = exchange.info.timing.first_upstream_tx_byte.unwrap_or_default();
            let mut digits = itoa::Buffer::new();
            let milliseconds = digits.format(elapsed.saturating_sub(sent).as_millis());
            heads
                .response
                .headers
                .set(&HeaderId::XEnvoyUpstreamServiceTime, milliseconds.as_bytes());
        }
    }

    fn reset(&self, routed: &Routed<'_>, host: &Rc<Host>, reset: Reset, request_started: bool) -> TryEnd {
        host.record_failure();
        self.note(routed, host, HostOutcome::Reset);
        let (shard, stats) = (routed.cluster.shard(), &routed.cluster.config().stats);
        shard.inc(stats.upstream_cx_destroy_with_active_rq);
        let reply = match reset {
            Reset::Terminated => {
                shard.inc(stats.upstream_cx_destroy_remote);
                reset_reply(503, "connection termination", "connection_termination", "")
                    .flag(ResponseFlag::UpstreamConnectionTermination)
            }
            Reset::Protocol => {
                shard.inc(stats.upstream_cx_destroy_local);
                shard.inc(stats.upstream_cx_protocol_error);
                reset_reply(502, "protocol error", "protocol_error", "")
                    .flag(ResponseFlag::UpstreamProtocolError)
            }
        };
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

    /// Decides whether there is another try.
    fn judge(
        &self,
        heads: &Heads,
        exchange: &mut Exchange,
        routed: &mut Routed<'_>,
        end: TryEnd,
    ) -> (RetryDecision, Option<TryEnd>) {
        let Some(retry) = routed.retry.as_mut().filter(|_| exchange.upload.can_replay()) else {
            return (RetryDecision::No, Some(end));
        };
        let policy = routed.matched.retry_policy();
        let worker = &self.worker;
        let mut random = || worker.random();
        let decision = match &end {
            TryEnd::Response(_) => retry.on_response(policy, &heads.response, &mut random),
            TryEnd::Failed(failure, _) => retry.on_failure(policy, *failure, &mut random),
            TryEnd::Over(_) | TryEnd::Client(_) => RetryDecision::No,
        };
        let (shard, stats) = (routed.cluster.shard(), &routed.cluster.config().stats);
        match decision {
            RetryDecision::No => {
                let answered = matches!(end, TryEnd::Response(_));
                if answered && exchange.info.attempt_count > 1 {
                    shard.inc(stats.upstream_rq_retry_success);
                }
            }
            RetryDecision::LimitExceeded => {
                shard.inc(stats.upstream_rq_retry_limit_exceeded);
                exchange.info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
            }
            RetryDecision::Retry(_) => {
                routed.active_retry = None;
                match routed.cluster.begin_retry(routed.priority) {
                    Ok(active) => {
                        shard.inc(stats.upstream_rq_retry_backoff_exponential);
                        routed.active_retry = Some(active);
                        // An answer that is not good enough counts as a failure of its host.
                        if let TryEnd::Response(answer) = &end {
                            answer.request.host().record_failure();
                        }
                        drop(end);
                        return (decision, None);
                    }
                    Err(_) => {
                        exchange.info.flag(ResponseFlag::UpstreamOverflow);
                        return (RetryDecision::No, Some(end));
                    }
                }
            }
        }
        (decision, Some(end))
    }

    async fn wait_for_retry(&mut self, wait: Duration) -> Option<ClientFault> {
        let mut sleep = pin!(tokio::time::sleep(wait));
        poll_fn(|context| {
            if sleep.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            match watch_client(&mut self.down, &self.worker.http().buffers, context) {
                Ok(()) => Poll::Pending,
                Err(fault) => Poll::Ready(Some(fault)),
            }
        })
        .await
    }

    /// Sends what the last try has brought.
    async fn conclude(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange,
        routed: &mut Routed<'_>,
        end: Option<TryEnd>,
    ) -> Outcome {
        self.start_mirrors(heads, exchange, routed);
        match end {
            Some(TryEnd::Response(answer)) => {
                answer.request.host().record_status(heads.response.status());
                self.relay(heads, exchange, routed, answer).await
            }
            Some(TryEnd::Failed(_, mut reply)) => {
                if exchange.info.attempt_count > 1 {
                    mention_retries(&mut reply);
                }
                self.count_local_status(routed, reply.status);
                self.reply(heads, exchange, reply, Some(routed.matched)).await
            }
            Some(TryEnd::Over(reply)) => {
                self.count_local_status(routed, reply.status);
                self.reply(heads, exchange, *reply, Some(routed.matched)).await
            }
            Some(TryEnd::Client(fault)) => self.client_fault(heads, exchange, fault).await,
            None => Outcome::Broken,
        }
    }

    fn count_local_status(&self, routed: &Routed<'_>, status: u16) {
        routed.cluster.count_status(status);
    }

    /// Ends an exchange because of the client.
    async fn client_fault(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange,
        fault: ClientFault,
    ) -> Outcome {
        match fault {
            ClientFault::Protocol(error) if !exchange.response_started => {
                self.client_broke_protocol(error);
                self.reply(heads, exchange, LocalReply::protocol_error(error), None)
                    .await
            }
            ClientFault::Protocol(error) => {
                self.client_broke_protocol(error);
                exchange.info.flag(ResponseFlag::DownstreamProtocolError);
                exchange.info.response_code_details = Some(error.details().into());
                Outcome::Broken
            }
            ClientFault::Closed => {
                self.client_is_gone();
                self.worker
                    .shard()
                    .inc(self.manager.config.stats.downstream_rq_rx_reset);
                exchange.info.flag(ResponseFlag::DownstreamConnectionTermination);
                exchange.info.response_code_details = Some("downstream_remote_disconnect".into());
                Outcome::Broken
            }
        }
    }

    /// The same, from where a response is on its way.
    pub(crate) async fn client_fault_in_response(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange,
        fault: ClientFault,
    ) -> Outcome {
        self.client_fault(heads, exchange, fault).await
    }
}

/// Sets the fields that frame the request for the upstream.
fn frame_request(heads: &mut Heads, exchange: &Exchange) {
    let headers = &heads.request.headers;
    if exchange.upload.is_chunked() {
        heads.request.headers.set(&HeaderId::TransferEncoding, b"chunked");
    } else if headers.get_id(HeaderId::ContentLength).is_none() && !exchange.is_upgrade {
        // Methods that anticipate content say so when there is none (RFC 9110 section 8.6).
        if !matches!(
            heads.request.method(),
            b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT"
        ) {
            heads.request.headers.set(&HeaderId::ContentLength, b"0");
        }
    }
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

fn overflow() -> TryEnd {
    let reply = reset_reply(503, "overflow", "overflow", "").flag(ResponseFlag::UpstreamOverflow);
    TryEnd::Failed(TryFailure::Overflow, reply)
}

fn connect_failure(exchange: &mut Exchange, error: &ConnectError) -> TryEnd {
    let reason = error.to_string().replace(' ', "_");
    let (words, name) = match error {
        ConnectError::Timeout => ("connection timeout", "connection_timeout"),
        ConnectError::TransportUnavailable(_) | ConnectError::Bind { .. } => {
            ("local connection failure", "local_connection_failure")
        }
        ConnectError::Io(_) => ("remote connection failure", "remote_connection_failure"),
    };
    let reply = reset_reply(503, words, name, &reason).flag(ResponseFlag::UpstreamConnectionFailure);
    exchange.info.upstream.transport_failure_reason = reason.into();
    TryEnd::Failed(TryFailure::ConnectFailure, reply)
}

/// Envoy's body and details for a reset before the response.
fn reset_reply(status: u16, words: &str, name: &str, transport_failure: &str) -> LocalReply {
    let separator = if transport_failure.is_empty() { "" } else { "|" };
    let mut reply = LocalReply::new(status, "");
    reply.body = format!("upstream connect error or disconnect/reset before headers. reset reason: {words}")
        .into_bytes()
        .into();
    reply.details =
        format!("upstream_reset_before_response_started{{{name}{separator}{transport_failure}}}").into();
    reply
}

/// What the lack of a host leads to.
fn no_host(error: PickError) -> TryEnd {
    let reply = match error {
        PickError::NoHealthyUpstream => LocalReply::new(503, "no_healthy_upstream")
            .body("no healthy upstream")
            .flag(ResponseFlag::NoHealthyUpstream),
        PickError::ProtocolUnsupported => LocalReply::new(503, "upstream_protocol_unsupported")
            .body("the cluster wants HTTP/2, which this proxy does not speak upstream")
            .flag(ResponseFlag::UpstreamConnectionFailure),
    };
    TryEnd::Over(Box::new(reply))
}

/// Says in the body that this was not the first try.
fn mention_retries(reply: &mut LocalReply) {
    let text = String::from_utf8_lossy(&reply.body);
    let text = text.replace(". reset reason", ". retried and the latest reset reason");
    reply.body = text.into_bytes().into();
}

/// What a deadline leads to before the response has begun.
pub(crate) fn expired(expiry: Expiry, request_is_complete: bool) -> TryEnd {
    let timeout = |details| {
        LocalReply::new(504, details)
            .body("upstream request timeout")
            .flag(ResponseFlag::UpstreamRequestTimeout)
    };
    let reply = match expiry {
        Expiry::Route => timeout("response_timeout"),
        Expiry::PerTry => {
            return TryEnd::Failed(TryFailure::PerTryTimeout, timeout("upstream_per_try_timeout"));
        }
        Expiry::PerTryIdle => {
            return TryEnd::Failed(
                TryFailure::PerTryTimeout,
                timeout("upstream_per_try_idle_timeout"),
            );
        }
        Expiry::MaxStream => LocalReply::new(408, "max_duration_timeout")
            .body("downstream duration timeout")
            .flag(ResponseFlag::DurationTimeout)
            .close(),
        Expiry::Request => LocalReply::new(408, "request_overall_timeout")
            .body("request timeout")
            .close(),
        Expiry::Idle => LocalReply::new(if request_is_complete { 504 } else { 408 }, "stream_idle_timeout")
            .body("stream timeout")
            .flag(ResponseFlag::StreamIdleTimeout)
            .close(),
    };
    TryEnd::Over(Box::new(reply))
}
