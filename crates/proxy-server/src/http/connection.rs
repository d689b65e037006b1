//! One downstream connection: waiting for requests, reading their heads, and ending well.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt as _;
use proxy_core::ConnectionInfo;
use proxy_http::{HeadParser, RequestHead};
use tls::ForwardClientCert;
use tokio::time::Instant;

use super::HttpConnectionManager;
use super::buffer::{ReadBuffer, WriteBuffer};
use super::exchange::Next;
use super::forward::Downlink;
use super::local::Heads;
use super::local_reply::LocalReply;
use super::timer::{DeadlineTimer, earlier};
use super::transport::{SocketStream, Transport};
use crate::downstream::Downstream;
use crate::drain::Drain;
use crate::local::Local;

/// Serves a connection until it ends. A fault in this program ends the connection alone, and is counted.
pub async fn serve(downstream: Downstream, manager: Rc<HttpConnectionManager>) {
    let worker = downstream.worker.clone();
    let stats = Rc::clone(&manager);
    let connection = Connection::new(downstream, manager);
    if AssertUnwindSafe(connection.run()).catch_unwind().await.is_err() {
        worker.shard().inc(stats.config.stats.downstream_cx_panic);
        ::tracing::error!("a fault ended an HTTP connection");
    }
}

/// A downstream connection.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    pub(crate) down: Downlink<S>,
    pub(crate) timer: DeadlineTimer,
    pub(crate) manager: Rc<HttpConnectionManager>,
    pub(crate) worker: Local,
    pub(crate) info: Rc<ConnectionInfo>,
    /// Our element of `x-forwarded-client-cert`.
    pub(crate) client_cert: Option<Box<str>>,
    pub(crate) drain: Drain,
    pub(crate) opened: Instant,
    pub(crate) requests: u32,
    /// A request is in flight.
    pub(crate) busy: bool,
    /// When the last request ended, or the connection began.
    pub(crate) idle_since: Instant,
    /// How much had been used of what came, and sent, when the present request began.
    pub(crate) request_began_at: (u64, u64),
    /// Bytes of the present request's fields.
    pub(crate) field_bytes: usize,
    parser: HeadParser,
    counted: (u64, u64),
    ended_by_client: bool,
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
    /// The client closed the connection.
    Closed,
    Refused(Box<LocalReply>),
}

impl Connection<SocketStream> {
    fn new(downstream: Downstream, manager: Rc<HttpConnectionManager>) -> Self {
        let worker = downstream.worker;
        let (shard, stats) = (worker.shard(), &manager.config.stats);
        for counter in [stats.downstream_cx_total, stats.downstream_cx_http1_total] {
            shard.inc(counter);
        }
        if downstream.connection.tls.is_some() {
            shard.inc(stats.downstream_cx_ssl_total);
            shard.move_gauge(stats.downstream_cx_ssl_active, 1);
        }
        shard.move_gauge(stats.downstream_cx_active, 1);
        shard.move_gauge(stats.downstream_cx_http1_active, 1);
        let now = Instant::now();
        let read = ReadBuffer::with(&downstream.read, &manager.local.buffers);
        Connection {
            down: Downlink {
                stream: SocketStream(downstream.stream),
                received: read.unread().len() as u64,
                sent: 0,
                read,
                write: WriteBuffer::default(),
            },
            timer: DeadlineTimer::default(),
            parser: HeadParser::new(manager.config.head_limits),
            client_cert: client_cert(&manager, &downstream.connection),
            info: downstream.connection,
            drain: downstream.drain,
            opened: now,
            idle_since: now,
            requests: 0,
            busy: false,
            request_began_at: (0, 0),
            field_bytes: 0,
            counted: (0, 0),
            ended_by_client: false,
            manager,
            worker,
        }
    }
}

/// What we tell of the client's certificate in `x-forwarded-client-cert`, written once for all requests.
fn client_cert(manager: &HttpConnectionManager, connection: &ConnectionInfo) -> Option<Box<str>> {
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

impl<S: Transport> Connection<S> {
    async fn run(mut self) {
        loop {
            match self.wait().await {
                Waited::Readable => {}
                Waited::Closed => {
                    self.ended_by_client = true;
                    return;
                }
                Waited::Over => return,
            }
            let mut heads = self.manager.local.take_heads();
            let next = self.serve_request(&mut heads).await;
            self.manager.local.give_heads(heads);
            self.busy = false;
            self.count_bytes();
            match next {
                Next::Open => {}
                Next::Close => return self.close(false).await,
                Next::Linger => return self.close(true).await,
                Next::Abort => return,
            }
        }
    }

    async fn serve_request(&mut self, heads: &mut Heads) -> Next {
        self.request_began_at = (self.down.used(), self.down.sent);
        self.field_bytes = 0;
        match self.read_head(&mut heads.request).await {
            HeadRead::Complete => self.exchange(heads).await,
            HeadRead::Closed => {
                self.ended_by_client = true;
                Next::Abort
            }
            HeadRead::Refused(reply) => {
                self.count_refusal(&reply);
                heads.request.clear();
                self.refuse(heads, *reply).await
            }
        }
    }

    /// Waits, without a buffer, until a request begins or the connection is over.
    async fn wait(&mut self) -> Waited {
        let timeouts = self.manager.config.timeouts;
        let idle = timeouts.connection_idle.map(|timeout| self.idle_since + timeout);
        let oldest = timeouts.max_connection_duration.map(|limit| self.opened + limit);
        let drain = self.drain.clone();
        let mut drained = pin!(drain.ended());
        poll_fn(|context| {
            if !self.down.read.is_empty() {
                return Poll::Ready(Waited::Readable);
            }
            let pool = &self.manager.local.buffers;
            self.down.read.release(pool);
            // The first bytes are read here: what makes a TLS connection readable need not be a request.
            if self.down.stream.poll_readable(context).is_ready() {
                match self.down.read.poll_fill(&mut self.down.stream, context, pool) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Waited::Closed),
                    Poll::Ready(Ok(count)) => {
                        self.down.received += count as u64;
                        return Poll::Ready(Waited::Readable);
                    }
                    Poll::Pending => self.down.read.release(pool),
                }
            }
            if drained.as_mut().poll(context).is_ready() {
                return Poll::Ready(Waited::Over);
            }
            ready!(self.timer.poll(earlier(idle, oldest), context));
            let stats = &self.manager.config.stats;
            let is_idle = idle.is_some_and(|idle| idle <= Instant::now());
            self.worker.shard().inc(if is_idle {
                stats.downstream_cx_idle_timeout
            } else {
                stats.downstream_cx_max_duration_reached
            });
            Poll::Ready(Waited::Over)
        })
        .await
    }

    async fn read_head(&mut self, head: &mut RequestHead) -> HeadRead {
        let timeouts = self.manager.config.timeouts;
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
                ready!(self.timer.poll(earlier(earlier(headers, request), idle), context));
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
        let pool = &self.manager.local.buffers;
        loop {
            if !self.down.read.is_empty() {
                match self.parser.request(self.down.read.unread(), head) {
                    Ok(parsed) => {
                        self.down.read.consume(parsed.consumed);
                        if parsed.complete {
                            self.field_bytes = parsed.field_bytes;
                            return Poll::Ready(HeadRead::Complete);
                        }
                    }
                    Err(error) => {
                        return Poll::Ready(HeadRead::Refused(Box::new(LocalReply::protocol_error(error))));
                    }
                }
            }
            match self.down.read.poll_fill(&mut self.down.stream, context, pool) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(HeadRead::Closed),
                Poll::Ready(Ok(count)) => self.down.received += count as u64,
                Poll::Pending => {
                    self.down.read.release(pool);
                    return Poll::Pending;
                }
            }
        }
    }

    fn count_refusal(&self, reply: &LocalReply) {
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        shard.inc(match reply.status {
            408 if reply.details == "request_header_timeout" => stats.downstream_rq_header_timeout,
            408 if reply.details == "request_overall_timeout" => stats.downstream_rq_timeout,
            408 => stats.downstream_rq_idle_timeout,
            431 => stats.downstream_rq_too_large,
            _ => stats.downstream_cx_protocol_error,
        });
    }

    fn count_bytes(&mut self) {
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        shard.add(
            stats.downstream_cx_rx_bytes_total,
            self.down.received - self.counted.0,
        );
        shard.add(
            stats.downstream_cx_tx_bytes_total,
            self.down.sent - self.counted.1,
        );
        self.counted = (self.down.received, self.down.sent);
    }

    /// Ends the connection from our side. With `linger` the client gets time to read what it was sent: closing
    /// with unread bytes would reset the connection, and take the response away.
    async fn close(&mut self, linger: bool) {
        let Some(limit) = self.manager.config.timeouts.delayed_close.filter(|_| linger) else {
            return;
        };
        let deadline = Some(Instant::now() + limit);
        let pool = &self.manager.local.buffers;
        poll_fn(|context| {
            if Pin::new(&mut self.down.stream).poll_shutdown(context).is_ready() {
                loop {
                    let pending = self.down.read.unread().len();
                    self.down.read.consume(pending);
                    match self.down.read.poll_fill(&mut self.down.stream, context, pool) {
                        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                        Poll::Ready(Ok(_)) => {}
                        Poll::Pending => break,
                    }
                }
            }
            self.timer.poll(deadline, context).map(|()| {
                let stats = &self.manager.config.stats;
                self.worker.shard().inc(stats.downstream_cx_delayed_close_timeout);
            })
        })
        .await;
    }

    /// What the client has broken is not read on.
    pub(crate) fn client_broke_protocol(&self) {
        self.worker
            .shard()
            .inc(self.manager.config.stats.downstream_cx_protocol_error);
    }

    /// The client has gone.
    pub(crate) fn client_is_gone(&mut self) {
        self.ended_by_client = true;
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        shard.inc(stats.downstream_cx_destroy);
        let (side, side_active) = if self.ended_by_client {
            (
                stats.downstream_cx_destroy_remote,
                stats.downstream_cx_destroy_remote_active_rq,
            )
        } else {
            (
                stats.downstream_cx_destroy_local,
                stats.downstream_cx_destroy_local_active_rq,
            )
        };
        shard.inc(side);
        if self.busy {
            shard.inc(stats.downstream_cx_destroy_active_rq);
            shard.inc(side_active);
        }
        shard.move_gauge(stats.downstream_cx_active, -1);
        shard.move_gauge(stats.downstream_cx_http1_active, -1);
        if self.info.tls.is_some() {
            shard.move_gauge(stats.downstream_cx_ssl_active, -1);
        }
        let length = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        shard.record(stats.downstream_cx_length_ms, length);
        shard.add(
            stats.downstream_cx_rx_bytes_total,
            self.down.received - self.counted.0,
        );
        shard.add(
            stats.downstream_cx_tx_bytes_total,
            self.down.sent - self.counted.1,
        );
    }
}
