//! The router: tries at upstreams until one answers, or the retries are used up (`envoy.filters.http.router`).

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use proxy_core::{ConnectionInfo, ResponseFlag};
use proxy_http::{HeaderId, RequestHead};
use proxy_router::{
    ClusterRef, Forward as ForwardAction, Match, RequestTimeouts, RetryDecision, RetryState, Terminate,
};
use proxy_upstream::{ActiveRetry, Cluster, Host, RequestPriority};
use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::attempt::{TryEnd, count_upstream_timeout};
use super::downlink::Downlink;
use super::exchange::{Exchange, Outcome};
use super::failures::{expired, mention_retries};
use super::forward::{ClientFault, Deadlines};
use super::limits;
use super::local::Heads;
use super::local_reply::LocalReply;
use super::peer_metadata;
use super::timer::Due;
use super::tunnel::Tunnel;
use super::upstream::ServerName;

/// What stays the same over all tries of a request.
pub(crate) struct Routed<'m> {
    pub(crate) matched: &'m Match<'m>,
    pub(crate) cluster: Rc<Cluster>,
    pub(crate) priority: RequestPriority,
    pub(crate) timeouts: RequestTimeouts,
    pub(crate) retry: Option<RetryState>,
    /// The host of the try in progress.
    pub(crate) host: Option<Rc<Host>>,
    /// The hosts of the tries before it.
    pub(crate) previous_hosts: Vec<Rc<Host>>,
    /// Kept while a retry is in flight.
    active_retry: Option<ActiveRetry>,
    pub(crate) deadlines: Deadlines,
    pub(crate) hash: Option<u64>,
    /// `set-cookie` values by which later requests find the same host.
    pub(crate) set_cookies: Vec<String>,
    pub(crate) suppress: bool,
    /// The request is CONNECT, and its tunnel ends here.
    pub(crate) terminate: Option<Terminate>,
    /// The server name that the request asks for, where the host's transport socket is TLS.
    server_name: ServerName,
}

fn priority(action: &ForwardAction) -> RequestPriority {
    match action.high_priority {
        true => RequestPriority::High,
        false => RequestPriority::Default,
    }
}

impl Routed<'_> {
    /// What the request asks of its connection to a host.
    pub(crate) fn server_name_for(&self, host: &Host, downstream: &ConnectionInfo) -> ServerName {
        self.server_name.for_host(host, downstream)
    }
}

impl<D: Downlink> ActiveStream<D> {
    /// Forwards a request to the route's cluster.
    pub(crate) async fn forward(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
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
                    if let Some(end) = self.wait_for_retry(wait, exchange, &mut routed).await {
                        return self.conclude(heads, exchange, &mut routed, Some(end)).await;
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
        exchange: &mut Exchange<'_>,
        matched: &'m Match<'m>,
        action: &'m ForwardAction,
        cluster: Rc<Cluster>,
    ) -> Routed<'m> {
        let config = &self.manager.config;
        if let Some(call) = &mut exchange.grpc {
            call.goes_to(&cluster, &mut exchange.upload);
        }
        exchange.info.cluster_name = Some(Rc::clone(cluster.name()));
        exchange.info.cluster_observability_name = Some(Rc::clone(cluster.observability_name()));
        let suppress = config.filters.router.suppress_envoy_headers;
        let request = &mut heads.request;
        if config.filters.router.respect_expected_rq_timeout {
            heed_expected_timeout(request);
        }
        if let Some(exchanged) = config.peer_metadata {
            peer_metadata::tell_host(
                exchanged,
                cluster.config(),
                self.worker.told(),
                &mut request.headers,
            );
        }
        let timeouts = matched.timeouts(request, suppress);
        matched.rewrite_request(request, &exchange.info, self.worker.process(), suppress);
        let server_name = ServerName::of_request(&cluster, request);
        let downstream = exchange.info.protocol.unwrap_or_default();
        let server_name = server_name.offering(self.manager.alpn.offered(&cluster, downstream));
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
        let terminate = match exchange.tunnel {
            Some(Tunnel::Connect) => action.upgrade_rule(b"connect").and_then(|rule| rule.terminate),
            _ => None,
        };
        Routed {
            matched,
            priority: priority(action),
            cluster,
            timeouts,
            retry,
            host: None,
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
            terminate,
            server_name,
        }
    }

    /// Decides whether there is another try.
    fn judge(
        &self,
        heads: &Heads,
        exchange: &mut Exchange<'_>,
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
                match routed
                    .cluster
                    .begin_retry(routed.priority, Instant::now().into_std())
                {
                    Ok(active) => {
                        shard.inc(stats.upstream_rq_retry_backoff_exponential);
                        routed.active_retry = Some(active);
                        routed.previous_hosts.extend(routed.host.take());
                        // An answer that is not good enough counts as a failure of its host.
                        if let TryEnd::Response(answer) = &end {
                            answer.request.host().record_failure();
                            answer.connection.end_request(&mut exchange.info.bytes);
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

    /// Waits before another try, unless the request ends meanwhile: its own time goes on.
    async fn wait_for_retry(
        &mut self,
        wait: Duration,
        exchange: &Exchange<'_>,
        routed: &mut Routed<'_>,
    ) -> Option<TryEnd> {
        (routed.deadlines.per_try, routed.deadlines.per_try_idle) = (None, None);
        let mut sleep = pin!(tokio::time::sleep(wait));
        let deadlines = routed.deadlines;
        let expiry = poll_fn(|context| {
            if sleep.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(None));
            }
            if let Err(fault) = self.down.watch(&self.manager.local.buffers, context) {
                return Poll::Ready(Err(fault));
            }
            self.timer.poll(deadlines.next(), context).map(|due| match due {
                Due::Deadline => Ok(Some(deadlines.expired(Instant::now()))),
                Due::Drained => Err(ClientFault::Closed),
            })
        })
        .await;
        match expiry {
            Ok(None) => None,
            Ok(Some(expiry)) => {
                self.count_expiry(expiry);
                count_upstream_timeout(routed, expiry);
                let is_complete = exchange.upload.is_complete();
                Some(expired(expiry, is_complete, routed.timeouts.alt_response))
            }
            Err(fault) => Some(TryEnd::Client(fault)),
        }
    }

    /// Sends what the last try has brought.
    async fn conclude(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
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
                routed.cluster.count_status(reply.status);
                self.reply(heads, exchange, reply, Some(routed.matched)).await
            }
            Some(TryEnd::Over(reply)) => {
                routed.cluster.count_status(reply.status);
                self.reply(heads, exchange, *reply, Some(routed.matched)).await
            }
            Some(TryEnd::Client(fault)) => self.client_fault(heads, exchange, fault).await,
            None => Outcome::Broken,
        }
    }

    /// Ends an exchange because of the client, whether or not its response has begun.
    pub(crate) async fn client_fault(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        fault: ClientFault,
    ) -> Outcome {
        // Streams are told of the end of their connection as if the client had reset them.
        let ends = fault == ClientFault::Reset && self.drain.over().is_some();
        match if ends { ClientFault::Closed } else { fault } {
            ClientFault::Protocol(error) if !exchange.response_started => {
                self.client_broke_protocol();
                self.reply(heads, exchange, LocalReply::protocol_error(error), None)
                    .await
            }
            ClientFault::Protocol(error) => {
                self.client_broke_protocol();
                exchange.info.flag(ResponseFlag::DownstreamProtocolError);
                exchange.info.response_code_details = Some(error.details().into());
                Outcome::Broken
            }
            ClientFault::NotBase64 if !exchange.response_started => {
                let reply = LocalReply::new(400, "grpc_base_64_decode_failed")
                    .body("Bad gRPC-web request, invalid base64 data.");
                self.reply(heads, exchange, reply, None).await
            }
            ClientFault::NotBase64 => {
                exchange.info.response_code_details = Some("grpc_base_64_decode_failed".into());
                Outcome::Broken
            }
            ClientFault::Malformed => {
                self.client_broke_protocol();
                let stats = &self.manager.config.http2_stats;
                self.worker.shard().inc(stats.rx_messaging_error);
                exchange.info.flag(ResponseFlag::DownstreamProtocolError);
                exchange.info.response_code_details = Some("http2.violation.of.messaging.rule".into());
                Outcome::Broken
            }
            ClientFault::Reset => {
                let (shard, config) = (self.worker.shard(), &self.manager.config);
                shard.inc(config.stats.downstream_rq_rx_reset);
                shard.inc(config.http2_stats.rx_reset);
                exchange.info.flag(ResponseFlag::DownstreamRemoteReset);
                exchange.info.response_code_details = Some("http2.remote_reset".into());
                Outcome::Broken
            }
            ClientFault::Closed => {
                exchange.info.flag(ResponseFlag::DownstreamConnectionTermination);
                exchange.info.response_code_details = Some(self.connection_is_over().into());
                Outcome::Broken
            }
        }
    }
}

/// Makes what an earlier proxy has told its upstream to expect the timeout of this hop, in the place of what the
/// client asked for (`Router.respect_expected_rq_timeout`).
fn heed_expected_timeout(request: &mut RequestHead) {
    let expected = request.headers.get_id(HeaderId::XEnvoyExpectedRqTimeoutMs);
    if let Some(expected) = expected.map(<[u8]>::to_vec) {
        request
            .headers
            .set(&HeaderId::XEnvoyUpstreamRqTimeoutMs, &expected);
    }
}
