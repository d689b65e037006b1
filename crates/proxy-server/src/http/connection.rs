//! One downstream connection: which protocol it speaks; for HTTP/1 waiting for requests, reading their heads, and ending
//! well.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt as _;
use proxy_core::{ConnectionInfo, ResponseFlag};
use proxy_http::{HeadParser, RequestHead, request_framing};
use proxy_upstream::transport::ALPN_HTTP_2;
use tls::ForwardClientCert;
use tokio::time::Instant;

use super::HttpConnectionManager;
use super::active_stream::{ActiveStream, Origin};
use super::buffer::ReadBuffer;
use super::config::Codec;
use super::downlink::{Downlink as _, Http1Downlink};
use super::exchange::Next;
use super::http2::{self, Opened, Sniffed};
use super::life::Life;
use super::local::Heads;
use super::local_reply::LocalReply;
use super::timer::{Due, earlier};
use super::transport::{SocketStream, Transport};
use super::upload::Upload;
use crate::downstream::Downstream;

/// Serves a connection until it ends. A fault in this program ends the connection alone, and is counted.
pub async fn serve(downstream: Downstream, manager: Rc<HttpConnectionManager>) {
    let worker = downstream.worker.clone();
    let stats = Rc::clone(&manager);
    let connection = Connection::new(downstream, manager);
    if AssertUnwindSafe(connection.serve()).catch_unwind().await.is_err() {
        worker.shard().inc(stats.config.stats.downstream_cx_panic);
        ::tracing::error!("a fault ended an HTTP connection");
    }
}

/// An HTTP/1 connection.
#[derive(Debug)]
struct Connection<S> {
    stream: ActiveStream<Http1Downlink<S>>,
    parser: HeadParser,
    /// It is known to be HTTP/1.
    is_http1: bool,
}

/// What came of waiting for a request.
enum Waited {
    /// Bytes are there.
    Readable,
    /// The client closed the connection.
    Closed,
    /// The connection is over.
    Over,
}

/// What came of reading a head.
enum HeadRead {
    Complete,
    /// The connection has ended.
    Closed,
    Refused(Box<LocalReply>),
    /// The connection speaks HTTP/2.
    Http2,
}

/// How serving HTTP/1 ended.
#[derive(PartialEq, Eq)]
enum Served {
    /// The connection is over.
    Over,
    /// It speaks HTTP/2.
    Http2,
}

impl Connection<SocketStream> {
    fn new(downstream: Downstream, manager: Rc<HttpConnectionManager>) -> Self {
        let worker = downstream.worker;
        let info = downstream.connection;
        let life = Life::begin(&manager, &worker, info.tls.is_some());
        let read = ReadBuffer::with(&downstream.read, &manager.local.buffers);
        let stream = SocketStream(downstream.stream);
        let down = Http1Downlink::new(stream, read, manager.config.enable_trailers);
        let parser = HeadParser::new(manager.config.head_limits);
        let origin = Origin {
            client_cert: client_cert(&manager, &info),
            drain: downstream.drain,
            manager,
            worker,
            info,
            life,
        };
        Connection {
            stream: ActiveStream::new(down, origin),
            parser,
            is_http1: false,
        }
    }

    async fn serve(mut self) {
        let alpn = self.stream.info.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        let is_http2 = match self.stream.manager.config.codec {
            Codec::Http1 => {
                self.speaks_http1();
                false
            }
            Codec::Http2 => true,
            // What was agreed on outranks what the first bytes look like.
            Codec::Auto => match alpn {
                Some(ALPN_HTTP_2) => true,
                Some(_) => {
                    self.speaks_http1();
                    false
                }
                None => false,
            },
        };
        if is_http2 || self.run().await == Served::Http2 {
            // Boxed, so that HTTP/1 connections do not pay for it.
            Box::pin(http2::serve(self.into_http2())).await;
        }
    }

    fn into_http2(self) -> Opened {
        let stream = self.stream;
        Opened {
            stream: stream.down.stream,
            read: stream.down.read,
            origin: Origin {
                manager: stream.manager,
                worker: stream.worker,
                info: stream.info,
                client_cert: stream.client_cert,
                drain: stream.drain,
                life: stream.life,
            },
        }
    }
}

/// What we tell of the client's certificate in `x-forwarded-client-cert`, written once for all requests.
fn client_cert(manager: &HttpConnectionManager, connection: &ConnectionInfo) -> Option<Rc<str>> {
    let tls = connection.tls.as_ref()?;
    let mode = manager.config.forward_client_cert;
    if matches!(
        mode,
        ForwardClientCert::Sanitize | ForwardClientCert::AlwaysForwardOnly
    ) {
        return None;
    }
    let details = manager.config.client_cert_details;
    let element = tls::client_cert_element(tls.local.as_deref(), tls.peer.as_ref()?, details);
    Some(element.into())
}

/// Waits for a deadline between requests; true when the connection ends before it because its filter chain drains: when
/// it has had the time to tell its client so, or at once where it has said nothing yet.
fn poll_drain<S: Transport>(
    stream: &mut ActiveStream<Http1Downlink<S>>,
    deadline: Option<Instant>,
    is_http1: bool,
    context: &mut Context<'_>,
) -> Poll<bool> {
    loop {
        let closing = stream.life.closing_time(&stream.drain);
        let grace = stream.manager.config.timeouts.drain;
        let closing = match stream.life.drains() && is_http1 {
            true => closing.map(|at| at + grace),
            false => closing,
        };
        if ready!(stream.timer.poll(earlier(deadline, closing), context)) == Due::Drained {
            return Poll::Ready(true);
        }
        if closing.is_none_or(|at| at > Instant::now()) {
            return Poll::Ready(false);
        }
        if stream.life.drains() || !is_http1 {
            stream.life.begin_drain();
            return Poll::Ready(true);
        }
        stream.life.begin_drain();
    }
}

impl<S: Transport> Connection<S> {
    async fn run(&mut self) -> Served {
        loop {
            match self.wait().await {
                Waited::Readable => {}
                Waited::Closed => {
                    self.stream.life.client_is_gone();
                    return Served::Over;
                }
                Waited::Over => return Served::Over,
            }
            let mut heads = self.stream.manager.local.take_heads();
            let next = self.serve_request(&mut heads).await;
            self.stream.manager.local.give_heads(heads);
            let Some(next) = next else {
                return Served::Http2;
            };
            self.count_bytes();
            match next {
                Next::Open => continue,
                Next::Close => self.close(false).await,
                Next::Linger => self.close(true).await,
                Next::Abort => {}
            }
            self.count_bytes();
            return Served::Over;
        }
    }

    /// Reads a request and carries it to its end. Nothing comes of it where the connection speaks HTTP/2.
    async fn serve_request(&mut self, heads: &mut Heads) -> Option<Next> {
        self.stream.request_began_at = self.stream.down.moved();
        self.stream.field_bytes = 0;
        let refusal = match self.read_head(&mut heads.request).await {
            HeadRead::Complete => match request_framing(&heads.request) {
                Ok(framing) => {
                    let limits = self.stream.manager.config.head_limits;
                    let upload = Upload::new(framing, limits);
                    return Some(self.stream.exchange(heads, upload).await);
                }
                Err(error) => {
                    self.stream.client_broke_protocol();
                    LocalReply::protocol_error(error)
                }
            },
            HeadRead::Closed => return Some(self.break_off(heads)),
            HeadRead::Refused(reply) => {
                self.count_refusal(&reply);
                heads.request.clear();
                *reply
            }
            HeadRead::Http2 => return None,
        };
        Some(self.stream.refuse(heads, refusal).await)
    }

    /// The connection ends before the head of a request is there.
    fn break_off(&mut self, heads: &mut Heads) -> Next {
        let has_begun = !self.parser.is_idle() || !self.stream.down.read.is_empty();
        if !has_begun {
            if self.stream.drain.over().is_none() {
                self.stream.life.client_is_gone();
            }
            return Next::Abort;
        }
        let details = self.stream.connection_is_over();
        heads.request.clear();
        let flag = ResponseFlag::DownstreamConnectionTermination;
        self.stream.give_up(heads, flag, details)
    }

    /// The codec is counted when its first bytes have come, as in Envoy.
    fn speaks_http1(&mut self) {
        self.is_http1 = true;
        let stats = &self.stream.manager.config.stats;
        let counted = (stats.downstream_cx_http1_total, stats.downstream_cx_http1_active);
        self.stream.life.speaks(counted);
    }

    /// Waits, without a buffer, until a request begins or the connection is over.
    async fn wait(&mut self) -> Waited {
        let stream = &mut self.stream;
        let timeouts = stream.manager.config.timeouts;
        let idle = timeouts
            .connection_idle
            .map(|timeout| stream.idle_since + timeout);
        let oldest = timeouts
            .max_connection_duration
            .map(|limit| stream.life.opened + limit);
        let is_http1 = self.is_http1;
        poll_fn(|context| {
            let down = &mut stream.down;
            if !down.read.is_empty() {
                return Poll::Ready(Waited::Readable);
            }
            let pool = &stream.manager.local.buffers;
            down.read.release(pool);
            // The first bytes are read here: what makes a TLS connection readable need not be a request.
            if down.stream.poll_readable(context).is_ready() {
                match down.read.poll_fill(&mut down.stream, context, pool) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Waited::Closed),
                    Poll::Ready(Ok(count)) => {
                        down.received += count as u64;
                        return Poll::Ready(Waited::Readable);
                    }
                    Poll::Pending => down.read.release(pool),
                }
            }
            let drained = ready!(poll_drain(stream, earlier(idle, oldest), is_http1, context));
            if drained {
                return Poll::Ready(Waited::Over);
            }
            let stats = &stream.manager.config.stats;
            let is_idle = idle.is_some_and(|idle| idle <= Instant::now());
            stream.worker.shard().inc(if is_idle {
                stats.downstream_cx_idle_timeout
            } else {
                stats.downstream_cx_max_duration_reached
            });
            Poll::Ready(Waited::Over)
        })
        .await
    }

    async fn read_head(&mut self, head: &mut RequestHead) -> HeadRead {
        let timeouts = self.stream.manager.config.timeouts;
        // The clock is read only when the head does not come at once.
        let mut began = None;
        poll_fn(|context| match self.poll_head(head, context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                let began = *began.get_or_insert_with(Instant::now);
                let deadline = |timeout: Option<Duration>| timeout.map(|timeout| began + timeout);
                let headers = deadline(timeouts.request_headers);
                let request = deadline(timeouts.request);
                let idle = deadline(timeouts.stream_idle);
                let next = earlier(earlier(headers, request), idle);
                if ready!(self.stream.timer.poll(next, context)) == Due::Drained {
                    return Poll::Ready(HeadRead::Closed);
                }
                let over =
                    |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= Instant::now());
                let (details, body) = if over(headers) {
                    ("request_header_timeout", "request header timeout")
                } else if over(request) {
                    ("request_overall_timeout", "request timeout")
                } else {
                    ("stream_idle_timeout", "stream timeout")
                };
                Poll::Ready(HeadRead::Refused(Box::new(
                    LocalReply::new(408, details).body(body).close(),
                )))
            }
        })
        .await
    }

    fn poll_head(&mut self, head: &mut RequestHead, context: &mut Context<'_>) -> Poll<HeadRead> {
        loop {
            if !self.stream.down.read.is_empty() {
                if !self.is_http1 {
                    match http2::sniff(self.stream.down.read.unread()) {
                        Sniffed::Http1 => self.speaks_http1(),
                        Sniffed::Http2 => return Poll::Ready(HeadRead::Http2),
                        Sniffed::Undecided => {}
                    }
                }
                if self.is_http1 {
                    match self.parser.request(self.stream.down.read.unread(), head) {
                        Ok(parsed) => {
                            self.stream.down.read.consume(parsed.consumed);
                            if parsed.complete {
                                self.stream.field_bytes = parsed.field_bytes;
                                return Poll::Ready(HeadRead::Complete);
                            }
                        }
                        Err(error) => {
                            return Poll::Ready(HeadRead::Refused(Box::new(LocalReply::protocol_error(
                                error,
                            ))));
                        }
                    }
                }
            }
            let down = &mut self.stream.down;
            let pool = &self.stream.manager.local.buffers;
            match down.read.poll_fill(&mut down.stream, context, pool) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(HeadRead::Closed),
                Poll::Ready(Ok(count)) => down.received += count as u64,
                Poll::Pending => {
                    down.read.release(pool);
                    return Poll::Pending;
                }
            }
        }
    }

    fn count_refusal(&self, reply: &LocalReply) {
        let (shard, stats) = (self.stream.worker.shard(), &self.stream.manager.config.stats);
        shard.inc(match reply.status {
            408 if reply.details == "request_header_timeout" => stats.downstream_rq_header_timeout,
            408 if reply.details == "request_overall_timeout" => stats.downstream_rq_timeout,
            408 => stats.downstream_rq_idle_timeout,
            431 => stats.downstream_rq_too_large,
            _ => stats.downstream_cx_protocol_error,
        });
    }

    fn count_bytes(&self) {
        let down = &self.stream.down;
        self.stream.life.count_bytes(down.received, down.sent);
    }

    /// Ends the connection from our side. With `linger` the client gets time to read what it was sent: closing
    /// with unread bytes would reset the connection, and take the response away.
    async fn close(&mut self, linger: bool) {
        let stream = &mut self.stream;
        let Some(limit) = stream.manager.config.timeouts.delayed_close.filter(|_| linger) else {
            return;
        };
        let deadline = Some(Instant::now() + limit);
        let pool = &stream.manager.local.buffers;
        let down = &mut stream.down;
        poll_fn(|context| {
            if Pin::new(&mut down.stream).poll_shutdown(context).is_ready() {
                loop {
                    let pending = down.read.unread().len();
                    down.read.consume(pending);
                    match down.read.poll_fill(&mut down.stream, context, pool) {
                        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                        Poll::Ready(Ok(_)) => {}
                        Poll::Pending => break,
                    }
                }
            }
            stream.timer.poll(deadline, context).map(|_| {
                let stats = &stream.manager.config.stats;
                let shard = stream.worker.shard();
                shard.inc(stats.downstream_cx_delayed_close_timeout);
            })
        })
        .await;
    }
}
