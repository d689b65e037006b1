//! One downstream connection: listener filters, the hand-off to the listener of the original destination, and the
//! filter chain that takes it (Envoy's `ActiveTcpSocket` and `ActiveTcpConnection`).

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::BytesMut;
use futures::FutureExt as _;
use net::broker::ListenerKind;
use net::socket::Keepalive;
use proxy_config::downstream_tls::DownstreamTls;
use proxy_config::listener::Transport;
use proxy_core::{Address, ConnectionInfo, ResponseFlag, StreamInfo};
use proxy_upstream::Stream;
use telemetry::stats::{Gauge, Shard};

use crate::downstream::Downstream;
use crate::drain::Drain;
use crate::handler::ConnectionHandler;
use crate::listener_filters::{self, Pending};
use crate::listeners::{ActiveListener, Chain, Filter, ListenerSlot};
use crate::local::Local;

/// A connection as it was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: Stream,
    /// Who is at its other end, where that has an address.
    pub(crate) peer: Option<SocketAddr>,
    /// How the original destination is found.
    pub(crate) kind: ListenerKind,
}

/// Serves a connection in a task of its own. A panic ends that connection alone.
pub(crate) fn spawn(handler: &ConnectionHandler, slot: &Rc<ListenerSlot>, accepted: Accepted) {
    let count = handler.balancer.count_connection();
    let (handler, slot) = (handler.clone(), Rc::clone(slot));
    tokio::task::spawn_local(async move {
        let _count = count;
        let active = slot.current();
        drop(slot);
        let served = AssertUnwindSafe(serve(&handler, Rc::clone(&active), accepted)).catch_unwind();
        if served.await.is_err() {
            tracing::error!(listener = %active.config.name, "a connection's task panicked");
            handler.local.shard().inc(active.config.stats.connection_panic);
        }
    });
}

async fn serve(handler: &ConnectionHandler, active: Rc<ActiveListener>, accepted: Accepted) {
    let worker = &handler.local;
    let Some(info) = connection_info(handler.balancer.connection_id(), &active, &accepted) else {
        return;
    };
    let mut pending = Pending {
        stream: accepted.stream,
        read: BytesMut::new(),
        info,
        kind: accepted.kind,
    };
    set_options(&active, &pending.stream);
    let accepted_by = active.drain.clone();
    let before_chain = before_chain(handler, active, &mut pending);
    let Some(active) = unless_over(&accepted_by, before_chain).await else {
        return;
    };
    let stats = &active.config.stats;
    pending.info.listener_name = (&*active.config.name).into();
    pending.info.direction = active.config.direction;
    let Some(chain) = active.chain_for(&pending.info).cloned() else {
        worker.shard().inc(stats.no_filter_chain_match);
        return log_unmatched(worker, &active, pending.info);
    };
    pending.info.filter_chain_name = Rc::clone(&chain.name);
    let tls = match &chain.transport {
        Transport::RawBuffer => None,
        Transport::Tls(tls) => Some(Arc::clone(tls)),
    };
    let life = Life::begin(worker.shard(), &active);
    let pending = match tls {
        None => Some(pending),
        // Boxed, so that a connection without TLS does not cost the memory of a handshake.
        Some(tls) => {
            let secured = Box::pin(secured(worker, &active, &chain, &tls, pending));
            unless_over(&chain.drain, secured).await
        }
    };
    if let Some(pending) = pending {
        run_chain(worker, &active, &chain, pending).await;
    }
    drop(life);
}

/// Does the TLS handshake. Nothing comes out when it failed or took too long.
async fn secured(
    worker: &Local,
    active: &ActiveListener,
    chain: &Chain,
    tls: &DownstreamTls,
    pending: Pending,
) -> Option<Pending> {
    let Pending {
        stream,
        read,
        mut info,
        kind,
    } = pending;
    let Some(context) = tls.current.get() else {
        worker.shard().inc(tls.stats.secrets_not_ready);
        tracing::debug!(listener = %active.config.name, chain = %chain.name, "the secrets of the filter chain have not come");
        info.transport_failure_reason = "TLS error: Secret is not supplied by SDS".into();
        log_unsecured(worker, active, chain, info, None);
        return None;
    };
    let handshake = stream.accept_tls(&context, &read);
    let (reason, details) = match tokio::time::timeout(tls.timeout, handshake).await {
        Ok(Ok(stream)) => {
            if let Some(told) = stream.tls() {
                tls.stats.count_success(worker.shard(), told);
                let asked = || told.server_name.as_deref().map(Rc::from);
                info.requested_server_name = info.requested_server_name.or_else(asked);
                info.tls = Some(Rc::clone(told));
            }
            return Some(Pending {
                stream,
                read: BytesMut::new(),
                info,
                kind,
            });
        }
        Ok(Err(failure)) => {
            tls.stats.count_failure(worker.shard(), &failure);
            worker
                .handshake_log()
                .failed(&active.config.name, &info, &failure);
            (failure.envoy_reason(), None)
        }
        Err(_) => {
            let stats = &active.config.stats;
            worker
                .shard()
                .inc(stats.downstream_cx_transport_socket_connect_timeout);
            let details = "transport socket timeout was reached";
            (String::new(), Some(details))
        }
    };
    info.transport_failure_reason = reason.into();
    log_unsecured(worker, active, chain, info, details);
    None
}

/// Runs listener filters, and those of the listener that the connection is handed to. Nothing comes out when the
/// connection ended, or took too long.
async fn before_chain(
    handler: &ConnectionHandler,
    active: Rc<ActiveListener>,
    pending: &mut Pending,
) -> Option<Rc<ActiveListener>> {
    let worker = &handler.local;
    let gauge = GaugeGuard::new(worker.shard(), active.config.stats.downstream_pre_cx_active);
    if !listener_filters::run(worker, &active.config, pending).await {
        return None;
    }
    drop(gauge);
    let destination = pending
        .info
        .original_destination
        .filter(|_| active.config.use_original_dst);
    let Some(next) = destination
        .and_then(|d| handler.listeners.for_destination(d))
        .map(|slot| slot.current())
    else {
        return Some(active);
    };
    if Rc::ptr_eq(&next, &active) {
        return Some(active);
    }
    // Once only: the listener that gets the connection keeps it, whatever its own `use_original_dst` says.
    let _gauge = GaugeGuard::new(worker.shard(), next.config.stats.downstream_pre_cx_active);
    listener_filters::run(worker, &next.config, pending)
        .await
        .then_some(next)
}

/// What comes of a future, unless the drain is over before.
async fn unless_over<T>(drain: &Drain, future: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => done,
        _ = drain.until_over() => None,
    }
}

async fn run_chain(worker: &Local, active: &ActiveListener, chain: &Chain, pending: Pending) {
    let downstream = Downstream {
        stream: pending.stream,
        read: pending.read,
        connection: Rc::new(pending.info),
        drain: chain.drain.clone(),
        buffer_limit_bytes: active.config.buffer_limit_bytes,
        worker: worker.clone(),
    };
    // Boxed, so that waiting in listener filters does not cost the memory of every filter's future.
    match &chain.filter {
        Filter::Http(manager) => boxed(crate::http::serve(downstream, Rc::clone(manager))).await,
        Filter::Tcp(proxy) => boxed(crate::tcp_proxy::serve(downstream, Rc::clone(proxy))).await,
        Filter::Close => {}
    }
}

fn boxed<'a>(future: impl Future<Output = ()> + 'a) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(future)
}

fn connection_info(id: u64, active: &ActiveListener, accepted: &Accepted) -> Option<ConnectionInfo> {
    let (remote, local) = match &accepted.stream {
        Stream::Tcp(stream) => {
            let local = stream.local_addr().ok()?;
            (Address::Ip(accepted.peer?), Address::Ip(local))
        }
        Stream::Unix(_) | Stream::Tls(_) => {
            let path = active.config.addresses.iter().find(|a| a.socket_addr().is_none());
            let path = path.map(ToString::to_string).unwrap_or_default();
            (Address::Pipe("".into()), Address::Pipe(path.as_str().into()))
        }
    };
    Some(ConnectionInfo::new(id, remote, local, SystemTime::now()))
}

fn set_options(active: &ActiveListener, stream: &Stream) {
    let Stream::Tcp(stream) = stream else { return };
    // A connection that is gone already refuses options; reading from it will say so.
    let _ = stream.set_nodelay(true);
    if let Some(keepalive) = &active.config.socket.keepalive {
        let seconds = |s: u32| std::time::Duration::from_secs(s.into());
        let keepalive = Keepalive {
            time: keepalive.time_seconds.map(seconds),
            interval: keepalive.interval_seconds.map(seconds),
            probes: keepalive.probes,
        };
        let _ = net::socket::set_keepalive(stream, keepalive);
    }
}

/// Writes the listener's own access log for a connection without a filter chain.
fn log_unmatched(worker: &Local, active: &ActiveListener, info: ConnectionInfo) {
    if active.config.access_logs.is_empty() {
        return;
    }
    let mut info = StreamInfo::new(Rc::new(info), SystemTime::now(), Instant::now());
    info.flag(ResponseFlag::NoRouteFound);
    info.response_code_details = Some("filter_chain_not_found".into());
    info.finish(Instant::now());
    crate::access_log::log(&worker.access_loggers(&active.config.access_logs), &info);
}

/// Records a connection whose handshake failed, where connections are recorded: at the listener, and by a TCP proxy.
fn log_unsecured(
    worker: &Local,
    active: &ActiveListener,
    chain: &Chain,
    info: ConnectionInfo,
    details: Option<&'static str>,
) {
    let mut info = StreamInfo::new(Rc::new(info), SystemTime::now(), Instant::now());
    info.connection_termination_details = details.map(Into::into);
    info.finish(Instant::now());
    if !active.config.access_logs.is_empty() {
        crate::access_log::log(&worker.access_loggers(&active.config.access_logs), &info);
    }
    if let Filter::Tcp(proxy) = &chain.filter {
        proxy.log(&info);
    }
}

/// The statistics of one connection's life, from its filter chain to its end.
struct Life<'a> {
    shard: &'a Shard,
    active: &'a ActiveListener,
    began: Instant,
}

impl<'a> Life<'a> {
    fn begin(shard: &'a Shard, active: &'a ActiveListener) -> Self {
        let stats = &active.config.stats;
        shard.inc(stats.downstream_cx_total);
        shard.inc(active.worker_cx_total);
        shard.move_gauge(stats.downstream_cx_active, 1);
        shard.move_gauge(active.worker_cx_active, 1);
        Self {
            shard,
            active,
            began: Instant::now(),
        }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let stats = &self.active.config.stats;
        self.shard.inc(stats.downstream_cx_destroy);
        self.shard.move_gauge(stats.downstream_cx_active, -1);
        self.shard.move_gauge(self.active.worker_cx_active, -1);
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shard.record(stats.downstream_cx_length_ms, milliseconds);
    }
}

/// Holds a gauge one higher.
struct GaugeGuard<'a> {
    shard: &'a Shard,
    gauge: Gauge,
}

impl<'a> GaugeGuard<'a> {
    fn new(shard: &'a Shard, gauge: Gauge) -> Self {
        shard.move_gauge(gauge, 1);
        Self { shard, gauge }
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.shard.move_gauge(self.gauge, -1);
    }
}
