//! `envoy.filters.network.tcp_proxy`: a connection to a host of a cluster, and bytes both ways.

use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proxy_config::listener::NetworkFilter;
use proxy_config::tcp_proxy::TcpProxy as Config;
use proxy_core::proxy_protocol::Tlv;
use proxy_core::{AccessLogger, Address, ResponseFlag, StreamInfo};
use proxy_upstream::proxy_protocol::Announcement;
use proxy_upstream::{
    Cluster, ConnectError, ConnectionPermit, HandshakeOptions, HostAddress, MetadataExchange, PickContext,
    PoolKey, RequestPriority, Stream, connect_with,
};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::command::Listener;
use crate::copy::{self, Broken, Framed, Side};
use crate::downstream::Downstream;
use crate::local::Local;

/// A TCP proxy on one worker.
pub(crate) struct TcpProxy {
    listener: Arc<Listener>,
    /// The chain that it ends; none is the default chain.
    chain: Option<usize>,
    loggers: Vec<Rc<dyn AccessLogger>>,
}

impl std::fmt::Debug for TcpProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpProxy")
            .field("listener", &self.listener.name)
            .field("chain", &self.chain)
            .finish()
    }
}

impl TcpProxy {
    pub(crate) fn new(listener: Arc<Listener>, chain: Option<usize>, worker: &Local) -> Self {
        let mut this = Self {
            listener,
            chain,
            loggers: Vec::new(),
        };
        this.loggers = worker.access_loggers(&this.config().access_logs);
        this
    }

    /// Records a connection that has ended.
    pub(crate) fn log(&self, info: &StreamInfo<'_>) {
        crate::access_log::log(&self.loggers, info);
    }

    fn config(&self) -> &Config {
        let chain = match self.chain {
            Some(index) => &self.listener.chains[index],
            None => self
                .listener
                .default_chain
                .as_ref()
                .expect("the chain that this filter was made for"),
        };
        match &chain.filter {
            NetworkFilter::Tcp(config) => config,
            _ => unreachable!("the chain that this filter was made for ends in a TCP proxy"),
        }
    }
}

/// What has gone through a connection, and when.
struct Traffic {
    received: Cell<u64>,
    sent: Cell<u64>,
    last_activity: Cell<Instant>,
}

impl Traffic {
    fn none() -> Self {
        Self {
            received: Cell::new(0),
            sent: Cell::new(0),
            last_activity: Cell::new(Instant::now()),
        }
    }

    /// Bytes that were delivered.
    fn count(&self, side: Side, bytes: u64) {
        let counted = match side {
            Side::Downstream => &self.received,
            Side::Upstream => &self.sent,
        };
        counted.set(counted.get() + bytes);
        self.last_activity.set(Instant::now());
    }

    fn tell(&self, info: &mut StreamInfo<'_>) {
        let (received, sent) = (self.received.get(), self.sent.get());
        info.bytes.received = received;
        info.bytes.sent = sent;
        info.bytes.downstream_wire_received = received;
        info.bytes.downstream_wire_sent = sent;
        info.bytes.upstream_wire_sent = received;
        info.bytes.upstream_wire_received = sent;
    }

    /// Completes once nothing has happened for `timeout`. The clock is read only when the timer fires.
    async fn idle_for(&self, timeout: Duration) {
        loop {
            let due = self.last_activity.get() + timeout;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Serves a connection until both sides have closed, it is too old, or its drain ends.
pub(crate) async fn serve(downstream: Downstream, proxy: Rc<TcpProxy>) {
    let config = proxy.config();
    let worker = downstream.worker.clone();
    worker.shard().inc(config.stats.downstream_cx_total);
    let now = std::time::Instant::now();
    let mut info = StreamInfo::new(Rc::clone(&downstream.connection), SystemTime::now(), now);
    if config.records.on_start {
        record_so_far(&proxy, &Traffic::none(), &info);
    }
    let drain = downstream.drain.clone();
    let traffic = Traffic::none();
    let oldest = config
        .max_connection_duration
        .map(|most| most.draw(worker.random()));
    let too_old = tokio::select! {
        () = carry(&proxy, downstream, &traffic, &mut info) => false,
        () = after(oldest) => true,
        _ = drain.until_over() => false,
    };
    if too_old {
        worker
            .shard()
            .inc(config.stats.max_downstream_connection_duration);
        info.flag(ResponseFlag::DurationTimeout);
    }
    traffic.tell(&mut info);
    info.finish(std::time::Instant::now());
    proxy.log(&info);
}

/// Completes after a while, or never.
async fn after(time: Option<Duration>) {
    match time {
        None => std::future::pending().await,
        Some(time) => tokio::time::sleep(time).await,
    }
}

/// Connects to a host, and copies both ways.
async fn carry(proxy: &TcpProxy, downstream: Downstream, traffic: &Traffic, info: &mut StreamInfo<'_>) {
    let config = proxy.config();
    let Some((upstream, permit)) = connect_upstream(config, &downstream, info).await else {
        return;
    };
    if config.records.on_connected {
        record_so_far(proxy, traffic, info);
    }
    traffic.last_activity.set(Instant::now());
    relay(proxy, downstream, (upstream, permit), traffic, info).await;
}

/// Picks a cluster and a host and connects, as often as `max_connect_attempts` allows.
async fn connect_upstream(
    config: &Config,
    downstream: &Downstream,
    info: &mut StreamInfo<'_>,
) -> Option<(Stream, ConnectionPermit)> {
    let worker = &downstream.worker;
    let Some((cluster, name)) = cluster(config, downstream) else {
        worker.shard().inc(config.stats.downstream_cx_no_route);
        info.flag(ResponseFlag::NoClusterFound);
        return None;
    };
    info.cluster_name = Some(name);
    info.cluster_observability_name = Some((&*cluster.config().stat_name).into());
    let tlvs = tlvs(config, downstream);
    let endpoints = downstream.connection.endpoints();
    let options = HandshakeOptions {
        announcement: endpoints.map(|endpoints| Announcement {
            endpoints,
            tlvs: &tlvs,
        }),
        ..HandshakeOptions::default()
    };
    let mut tried = Vec::new();
    for attempt in 0..config.max_connect_attempts {
        if let Some(backoff) = config.backoff.filter(|_| attempt > 0) {
            tokio::time::sleep(backoff.draw(attempt, worker.random())).await;
        }
        info.attempt_count += 1;
        let permit = permit(config, &cluster, downstream, &tried, info)?;
        let dialer = worker.dialer();
        match connect_with(&permit, dialer.as_deref(), options).await {
            Ok(stream) => {
                describe_upstream(info, &stream);
                return Some((stream, permit));
            }
            Err(error) => {
                tracing::debug!(cluster = %cluster.name(), %error, "cannot connect");
                // Envoy tells no reason of a connection that took too long.
                info.upstream.transport_failure_reason = match error {
                    ConnectError::Timeout => "".into(),
                    error => error.to_string().into(),
                };
                tried.push(Rc::clone(permit.host()));
            }
        }
    }
    let exceeded = cluster.config().stats.upstream_cx_connect_attempts_exceeded;
    worker.shard().inc(exceeded);
    info.flag(ResponseFlag::UpstreamConnectionFailure);
    info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
    None
}

/// The cluster, if it is there, and its name.
fn cluster(config: &Config, downstream: &Downstream) -> Option<(Rc<Cluster>, Rc<str>)> {
    let worker = &downstream.worker;
    let asked = downstream.connection.requested_server_name.as_ref();
    if let Some(name) = asked.filter(|name| config.by_server_name && !name.is_empty()) {
        return Some((worker.cluster_by_name(name)?, Rc::clone(name)));
    }
    let (slot, name) = config.clusters.pick(worker.random());
    Some((worker.cluster(slot)?, (&**name).into()))
}

/// The extensions that hosts may be told.
fn tlvs<'a>(config: &Config, downstream: &'a Downstream) -> Cow<'a, [Tlv]> {
    let received = downstream.connection.proxy_protocol.as_deref();
    let received = received.map(|received| &received.tlvs[..]);
    match config.tlvs.is_empty() {
        true => Cow::Borrowed(received.unwrap_or_default()),
        false => Cow::Owned(config.tlvs.merge(received)),
    }
}

fn permit(
    config: &Config,
    cluster: &Rc<Cluster>,
    downstream: &Downstream,
    tried: &[Rc<proxy_upstream::Host>],
    info: &mut StreamInfo<'_>,
) -> Option<ConnectionPermit> {
    let worker = &downstream.worker;
    let source = downstream.connection.remote_address.ip();
    let context = PickContext {
        original_destination: downstream.connection.original_destination,
        hash: source
            .filter(|_| config.hashes_source)
            .map(proxy_upstream::hash_address),
        previous_hosts: tried,
        more_attempts: u32::from(!tried.is_empty()),
        ..PickContext::default()
    };
    let Ok(host) = cluster.pick(&context, std::time::Instant::now(), &mut || worker.random()) else {
        info.flag(ResponseFlag::NoHealthyUpstream);
        return None;
    };
    info.upstream.host = Some(host.with_spec(|spec| match &spec.address {
        HostAddress::Ip(address) => Address::Ip(*address),
        other => Address::Pipe(other.to_string().as_str().into()),
    }));
    match ConnectionPermit::take(cluster, &host, RequestPriority::Default, PoolKey::tcp()) {
        Ok(permit) => Some(permit),
        Err(_) => {
            info.flag(ResponseFlag::UpstreamOverflow);
            None
        }
    }
}

fn describe_upstream(info: &mut StreamInfo<'_>, stream: &Stream) {
    info.upstream.transport_failure_reason = "".into();
    info.upstream.local_address = stream.local_addr().map(Address::Ip);
    info.upstream.tls = stream.tls().cloned();
}

/// Copies both ways until both sides have closed, or neither sends anything for too long.
async fn relay(
    proxy: &TcpProxy,
    mut downstream: Downstream,
    (mut upstream, permit): (Stream, ConnectionPermit),
    traffic: &Traffic,
    info: &mut StreamInfo<'_>,
) {
    let config = proxy.config();
    let worker = downstream.worker.clone();
    let (tcp, cluster) = (&config.stats, &permit.cluster().config().stats);
    let progress = |side: Side, bytes: usize| {
        let bytes = bytes as u64;
        let (down, up) = match side {
            Side::Downstream => (
                tcp.downstream_cx_rx_bytes_total,
                cluster.upstream_cx_tx_bytes_total,
            ),
            Side::Upstream => (
                tcp.downstream_cx_tx_bytes_total,
                cluster.upstream_cx_rx_bytes_total,
            ),
        };
        worker.shard().add(down, bytes);
        worker.shard().add(up, bytes);
        traffic.count(side, bytes);
    };
    let idle = async {
        match config.idle_timeout {
            None => std::future::pending().await,
            Some(timeout) => traffic.idle_for(timeout).await,
        }
    };
    let copied = async {
        let framed = exchange_metadata(proxy, &mut downstream, (&mut upstream, &permit)).await?;
        let read = std::mem::take(&mut downstream.read);
        copy::both_ways(&mut downstream.stream, &mut upstream, (&read, framed), &progress).await
    };
    let copied: Result<(), Broken> = tokio::select! {
        result = copied => result,
        () = record_often(proxy, traffic, info) => Ok(()),
        () = idle => {
            // Envoy sets no flag here.
            worker.shard().inc(tcp.idle_timeout);
            Ok(())
        }
    };
    if let Err(Broken { side, error }) = copied {
        tracing::debug!(?side, %error, "connection broken");
        // Who was reset on one side is not to be taken for somebody who has finished on the other.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ) {
            match side {
                Side::Downstream => upstream.reset_on_drop(),
                Side::Upstream => {
                    info.flag(ResponseFlag::UpstreamRemoteReset);
                    downstream.stream.reset_on_drop();
                }
            }
        }
    }
}

/// Tells peers of this node where that was agreed on; who did will tell of itself.
async fn exchange_metadata(
    proxy: &TcpProxy,
    downstream: &mut Downstream,
    (upstream, permit): (&mut Stream, &ConnectionPermit),
) -> Result<Framed, Broken> {
    let agreed = |exchange: Option<&MetadataExchange>, stream: &Stream| {
        let tls = stream.tls().map(|tls| &**tls);
        exchange.is_some_and(|exchange| exchange.is_agreed_on(tls))
    };
    let framed = Framed {
        downstream: agreed(proxy.config().metadata_exchange.as_ref(), &downstream.stream),
        upstream: agreed(permit.cluster().config().metadata_exchange.as_ref(), upstream),
    };
    let told = Arc::clone(downstream.worker.told());
    for (side, stream) in [
        (
            Side::Downstream,
            Some(&mut downstream.stream).filter(|_| framed.downstream),
        ),
        (Side::Upstream, Some(upstream).filter(|_| framed.upstream)),
    ] {
        let Some(stream) = stream else { continue };
        let told = async {
            stream.write_all(&told.frame).await?;
            stream.flush().await
        };
        told.await.map_err(|error| Broken { side, error })?;
    }
    Ok(framed)
}

/// Records a connection again and again, where that is wanted; it never completes.
async fn record_often(proxy: &TcpProxy, traffic: &Traffic, info: &StreamInfo<'_>) {
    let Some(interval) = proxy.config().records.interval else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(interval).await;
        record_so_far(proxy, traffic, info);
    }
}

/// Records a connection that goes on.
fn record_so_far(proxy: &TcpProxy, traffic: &Traffic, info: &StreamInfo<'_>) {
    let mut so_far = info.clone();
    traffic.tell(&mut so_far);
    so_far.finish(std::time::Instant::now());
    proxy.log(&so_far);
}
