//! Sending response heads, and responses of our own.

use std::future::poll_fn;
use std::task::Poll;

use proxy_core::ResponseFlag;
use proxy_http::{BodyFraming, HeaderId, Version, write_response_head};
use proxy_router::Match;
use tokio::time::Instant;

use super::connection::Connection;
use super::exchange::{Exchange, Outcome};
use super::forward::Download;
use super::limits;
use super::local::Heads;
use super::local_reply::LocalReply;
use super::response_headers::ResponseFacts;
use super::transport::Transport;

impl<S: Transport> Connection<S> {
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
        exchange.we_close |= reply.close;
        let body = reply.fill(&heads.request, &mut heads.response);
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
            self.discard_rest(&mut exchange.upload);
        }
        self.decide_closing(exchange);
        self.write_head(heads, exchange, true);
        if !exchange.to_head {
            let out = self.down.write.bytes(&self.manager.local.buffers);
            out.extend_from_slice(body);
            exchange.info.bytes.sent = body.len() as u64;
        }
        match self.flush().await {
            Ok(()) => Outcome::Complete,
            Err(()) => {
                self.client_is_gone();
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
    pub(crate) fn decide_closing(&self, exchange: &mut Exchange<'_>) {
        let config = &self.manager.config;
        let (shard, stats) = (self.worker.shard(), &config.stats);
        if !exchange.upload.is_complete() {
            shard.inc(stats.downstream_rq_response_before_rq_complete);
            exchange.we_close = true;
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
            .is_some_and(|limit| self.opened.elapsed() >= limit)
        {
            shard.inc(stats.downstream_cx_max_duration_reached);
            exchange.we_close = true;
        } else if self.drain.is_started()
            && self
                .drain
                .should_close(Instant::now().into_std(), self.worker.random())
        {
            shard.inc(stats.downstream_cx_drain_close);
            exchange.we_close = true;
        }
    }

    /// Finishes and counts the response head and appends it to the write buffer.
    pub(crate) fn write_head(&mut self, heads: &mut Heads, exchange: &mut Exchange<'_>, is_local: bool) {
        let local = &self.manager.local;
        let is_upgrade = heads.response.status() == 101;
        let facts = ResponseFacts {
            request: &heads.request,
            // One clock for both: the response's date is the request's plus what has gone by.
            now: exchange.info.start_time + exchange.responded.saturating_duration_since(exchange.began),
            date: &local.date,
            operation: exchange.operation,
            is_upgrade,
            close: !is_upgrade && (exchange.client_closes || exchange.we_close),
            chunked: exchange.chunked,
            is_local,
        };
        self.manager.config.finish_response(&mut heads.response, &facts);
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        shard.inc(stats.downstream_rq_completed);
        stats.count_status(shard, heads.response.status());
        exchange.info.response_code = Some(heads.response.status());
        exchange.response_started = true;
        let out = self.down.write.bytes(&local.buffers);
        exchange.info.bytes.downstream_header_sent += write_response_head(out, &heads.response) as u64;
    }

    /// Sets the framing of an upstream's response for the client, and makes the body's path.
    pub(crate) fn frame_download(
        &self,
        heads: &Heads,
        exchange: &mut Exchange<'_>,
        framing: BodyFraming,
    ) -> Download {
        let has_body = !matches!(framing, BodyFraming::None | BodyFraming::Length(_));
        // HTTP/1.0 knows no chunks: the end of the connection ends the body.
        let chunked = has_body && heads.request.version != Version::Http10;
        if has_body && !chunked {
            exchange.client_closes = true;
        }
        exchange.chunked = chunked;
        Download::new(framing, chunked, self.manager.config.enable_trailers)
    }

    /// Writes out what waits. Gives up when the client takes nothing for too long.
    pub(crate) async fn flush(&mut self) -> Result<(), ()> {
        let limit = self
            .manager
            .config
            .timeouts
            .stream_idle
            .unwrap_or(limits::STREAM_IDLE_TIMEOUT);
        let deadline = Some(Instant::now() + limit);
        poll_fn(|context| {
            let down = &mut self.down;
            let pool = &self.manager.local.buffers;
            match down
                .write
                .poll_flush(&mut down.stream, context, pool, &mut down.sent)
            {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => Poll::Ready(Err(())),
                Poll::Pending => self.timer.poll(deadline, context).map(|()| Err(())),
            }
        })
        .await
    }
}
