//! What a connection may touch of the worker that it runs on: clusters, routes, counters, chance.
//!
//! State is `Rc` and `Cell`; nothing here is shared with another thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use proxy_config::RouteSlot;
use proxy_config::access_log::AccessLogConfig;
use proxy_core::substitution::ProcessInfo;
use proxy_core::{AccessLogger, ClusterSlot, Random};
use proxy_router::RouteTable;
use proxy_upstream::metadata_exchange::Told;
use proxy_upstream::snapshot::ClusterSnapshot;
use proxy_upstream::{Cluster, ClusterManager, Dialer};
use telemetry::stats::Shard;

use crate::handshake_log::HandshakeLog;

/// A route configuration as one worker holds it: the count that each request moves is this thread's alone.
#[allow(
    clippy::redundant_allocation,
    reason = "cloning the Arc would make all workers contend for its count"
)]
pub type LocalRoutes = Rc<Arc<RouteTable>>;

/// A worker as its connections see it. Cheap to clone within its thread, and not `Send`.
#[derive(Clone, Debug)]
pub struct Local {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shard: Shard,
    random: Random,
    clusters: RefCell<ClusterManager>,
    routes: RefCell<Vec<Option<LocalRoutes>>>,
    process: Rc<ProcessInfo>,
    told: Arc<Told>,
    handshake_log: HandshakeLog,
    fails_health_checks: Cell<bool>,
}

impl Local {
    /// `told` is what peers are told of this node.
    pub(crate) fn new(
        shard: Shard,
        random: Random,
        clusters: ClusterManager,
        (hostname, told): (&str, Arc<Told>),
    ) -> Self {
        Self {
            inner: Rc::new(Inner {
                shard,
                random,
                clusters: RefCell::new(clusters),
                routes: RefCell::default(),
                process: Rc::new(ProcessInfo {
                    hostname: hostname.into(),
                }),
                told,
                handshake_log: HandshakeLog::default(),
                fails_health_checks: Cell::new(false),
            }),
        }
    }

    /// This thread's counters.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.inner.shard
    }

    /// Where it says which TLS handshakes failed, and why.
    pub(crate) fn handshake_log(&self) -> &HandshakeLog {
        &self.inner.handshake_log
    }

    /// Whether the proxy was told to fail health checks: connections close with the next answer then.
    pub(crate) fn fails_health_checks(&self) -> bool {
        self.inner.fails_health_checks.get()
    }

    pub(crate) fn set_fails_health_checks(&self, fails: bool) {
        self.inner.fails_health_checks.set(fails);
    }

    /// A random number, uniform over all values. Not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.inner.random.next()
    }

    /// The clusters of this worker.
    pub(crate) fn clusters(&self) -> &RefCell<ClusterManager> {
        &self.inner.clusters
    }

    /// The cluster in a slot, if it is in force.
    #[must_use]
    pub fn cluster(&self, slot: ClusterSlot) -> Option<Rc<Cluster>> {
        self.inner.clusters.borrow().get(slot).cloned()
    }

    /// The cluster called `name`, for `cluster_header` routes.
    #[must_use]
    pub fn cluster_by_name(&self, name: &str) -> Option<Rc<Cluster>> {
        self.inner.clusters.borrow().get_by_name(name).cloned()
    }

    /// What makes the sockets of clusters that are bound to a source address, if that is not this process.
    #[must_use]
    pub fn dialer(&self) -> Option<Rc<dyn Dialer>> {
        self.inner.clusters.borrow().dialer().cloned()
    }

    /// The route configuration in a slot, if it has come.
    #[must_use]
    pub fn routes(&self, slot: RouteSlot) -> Option<LocalRoutes> {
        self.inner.routes.borrow().get(slot.index())?.clone()
    }

    pub(crate) fn set_routes(&self, slot: RouteSlot, table: Option<Arc<RouteTable>>) {
        let mut routes = self.inner.routes.borrow_mut();
        if routes.len() <= slot.index() {
            routes.resize_with(slot.index() + 1, || None);
        }
        routes[slot.index()] = table.map(Rc::new);
    }

    /// The clusters of this worker, as `/clusters` shows them.
    #[must_use]
    pub fn cluster_snapshot(&self) -> Vec<ClusterSnapshot> {
        self.inner.clusters.borrow().snapshot()
    }

    /// Facts of this process that format operators read.
    #[must_use]
    pub fn process(&self) -> &Rc<ProcessInfo> {
        &self.inner.process
    }

    /// What peers are told of this node.
    #[must_use]
    pub fn told(&self) -> &Arc<Told> {
        &self.inner.told
    }

    /// Loggers of this worker for configured access logs.
    #[must_use]
    pub fn access_loggers(&self, configs: &[AccessLogConfig]) -> Vec<Rc<dyn AccessLogger>> {
        configs
            .iter()
            .map(|config| config.logger(Rc::clone(&self.inner.process)))
            .collect()
    }
}
