//! Idle upstream connections of one host on one worker, and the queue for them when `max_connections` is reached.
//!
//! HTTP/1 semantics: a connection carries one request at a time, so it is taken out of the pool for a request and given
//! back after it. The most recently used connection is taken first, so that those beyond the need grow old and close.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::circuit_breaker::RequestPriority;
use crate::cluster::{Cluster, Overflow};
use crate::host::Host;
use crate::limits;

struct Idle<C> {
    connection: C,
    since: Instant,
}

/// Idle connections of type `C`.
pub struct Pool<C> {
    idle: RefCell<VecDeque<Idle<C>>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Option<C>>>>,
    closed: Cell<bool>,
}

/// What a host does with its pool without knowing what is in it.
pub(crate) trait ErasedPool {
    fn as_any(&self) -> &dyn Any;
    /// Drops the idle connections and takes none back.
    fn close(&self);
    /// Drops connections that were idle for longer than `timeout`.
    fn sweep(&self, now: Instant, timeout: Option<Duration>) -> usize;
    /// A connection ended: the first that waits may open another.
    fn connection_closed(&self);
}

impl<C> std::fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("idle", &self.idle.borrow().len())
            .field("waiting", &self.waiting.borrow().len())
            .finish()
    }
}

impl<C> Pool<C> {
    pub(crate) fn new() -> Self {
        Self {
            idle: RefCell::default(),
            waiting: RefCell::default(),
            closed: Cell::new(false),
        }
    }

    /// Takes the most recently used connection that was not idle for longer than `idle_timeout` and that `usable`
    /// accepts. Those that it does not accept are dropped.
    pub fn take(
        &self,
        now: Instant,
        idle_timeout: Option<Duration>,
        mut usable: impl FnMut(&mut C) -> bool,
    ) -> Option<C> {
        loop {
            // Dropped outside the borrow: a connection's end may look at the pool again.
            let mut candidate = self.idle.borrow_mut().pop_back()?;
            let fresh = idle_timeout.is_none_or(|t| now.saturating_duration_since(candidate.since) < t);
            if fresh && usable(&mut candidate.connection) {
                return Some(candidate.connection);
            }
        }
    }

    /// Gives a connection back. Who waits for one gets it at once; a closed pool drops it.
    pub fn give_back(&self, connection: C, now: Instant) {
        let mut connection = connection;
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else {
                break;
            };
            match waiter.send(Some(connection)) {
                Ok(()) => return,
                Err(Some(returned)) => connection = returned,
                Err(None) => return,
            }
        }
        if self.closed.get() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let oldest = (idle.len() >= limits::MAX_IDLE_CONNECTIONS_PER_HOST).then(|| idle.pop_front());
        idle.push_back(Idle {
            connection,
            since: now,
        });
        drop(idle);
        drop(oldest);
    }

    /// How many connections are idle.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    fn wait(&self) -> oneshot::Receiver<Option<C>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        receiver
    }
}

impl<C: 'static> ErasedPool for Pool<C> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn close(&self) {
        self.closed.set(true);
        drop(self.idle.take());
    }

    fn sweep(&self, now: Instant, timeout: Option<Duration>) -> usize {
        let Some(timeout) = timeout else { return 0 };
        let expired = |idle: &Idle<C>| now.saturating_duration_since(idle.since) >= timeout;
        let mut closed = 0;
        loop {
            // The front is the one that was idle longest.
            let front = {
                let mut idle = self.idle.borrow_mut();
                if !idle.front().is_some_and(expired) {
                    return closed;
                }
                idle.pop_front()
            };
            drop(front);
            closed += 1;
        }
    }

    fn connection_closed(&self) {
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            if waiter.send(None).is_ok() {
                return;
            }
        }
    }
}

/// What [`acquire`] brings.
#[derive(Debug)]
pub enum Acquired<C> {
    /// A connection from the pool.
    Ready(C),
    /// The right to open a connection; [`connect`](crate::connect()) takes it.
    Connect(ConnectionPermit),
}

/// The right to have one connection to a host. It counts against `max_connections` until it is dropped, so it is kept
/// beside the connection.
#[derive(Debug)]
pub struct ConnectionPermit {
    cluster: Rc<Cluster>,
    host: Rc<Host>,
    priority: RequestPriority,
}

impl ConnectionPermit {
    /// Takes the right to open a connection, unless `max_connections` is reached. A host without a connection may
    /// always have one, so that a cluster with more hosts than connections can use all of them.
    ///
    /// # Errors
    /// [`Overflow`] when `max_connections` is reached.
    pub fn take(cluster: &Rc<Cluster>, host: &Rc<Host>, priority: RequestPriority) -> Result<Self, Overflow> {
        let connections = &cluster.config().circuit_breakers.of(priority).connections;
        if !connections.try_acquire() {
            cluster.shard().inc(cluster.config().stats.upstream_cx_overflow);
            if host.active_connections() > 0 {
                return Err(Overflow);
            }
            connections.acquire_anyway();
        }
        host.open_connection();
        let stats = &cluster.config().stats;
        cluster.shard().inc(stats.upstream_cx_total);
        cluster.shard().move_gauge(stats.upstream_cx_active, 1);
        Ok(Self {
            cluster: Rc::clone(cluster),
            host: Rc::clone(host),
            priority,
        })
    }

    /// The host that it is for.
    #[must_use]
    pub fn host(&self) -> &Rc<Host> {
        &self.host
    }

    /// The cluster that it counts against.
    #[must_use]
    pub fn cluster(&self) -> &Rc<Cluster> {
        &self.cluster
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let stats = &self.cluster.config().stats;
        self.cluster.shard().move_gauge(stats.upstream_cx_active, -1);
        self.cluster.shard().inc(stats.upstream_cx_destroy);
        self.cluster
            .config()
            .circuit_breakers
            .of(self.priority)
            .connections
            .release();
        self.host.close_connection();
    }
}

/// A request that waits for a connection, counted until it has one.
struct Pending<'a> {
    cluster: &'a Cluster,
    priority: RequestPriority,
}

impl<'a> Pending<'a> {
    fn begin(cluster: &'a Cluster, priority: RequestPriority) -> Result<Self, Overflow> {
        let stats = &cluster.config().stats;
        if !cluster
            .config()
            .circuit_breakers
            .of(priority)
            .pending_requests
            .try_acquire()
        {
            cluster.shard().inc(stats.upstream_rq_pending_overflow);
            return Err(Overflow);
        }
        cluster.shard().inc(stats.upstream_rq_pending_total);
        cluster.shard().move_gauge(stats.upstream_rq_pending_active, 1);
        Ok(Self { cluster, priority })
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.cluster
            .shard()
            .move_gauge(self.cluster.config().stats.upstream_rq_pending_active, -1);
        self.cluster
            .config()
            .circuit_breakers
            .of(self.priority)
            .pending_requests
            .release();
    }
}

/// A connection to `host` for one request: an idle one, else the right to open one, else, when `max_connections` is
/// reached, the first that becomes free. `usable` says whether an idle connection still works.
///
/// Try [`Pool::take`] first where speed matters: this is the slow way, and the two agree.
///
/// # Errors
/// [`Overflow`] when as many requests wait as may.
pub async fn acquire<C: 'static>(
    cluster: &Rc<Cluster>,
    host: &Rc<Host>,
    priority: RequestPriority,
    now: Instant,
    mut usable: impl FnMut(&mut C) -> bool,
) -> Result<Acquired<C>, Overflow> {
    let pool = host.pool::<C>();
    if let Some(connection) = pool.take(now, cluster.config().http.idle_timeout, &mut usable) {
        return Ok(Acquired::Ready(connection));
    }
    let pending = Pending::begin(cluster, priority)?;
    loop {
        if let Ok(permit) = ConnectionPermit::take(cluster, host, priority) {
            drop(pending);
            return Ok(Acquired::Connect(permit));
        }
        if let Ok(Some(mut connection)) = pool.wait().await
            && usable(&mut connection)
        {
            return Ok(Acquired::Ready(connection));
        }
    }
}
