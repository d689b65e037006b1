//! Statistics of the connection to the discovery service, in the cluster that the bootstrap names for it
//! (`cluster.xds-grpc.`). No worker uses that cluster: the main thread speaks to the service, so it counts for it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_upstream::ClusterConfig;
use telemetry::stats::{Counter, Shard};
use xds::grpc::Traffic;
use xds::grpc::client::Link;

/// Counts connections and calls as Envoy counts those of its gRPC client.
#[derive(Debug)]
pub(crate) struct AdsStats {
    shard: Shard,
    config: Arc<ClusterConfig>,
    upstream_cx_http2_total: Counter,
    upstream_rq_200: Counter,
    upstream_rq_503: Counter,
    open: RefCell<Option<Open>>,
}

/// The connection that is open.
#[derive(Debug)]
struct Open {
    since: Instant,
    traffic: Arc<Traffic>,
    /// What of the traffic is counted already: received, sent.
    counted: (u64, u64),
    answered: bool,
}

impl AdsStats {
    pub(crate) fn new(shard: Shard, config: Arc<ClusterConfig>) -> Self {
        let counter = |leaf| config.stats.scope().counter(leaf);
        Self {
            upstream_cx_http2_total: counter("upstream_cx_http2_total"),
            upstream_rq_200: counter("upstream_rq_200"),
            upstream_rq_503: counter("upstream_rq_503"),
            shard,
            config,
            open: RefCell::default(),
        }
    }

    /// A connection is open, and the call goes out on it.
    pub(crate) fn connected(&self, link: Link, now: Instant) {
        let stats = &self.config.stats;
        self.count_attempt();
        self.shard
            .record(stats.upstream_cx_connect_ms, milliseconds(link.took));
        self.shard.move_gauge(stats.upstream_cx_active, 1);
        self.shard.inc(stats.upstream_rq_total);
        self.shard.move_gauge(stats.upstream_rq_active, 1);
        self.open.replace(Some(Open {
            since: now,
            traffic: link.traffic,
            counted: (0, 0),
            answered: false,
        }));
    }

    /// The service has sent something: the call is answered.
    pub(crate) fn answered(&self) {
        let first = match &mut *self.open.borrow_mut() {
            Some(open) => !std::mem::replace(&mut open.answered, true),
            None => false,
        };
        if first {
            self.count_status(200, self.upstream_rq_200);
        }
    }

    /// The connection ended, or none could be made.
    pub(crate) fn disconnected(&self, now: Instant) {
        self.flush();
        let stats = &self.config.stats;
        let open = self.open.take();
        match &open {
            Some(open) => {
                let lived = now.saturating_duration_since(open.since);
                self.shard
                    .record(stats.upstream_cx_length_ms, milliseconds(lived));
                self.shard.move_gauge(stats.upstream_cx_active, -1);
                self.shard.move_gauge(stats.upstream_rq_active, -1);
            }
            None => {
                self.count_attempt();
                self.shard.inc(stats.upstream_cx_connect_fail);
                self.shard.inc(stats.upstream_rq_pending_failure_eject);
            }
        }
        self.shard.inc(stats.upstream_cx_destroy);
        self.shard.inc(stats.upstream_cx_destroy_remote);
        if open.is_none_or(|open| !open.answered) {
            self.count_status(503, self.upstream_rq_503);
        }
    }

    /// Counts the bytes that have passed since the last time.
    pub(crate) fn flush(&self) {
        let stats = &self.config.stats;
        if let Some(open) = &mut *self.open.borrow_mut() {
            let now = (open.traffic.received(), open.traffic.sent());
            self.shard
                .add(stats.upstream_cx_rx_bytes_total, now.0 - open.counted.0);
            self.shard
                .add(stats.upstream_cx_tx_bytes_total, now.1 - open.counted.1);
            open.counted = now;
        }
    }

    fn count_attempt(&self) {
        let stats = &self.config.stats;
        self.shard.inc(stats.upstream_cx_total);
        self.shard.inc(self.upstream_cx_http2_total);
        self.shard.inc(stats.upstream_rq_pending_total);
    }

    fn count_status(&self, status: u16, code: Counter) {
        let stats = &self.config.stats;
        self.shard.inc(stats.upstream_rq_completed);
        self.shard.inc(code);
        if let Some(class) = stats.status_class(status) {
            self.shard.inc(class);
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
