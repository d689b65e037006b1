//! One worker: a thread with a single-threaded runtime, its listeners, and what its connections may touch ([`Local`]).
//!
//! State is `Rc` and `Cell`; nothing here is shared with another thread but the connection counts, which are read to
//! find the least loaded worker. Configuration arrives compiled, as commands from the main thread.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use proxy_upstream::{ClusterManager, Dialer};
use telemetry::stats::Registry;
use tokio::sync::mpsc;

use crate::command::{Command, HandedOver};
use crate::http::HttpLocal;
use crate::limits;
use crate::listeners::Listeners;
use crate::local::Local;
use crate::random::Random;

/// Active connections per worker.
pub(crate) type Load = Arc<[AtomicU32]>;

/// A worker. Cheap to clone within its thread, and not `Send`.
#[derive(Clone, Debug)]
pub struct Worker {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: usize,
    local: Local,
    http: Rc<HttpLocal>,
    listeners: Listeners,
    next_connection: Cell<u64>,
    load: Load,
    peers: Vec<mpsc::Sender<Command>>,
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
            local: Local::new(shard, Random::new(parts.seed), clusters, &parts.hostname),
            http: Rc::default(),
            listeners: Listeners::default(),
            next_connection: Cell::new(parts.index as u64),
            load: parts.load,
            peers: parts.peers,
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

    /// What the connections of this worker may touch.
    #[must_use]
    pub fn local(&self) -> &Local {
        &self.inner.local
    }

    /// What the HTTP connections of this worker share.
    pub(crate) fn http(&self) -> &Rc<HttpLocal> {
        &self.inner.http
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
                _ = tick.tick() => self.clusters().borrow().tick(Instant::now()),
            }
        }
    }

    fn carry_out(&self, command: Command) {
        match command {
            Command::Cluster(update) => self.clusters().borrow_mut().apply(update),
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
        self.clusters().borrow().snapshot()
    }
}

/// A worker can do whatever its connections can.
impl Deref for Worker {
    type Target = Local;

    fn deref(&self) -> &Local {
        &self.inner.local
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
