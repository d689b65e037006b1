//! One worker: a thread with a single-threaded runtime, and everything that a connection on it may touch.
//!
//! State is `Rc` and `Cell`; nothing here is shared with another thread but the connection counts, which are read to
//! find the least loaded worker. Configuration arrives compiled, as commands from the main thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use proxy_config::RouteSlot;
use proxy_config::access_log::AccessLogConfig;
use proxy_core::substitution::ProcessInfo;
use proxy_core::{AccessLogger, ClusterSlot};
use proxy_router::RouteTable;
use proxy_upstream::{Cluster, ClusterManager, Dialer};
use telemetry::stats::{Registry, Shard};
use tokio::sync::mpsc;

use crate::command::{Command, HandedOver};
use crate::http::HttpLocal;
use crate::limits;
use crate::listeners::Listeners;
use crate::random::Random;

/// Active connections per worker.
pub(crate) type Load = Arc<[AtomicU32]>;

/// A route configuration as one worker holds it: the count that each request moves is this thread's alone.
#[allow(
    clippy::redundant_allocation,
    reason = "cloning the Arc would make all workers contend for its count"
)]
pub type LocalRoutes = Rc<Arc<RouteTable>>;

/// A worker. Cheap to clone within its thread, and not `Send`.
#[derive(Clone, Debug)]
pub struct Worker {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: usize,
    shard: Shard,
    random: Random,
    clusters: RefCell<ClusterManager>,
    routes: RefCell<Vec<Option<LocalRoutes>>>,
    listeners: Listeners,
    next_connection: Cell<u64>,
    load: Load,
    peers: Vec<mpsc::Sender<Command>>,
    process: Rc<ProcessInfo>,
    http: HttpLocal,
}

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) registry: Registry,
    pub(crate) seed: u64,
    pub(crate) load: Load,
    /// Where the workers take commands, this one included.
    pub(crate) peers: Vec<mpsc::Sender<Command>>,
    /// `%HOSTNAME%`.
    pub(crate) hostname: Arc<str>,
}

impl Worker {
    pub(crate) fn new(parts: Parts, dialer: Option<Rc<dyn Dialer>>) -> Self {
        let shard = parts.registry.shard();
        let mut clusters = ClusterManager::new(shard.clone(), parts.seed, dialer);
        // The gauges of a cluster's hosts are the same on every worker.
        if parts.index == 0 {
            clusters.report_membership();
        }
        let inner = Inner {
            index: parts.index,
            random: Random::new(parts.seed),
            clusters: RefCell::new(clusters),
            shard,
            routes: RefCell::default(),
            listeners: Listeners::default(),
            next_connection: Cell::new(parts.index as u64),
            load: parts.load,
            peers: parts.peers,
            process: Rc::new(ProcessInfo {
                hostname: (&*parts.hostname).into(),
            }),
            http: HttpLocal::default(),
        };
        Self {
            inner: Rc::new(inner),
        }
    }

    /// The number of this worker; the first is 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.inner.index
    }

    /// This thread's counters.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.inner.shard
    }

    /// A random number, uniform over all values. Not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.inner.random.next()
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

    /// Facts of this process that format operators read.
    #[must_use]
    pub fn process(&self) -> &Rc<ProcessInfo> {
        &self.inner.process
    }

    /// What HTTP connections of this worker share.
    pub(crate) fn http(&self) -> &HttpLocal {
        &self.inner.http
    }

    /// Loggers of this worker for configured access logs.
    #[must_use]
    pub fn access_loggers(&self, configs: &[AccessLogConfig]) -> Vec<Rc<dyn AccessLogger>> {
        configs
            .iter()
            .map(|config| config.logger(Rc::clone(&self.inner.process)))
            .collect()
    }

    pub(crate) fn listeners(&self) -> &Listeners {
        &self.inner.listeners
    }

    /// A connection id that no other worker gives.
    pub(crate) fn connection_id(&self) -> u64 {
        let id = self.inner.next_connection.get();
        self.inner.next_connection.set(id + self.inner.peers.len() as u64);
        id
    }

    /// Counts a connection on this worker until the guard is dropped.
    pub(crate) fn count_connection(&self) -> ConnectionCount {
        let load = Arc::clone(&self.inner.load);
        load[self.inner.index].fetch_add(1, Ordering::Relaxed);
        ConnectionCount {
            load,
            index: self.inner.index,
        }
    }

    /// The worker that a new connection is better given to. Unless the balance must be exact, a worker keeps a
    /// connection while it has at most a quarter more than the least loaded, because handing over costs a wake-up.
    pub(crate) fn less_loaded_peer(&self, exact: bool) -> Option<usize> {
        let of = |worker: usize| self.inner.load[worker].load(Ordering::Relaxed);
        let (mine, least) = (
            of(self.index()),
            (0..self.inner.load.len()).min_by_key(|w| of(*w))?,
        );
        let tolerance = if exact { 0 } else { of(least) / 4 };
        (mine > of(least) + tolerance).then_some(least)
    }

    /// Gives a connection to another worker, or gets it back when that worker's queue is full.
    pub(crate) fn hand_over(&self, peer: usize, connection: HandedOver) -> Result<(), HandedOver> {
        let sent = self.inner.peers[peer].try_send(Command::Connection(connection));
        sent.map_err(|error| match error.into_inner() {
            Command::Connection(connection) => connection,
            _ => unreachable!("what was not sent comes back"),
        })
    }

    /// Carries out commands until there are no more senders or a stop comes.
    pub(crate) async fn run(self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(limits::TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.carry_out(command),
                },
                _ = tick.tick() => self.inner.clusters.borrow().tick(Instant::now()),
            }
        }
    }

    fn carry_out(&self, command: Command) {
        match command {
            Command::Cluster(update) => self.inner.clusters.borrow_mut().apply(update),
            Command::Routes { slot, table } => self.set_routes(slot, table),
            Command::PutListener(put) => self.inner.listeners.put(self, *put),
            Command::RemoveListener { name, drain } => self.inner.listeners.remove(&name, drain),
            Command::DrainListeners {
                drain,
                inbound_only,
                stop_accepting,
            } => {
                self.inner
                    .listeners
                    .drain_all(drain, inbound_only, stop_accepting);
            }
            Command::Connection(connection) => crate::acceptor::take_over(self, connection),
            Command::Inspect(inspect) => inspect(self),
            Command::Stop => {}
        }
    }

    /// The clusters of this worker, as `/clusters` shows them.
    #[must_use]
    pub fn cluster_snapshot(&self) -> Vec<proxy_upstream::snapshot::ClusterSnapshot> {
        self.inner.clusters.borrow().snapshot()
    }

    fn set_routes(&self, slot: RouteSlot, table: Option<Arc<RouteTable>>) {
        let mut routes = self.inner.routes.borrow_mut();
        if routes.len() <= slot.index() {
            routes.resize_with(slot.index() + 1, || None);
        }
        routes[slot.index()] = table.map(Rc::new);
    }
}

/// Counts one connection of a worker.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    load: Load,
    index: usize,
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.load[self.index].fetch_sub(1, Ordering::Relaxed);
    }
}
