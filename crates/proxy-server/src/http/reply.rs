//! Sending response heads, and responses of our own.

use std::future::poll_fn;
use std::task::Poll;

use proxy_core::ResponseFlag;
use proxy_http::{BodyFraming, HeaderId, ResponseHead};
use proxy_router::Match;
use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::body::Piece;
use super::downlink::{Delimiter, Downlink};
use super::download::Download;
use super::exchange::{Exchange, Outcome};
use super::forward::ClientFault;
use super::grpc;
use super::limits;
use super::local::Heads;
use super::local_reply::LocalReply;
use super::peer_metadata;
use super::response_headers::ResponseFacts;

impl<D: Downlink> ActiveStream<D> {
    /// Sends a response of our own.
    pub(crate) async fn reply(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        reply: LocalReply,
        matched: Option<&Match<'_>>,
    ) -> Outcome {
        exchange.responded = Instant::now();
        if let Some(flag) = reply.flag {
            exchange.info.flag(flag);
        }
        exchange.info.response_code_details = Some(reply.details.clone());
        // What the client sends next belongs to a tunnel that does not come to be.
        exchange.we_close |= reply.close || exchange.tunnel.is_some();
        let is_web = exchange.grpc.as_ref().is_some_and(|call| call.web.is_some());
        let as_grpc = heads.request.is_grpc() && !is_web;
        let mut body = reply.fill(&heads.request, as_grpc, &mut heads.response);
        if is_web && !body.is_empty() {
            grpc::tell_as_status(&mut heads.response, body, !D::MULTIPLEXED);
            body = b"";
        }
        if reply.flag == Some(ResponseFlag::UpstreamOverflow) {
            heads
                .response
                .headers
                .append(&HeaderId::XEnvoyOverloaded, b"true");
        }
        if let Some(matched) = matched {
            self.apply_route(heads, exchange, matched);
        }
        // What came while an upstream was waited for would have been sent to it; it is read over. As in Envoy, an answer
        // that is given at once does not look at the body.
        if exchange.has_waited {
            self.down.discard(&mut exchange.upload);
        }
        self.decide_closing(exchange);
        let has_body = !exchange.to_head && !body.is_empty();
        self.write_head(heads, exchange, true, !has_body);
        if has_body {
            let pool = &self.manager.local.buffers;
            self.down.data(Piece::Borrowed(body), true, pool);
            exchange.info.bytes.sent = body.len() as u64;
        }
        match self.flush().await {
            Ok(()) => Outcome::Complete,
            Err(fault) => {
                if fault == ClientFault::Closed && self.drain.over().is_none() {
                    self.life.client_is_gone();
                }
                Outcome::Broken
            }
        }
    }

    /// Says how many tries there were, where the virtual host wants that, and changes the head as the route says.
    pub(crate) fn apply_route(&self, heads: &mut Heads, exchange: &Exchange<'_>, matched: &Match<'_>) {
        let tries = exchange.info.attempt_count;
        if matched.virtual_host().include_attempt_count_in_response && tries > 0 {
            heads.response.headers.set(
                &HeaderId::XEnvoyAttemptCount,
                itoa::Buffer::new().format(tries).as_bytes(),
            );
        }
        let process = self.worker.process();
        matched.finalize_response(&mut heads.response, &heads.request, &exchange.info, process);
    }

    /// Decides whether the connection ends with this response. It does when the request is not complete: nobody waits
    /// for the rest of it, so what comes next could not be told from it.
    pub(crate) fn decide_closing(&mut self, exchange: &mut Exchange<'_>) {
        let config = &self.manager.config;
        let (shard, stats) = (self.worker.shard(), &config.stats);
        if !exchange.upload.is_complete() {
            shard.inc(stats.downstream_rq_response_before_rq_complete);
            exchange.we_close = true;
        }
        if D::MULTIPLEXED {
            if self.wants_drain() {
                self.down.drain();
            }
            return;
        }
        if exchange.client_closes || exchange.we_close {
            return;
        }
        let most = config.max_requests_per_connection;
        if most > 0 && self.requests >= most {
            shard.inc(stats.downstream_cx_max_requests_reached);
            exchange.we_close = true;
        } else if config
            .timeouts
            .max_connection_duration
            .is_some_and(|limit| self.life.opened.elapsed() >= limit)
        {
            shard.inc(stats.downstream_cx_max_duration_reached);
            exchange.we_close = true;
        } else if self.wants_drain() {
            self.life.begin_drain();
            exchange.we_close = true;
        }
    }

    fn wants_drain(&self) -> bool {
        if self.worker.fails_health_checks() && !self.drain.is_modify_only() {
            return true;
        }
        if !self.drain.is_started() {
            return false;
        }
        let now = Instant::now();
        let closing = self.life.closing_time(&self.drain);
        closing.is_some_and(|at| at <= now) || self.drain.should_close(now.into_std(), self.worker.random())
    }

    /// Finishes and counts the response head and appends it to what is to be sent. `end`: nothing follows it.
    pub(crate) fn write_head(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        is_local: bool,
        end: bool,
    ) {
        let local = &self.manager.local;
        let status = heads.response.status();
        let is_tunnel = !is_local && exchange.tunnel.is_some_and(|tunnel| tunnel.is_opened_by(status));
        if is_tunnel {
            heads.response.headers.remove(&HeaderId::ContentLength);
        }
        let facts = ResponseFacts {
            request: &heads.request,
            // One clock for both: the response's date is the request's plus what has gone by.
            now: exchange.info.start_time + exchange.responded.saturating_duration_since(exchange.began),
            date: &local.date,
            operation: exchange.operation,
            is_upgrade: status == 101,
            close: !D::MULTIPLEXED && !is_tunnel && (exchange.client_closes || exchange.we_close),
            chunked: exchange.chunked,
            is_local,
        };
        if let Some(call) = &mut exchange.grpc {
            call.answer_head(&mut heads.response);
        }
        if let Some(config) = self.manager.config.peer_metadata {
            let headers = &mut heads.response.headers;
            peer_metadata::answer(config, exchange.client_told, self.worker.told(), headers);
        }
        self.manager.config.finish_response(&mut heads.response, &facts);
        if end && !D::MULTIPLEXED && !exchange.to_head {
            say_empty(&mut heads.response);
        }
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        shard.inc(stats.downstream_rq_completed);
        stats.count_status(shard, heads.response.status());
        exchange.info.response_code = Some(heads.response.status());
        exchange.response_started = true;
        let pool = &local.buffers;
        let field_bytes = self.down.write_head(&heads.response, end, exchange.chunked, pool);
        exchange.info.bytes.downstream_header_sent += field_bytes as u64;
    }

    /// Sets the framing of an upstream's response for the client, and makes the body's path.
    pub(crate) fn frame_download(
        &self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        framing: BodyFraming,
    ) -> Download {
        let writer = exchange.grpc.as_ref().and_then(|call| call.answer_writer());
        let told = heads.response.headers.get_id(HeaderId::ContentLength);
        // The body that comes counts, not the field: the route may have removed or changed it.
        let is_told = |length: u64| told == Some(itoa::Buffer::new().format(length).as_bytes());
        let by_length = match framing {
            BodyFraming::None => true,
            BodyFraming::Length(length) => writer.is_none() && is_told(length),
            BodyFraming::Chunked | BodyFraming::UntilClose => false,
        };
        if !by_length {
            // Beside chunks it would be read as another length (RFC 9112, section 6.2).
            heads.response.headers.remove(&HeaderId::ContentLength);
            match D::delimiter(heads.request.version) {
                Delimiter::Frames => {}
                Delimiter::Chunks => exchange.chunked = true,
                Delimiter::Close => exchange.client_closes = true,
            }
        }
        let mut download = Download::new(framing);
        if let Some(call) = &exchange.grpc {
            download.pass_through(call.answer_counter(&heads.response), writer);
        }
        download
    }

    /// Writes out what waits. Gives up when the client takes nothing for too long.
    pub(crate) async fn flush(&mut self) -> Result<(), ClientFault> {
        let limit = self
            .manager
            .config
            .timeouts
            .stream_idle
            .unwrap_or(limits::STREAM_IDLE_TIMEOUT);
        let deadline = Some(Instant::now() + limit);
        poll_fn(|context| {
            let pool = &self.manager.local.buffers;
            match self.down.poll_flush(context, pool) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => self
                    .timer
                    .poll(deadline, context)
                    .map(|_| Err(ClientFault::Closed)),
            }
        })
        .await
    }
}

/// Says that there is no body, where HTTP/1 cannot tell otherwise. An HTTP/2 upstream ends its stream instead.
fn say_empty(head: &mut ResponseHead) {
    let has_none_anyway = head.status() < 200 || matches!(head.status(), 204 | 304);
    if !has_none_anyway {
        head.headers.insert(&HeaderId::ContentLength, b"0");
    }
}
