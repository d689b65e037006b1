//! `envoy.filters.network.tcp_proxy`: a connection to a host of a cluster, and bytes both ways.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use proxy_config::listener::NetworkFilter;
use proxy_config::tcp_proxy::TcpProxy as Config;
use proxy_core::{AccessLogger, Address, ResponseFlag, StreamInfo};
use proxy_upstream::{Cluster, ConnectionPermit, HostAddress, PickContext, RequestPriority, Stream, connect};
use tokio::time::Instant;

use crate::command::Listener;
use crate::copy::{self, Side};
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

/// Serves a connection until both sides have closed.
pub(crate) async fn serve(downstream: Downstream, proxy: Rc<TcpProxy>) {
    let config = proxy.config();
    let worker = downstream.worker.clone();
    worker.shard().inc(config.stats.downstream_cx_total);
    let now = std::time::Instant::now();
    let mut info = StreamInfo::new(Rc::clone(&downstream.connection), SystemTime::now(), now);
    if let Some((upstream, permit)) = connect_upstream(config, &downstream, &mut info).await {
        relay(config, downstream, upstream, &permit, &mut info).await;
    }
    info.finish(std::time::Instant::now());
    proxy.log(&info);
}

/// Picks a cluster and a host and connects, as often as `max_connect_attempts` allows.
async fn connect_upstream(
    config: &Config,
    downstream: &Downstream,
    info: &mut StreamInfo<'_>,
) -> Option<(Stream, ConnectionPermit)> {
    let worker = &downstream.worker;
    let (slot, name) = config.clusters.pick(worker.random());
    info.cluster_name = Some((&**name).into());
    let Some(cluster) = worker.cluster(slot) else {
        worker.shard().inc(config.stats.downstream_cx_no_route);
        info.flag(ResponseFlag::NoClusterFound);
        return None;
    };
    info.cluster_observability_name = Some((&*cluster.config().stat_name).into());
    let mut tried = Vec::new();
    for _ in 0..config.max_connect_attempts {
        info.attempt_count += 1;
        let permit = permit(worker, &cluster, downstream, &tried, info)?;
        let dialer = worker.dialer();
        match connect(&permit, dialer.as_deref()).await {
            Ok(stream) => {
                describe_upstream(info, &stream);
                return Some((stream, permit));
            }
            Err(error) => {
                tracing::debug!(cluster = %name, %error, "cannot connect");
                info.upstream.transport_failure_reason = error.to_string().into();
                tried.push(Rc::clone(permit.host()));
            }
        }
    }
    info.flag(ResponseFlag::UpstreamConnectionFailure);
    None
}

fn permit(
    worker: &Local,
    cluster: &Rc<Cluster>,
    downstream: &Downstream,
    tried: &[Rc<proxy_upstream::Host>],
    info: &mut StreamInfo<'_>,
) -> Option<ConnectionPermit> {
    let context = PickContext {
        original_destination: downstream.connection.original_destination,
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
    match ConnectionPermit::take(cluster, &host, RequestPriority::Default) {
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

/// Copies both ways until both sides have closed, or a timeout, or the end of a drain.
async fn relay(
    config: &Config,
    mut downstream: Downstream,
    mut upstream: Stream,
    permit: &ConnectionPermit,
    info: &mut StreamInfo<'_>,
) {
    let worker = downstream.worker.clone();
    let (tcp, cluster) = (&config.stats, &permit.cluster().config().stats);
    let (received, sent) = (Cell::new(0_u64), Cell::new(0_u64));
    let last_activity = Cell::new(Instant::now());
    let progress = |side: Side, bytes: usize| {
        let bytes = bytes as u64;
        match side {
            Side::Downstream => {
                received.set(received.get() + bytes);
                worker.shard().add(tcp.downstream_cx_rx_bytes_total, bytes);
                worker.shard().add(cluster.upstream_cx_tx_bytes_total, bytes);
            }
            Side::Upstream => {
                sent.set(sent.get() + bytes);
                worker.shard().add(tcp.downstream_cx_tx_bytes_total, bytes);
                worker.shard().add(cluster.upstream_cx_rx_bytes_total, bytes);
            }
        }
        last_activity.set(Instant::now());
    };
    let idle = async {
        match config.idle_timeout {
            None => std::future::pending().await,
            Some(timeout) => idle_for(timeout, &last_activity).await,
        }
    };
    let too_old = async {
        match config.max_connection_duration {
            None => std::future::pending().await,
            Some(duration) => tokio::time::sleep(duration).await,
        }
    };
    let copied: io::Result<()> = tokio::select! {
        result = copy::both_ways(&mut downstream.stream, &mut upstream, &downstream.read, &progress) => result,
        () = idle => {
            worker.shard().inc(tcp.idle_timeout);
            info.flag(ResponseFlag::StreamIdleTimeout);
            Ok(())
        }
        () = too_old => {
            worker.shard().inc(tcp.max_downstream_connection_duration);
            info.flag(ResponseFlag::DurationTimeout);
            Ok(())
        }
        () = downstream.drain.ended() => Ok(()),
    };
    if let Err(error) = copied {
        tracing::debug!(%error, "connection broken");
    }
    info.bytes.received = received.get();
    info.bytes.sent = sent.get();
    info.bytes.downstream_wire_received = received.get();
    info.bytes.downstream_wire_sent = sent.get();
    info.bytes.upstream_wire_sent = received.get();
    info.bytes.upstream_wire_received = sent.get();
}

/// Completes once nothing has happened for `timeout`. The clock is read only when the timer fires.
async fn idle_for(timeout: std::time::Duration, last_activity: &Cell<Instant>) {
    loop {
        let due = last_activity.get() + timeout;
        if Instant::now() >= due {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}
