//! Sending an upstream's response to the client, and giving the connection back.

use std::future::poll_fn;

use proxy_core::ResponseFlag;
use proxy_http::HeaderId;
use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::attempt::{Answer, upstream_persists};
use super::downlink::Downlink;
use super::download::Download;
use super::exchange::{Exchange, Outcome};
use super::forward::{Expiry, Forward, PhaseEnd, Reset};
use super::local::Heads;
use super::routing::Routed;
use super::tunnel::TunnelOver;
use super::uplink::Uplink;

impl<D: Downlink> ActiveStream<D> {
    /// Relays a response whose head has come.
    pub(crate) async fn relay(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        routed: &mut Routed<'_>,
        mut answer: Answer,
    ) -> Outcome {
        let status = heads.response.status();
        let persists =
            upstream_persists(heads) && !matches!(answer.framing, proxy_http::BodyFraming::UntilClose);
        exchange.info.response_code_details = Some("via_upstream".into());
        self.apply_route(heads, exchange, routed.matched);
        for cookie in &routed.set_cookies {
            heads
                .response
                .headers
                .append(&HeaderId::SetCookie, cookie.as_bytes());
        }
        // An upgrade that was refused leaves both sides in doubt about what comes next.
        let tunnelled = exchange.tunnel.is_some_and(|tunnel| tunnel.is_opened_by(status));
        exchange.we_close |= exchange.tunnel.is_some() && !tunnelled;
        if exchange
            .grpc
            .as_ref()
            .is_some_and(|call| call.must_translate(&heads.response))
        {
            return self.relay_as_status(heads, exchange, routed, answer).await;
        }
        self.decide_closing(exchange);
        let mut download = self.frame_download(heads, exchange, answer.framing);
        // Counted, as by Envoy, before the client can see it.
        routed.cluster.count_status(status);
        let ends = download.is_done() && !tunnelled;
        self.write_head(heads, exchange, false, ends);
        let mut drained = false;
        let end = if tunnelled {
            // Its life is measured by nothing but its traffic.
            let over = Box::pin(self.tunnel(exchange, routed, &mut answer)).await;
            drained = over == TunnelOver::Drained;
            over.phase_end()
        } else {
            let end = self.move_body(exchange, routed, &mut answer, &mut download).await;
            exchange.info.bytes.sent = download.sent;
            exchange.trailers = download.trailers.take();
            if let Some(call) = &mut exchange.grpc {
                call.ended(exchange.trailers.as_deref());
            }
            end
        };
        let now = Instant::now();
        exchange.ended = Some(now);
        self.count_time(exchange, routed, now);
        answer.connection.end_request(&mut exchange.info.bytes);
        let timing = &mut exchange.info.timing;
        let received = download.received_at.unwrap_or(now);
        timing.last_upstream_rx_byte = Some(received.saturating_duration_since(exchange.began));
        if end == PhaseEnd::Done && tunnelled {
            return self.tunnel_ended(exchange, answer, drained);
        }
        if end == PhaseEnd::Done {
            self.give_back(exchange, answer, persists, now);
            return Outcome::Complete;
        }
        self.explain_end(heads, exchange, routed, end).await
    }

    /// A tunnel has come to its end. An HTTP/1 connection that carried one speaks HTTP no more.
    fn tunnel_ended(&self, exchange: &mut Exchange<'_>, mut answer: Answer, drained: bool) -> Outcome {
        if drained {
            exchange.info.response_code_details = Some("on_drain_deadline".into());
            let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
            shard.inc(stats.downstream_rq_tx_reset);
            self.life.begin_drain();
            // Over HTTP/1 the client gets the time to take what it was sent.
            exchange.we_close = true;
            return match D::MULTIPLEXED {
                true => Outcome::Broken,
                false => Outcome::Complete,
            };
        }
        if let Uplink::Http2(stream) = &mut answer.connection {
            stream.tunnel_is_over();
        }
        match D::MULTIPLEXED {
            true => Outcome::Complete,
            false => Outcome::Broken,
        }
    }

    async fn move_body(
        &mut self,
        exchange: &mut Exchange<'_>,
        routed: &mut Routed<'_>,
        answer: &mut Answer,
        download: &mut Download,
    ) -> PhaseEnd {
        let pool = &self.manager.local.buffers;
        // A response has begun: what is left is the whole request's time.
        routed.deadlines.per_try = None;
        routed.deadlines.per_try_idle = None;
        let mut forward = Forward {
            down: &mut self.down,
            up: &mut answer.connection,
            upload: &mut exchange.upload,
            timer: &mut self.timer,
            deadlines: &mut routed.deadlines,
            pool,
            upload_broken: answer.upload_broken,
            route_timeout: Some(routed.timeouts.global).filter(|timeout| !timeout.is_zero()),
            per_try_timeout: None,
        };
        let end = poll_fn(|context| forward.poll_body(download, context)).await;
        answer.upload_broken = forward.upload_broken;
        end
    }

    /// Counts how long the upstream took after it had the whole request.
    fn count_time(&self, exchange: &Exchange<'_>, routed: &Routed<'_>, now: Instant) {
        let (shard, stats) = (routed.cluster.shard(), &routed.cluster.config().stats);
        if let Some(asked) = exchange.upload.received_at {
            let elapsed = now.saturating_duration_since(asked).as_millis();
            shard.record(stats.upstream_rq_time, u64::try_from(elapsed).unwrap_or(u64::MAX));
        }
    }

    /// The connection serves the next request if nothing is left over on it.
    pub(crate) fn give_back(&self, exchange: &Exchange<'_>, answer: Answer, persists: bool, now: Instant) {
        let Uplink::Http1(connection) = answer.connection else {
            // A stream has ended; its connection goes on.
            return;
        };
        let cluster = answer.request.cluster();
        let stats = &cluster.config().stats;
        if !persists {
            cluster.shard().inc(stats.upstream_cx_close_notify);
        }
        // Whoever was asked for a tunnel may be waiting for one still.
        let sent = exchange.upload.is_complete() && !answer.upload_broken && exchange.tunnel.is_none();
        if persists && sent && connection.is_clean() {
            connection.give_back(now, &self.manager.local.buffers);
        } else {
            cluster.shard().inc(stats.upstream_cx_destroy_local);
        }
    }

    /// Records why a response could not be completed.
    pub(crate) async fn explain_end(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        routed: &Routed<'_>,
        end: PhaseEnd,
    ) -> Outcome {
        let stats = &self.manager.config.stats;
        let info = &mut exchange.info;
        match end {
            PhaseEnd::Client(fault) => return self.client_fault(heads, exchange, fault).await,
            PhaseEnd::Upstream(reset) => {
                let cluster = &routed.cluster;
                if matches!(reset, Reset::Remote | Reset::Refused) {
                    cluster.shard().inc(cluster.config().stats.upstream_rq_rx_reset);
                }
                let details = match reset {
                    Reset::Terminated => "upstream_reset_after_response_started{connection_termination}",
                    Reset::Protocol => "upstream_reset_after_response_started{protocol_error}",
                    Reset::Remote => "upstream_reset_after_response_started{remote_reset}",
                    Reset::Refused => "upstream_reset_after_response_started{remote_refused_stream_reset}",
                };
                info.flag(reset.flag());
                info.response_code_details = Some(details.into());
            }
            PhaseEnd::Expired(expiry) => {
                self.count_expiry(expiry);
                let (flag, details) = match expiry {
                    Expiry::Idle => (ResponseFlag::StreamIdleTimeout, "stream_idle_timeout"),
                    Expiry::MaxStream => (ResponseFlag::DurationTimeout, "max_duration_timeout"),
                    _ => (ResponseFlag::UpstreamRequestTimeout, "response_timeout"),
                };
                if flag == ResponseFlag::UpstreamRequestTimeout {
                    routed
                        .cluster
                        .shard()
                        .inc(routed.cluster.config().stats.upstream_rq_timeout);
                }
                info.flag(flag);
                info.response_code_details = Some(details.into());
            }
            PhaseEnd::Done => {}
        }
        self.worker
            .shard()
            .inc(stats.rq_reset_after_downstream_response_started);
        self.worker.shard().inc(stats.downstream_rq_tx_reset);
        Outcome::Broken
    }
}
