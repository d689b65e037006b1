//! One host as a worker sees it: its configuration, counts, and connection pool.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt as _};

use crate::circuit_breaker::RequestPriority;
use crate::endpoints::{Health, HostSpec};
use crate::outlier::HostMonitor;
use crate::pool::{ErasedPool, Pool};
use crate::pool_key::PoolKey;
use crate::shared_pool::{Multiplexed, SharedPool};

/// A host of a cluster, on one worker.
///
/// It outlives updates that do not remove it; what the configuration says of it may change meanwhile.
pub struct Host {
    spec: RefCell<Arc<HostSpec>>,
    active_requests: Cell<u32>,
    active_connections: Cell<u32>,
    /// Open connections by what they are for, without those of which there is none.
    connections: RefCell<HashMap<(RequestPriority, PoolKey), u32>>,
    monitor: Option<Arc<HostMonitor>>,
    removed: Cell<bool>,
    last_used: Cell<Option<Instant>>,
    healthy_since: Cell<Option<Instant>>,
    counts: HostCounts,
    /// For requests of priority default, and of priority high.
    pools: [Pools; 2],
}

/// The pools for requests of one priority.
#[derive(Default)]
struct Pools {
    idle: OnceCell<Box<dyn ErasedPool>>,
    shared: OnceCell<Box<dyn ErasedPool>>,
}

impl Pools {
    fn all(&self) -> impl Iterator<Item = &dyn ErasedPool> {
        let pools = [self.idle.get(), self.shared.get()];
        pools.into_iter().flatten().map(|pool| &**pool)
    }
}

/// What happened on one host, as `/clusters` shows it (`envoy.admin.v3.HostStatus.stats`).
#[derive(Debug, Default)]
pub struct HostCounts {
    /// Connections made or tried.
    pub cx_total: Cell<u64>,
    /// Connections that could not be established.
    pub cx_connect_fail: Cell<u64>,
    /// Requests.
    pub rq_total: Cell<u64>,
    /// Requests that were answered, but not with a status of 500 to 599.
    pub rq_success: Cell<u64>,
    /// Requests that failed, or were answered with a status of 500 to 599.
    pub rq_error: Cell<u64>,
    /// Requests that timed out.
    pub rq_timeout: Cell<u64>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("key", &self.spec().key)
            .finish_non_exhaustive()
    }
}

fn increment(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Host {
    pub(crate) fn new(spec: Arc<HostSpec>, monitor: Option<Arc<HostMonitor>>) -> Rc<Self> {
        Rc::new(Self {
            spec: RefCell::new(spec),
            active_requests: Cell::new(0),
            active_connections: Cell::new(0),
            connections: RefCell::new(HashMap::new()),
            monitor,
            removed: Cell::new(false),
            last_used: Cell::new(None),
            healthy_since: Cell::new(None),
            counts: HostCounts::default(),
            pools: Default::default(),
        })
    }

    /// The configuration at this moment.
    #[must_use]
    pub fn spec(&self) -> Arc<HostSpec> {
        Arc::clone(&self.spec.borrow())
    }

    /// Reads the configuration without counting a reference.
    pub fn with_spec<T>(&self, read: impl FnOnce(&HostSpec) -> T) -> T {
        read(&self.spec.borrow())
    }

    /// Connections over another transport socket than the new one are used no more.
    pub(crate) fn update(&self, spec: &Arc<HostSpec>) {
        let before = self.spec.replace(Arc::clone(spec));
        if before.transport != spec.transport {
            self.pools().for_each(ErasedPool::clear);
        }
    }

    /// What happened on it.
    #[must_use]
    pub fn counts(&self) -> &HostCounts {
        &self.counts
    }

    /// Requests in flight from this worker.
    #[must_use]
    pub fn active_requests(&self) -> u32 {
        self.active_requests.get()
    }

    /// Open connections of this worker.
    #[must_use]
    pub fn active_connections(&self) -> u32 {
        self.active_connections.get()
    }

    /// Whether outlier detection took it out of load balancing.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.is_ejected())
    }

    pub(crate) fn monitor(&self) -> Option<&HostMonitor> {
        self.monitor.as_deref()
    }

    /// Whether an update removed it; its connections end with the requests on them.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// When load balancing first saw it healthy, which is now if it does for the first time. `None` while it is not healthy.
    pub(crate) fn healthy_since(&self, now: Instant) -> Option<Instant> {
        if self.health() != Health::Healthy {
            return None;
        }
        let since = self.healthy_since.get().unwrap_or(now);
        self.healthy_since.set(Some(since));
        Some(since)
    }

    /// The health that load balancing sees.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.is_ejected() {
            Health::Unhealthy
        } else {
            self.spec.borrow().health
        }
    }

    pub(crate) fn remove(&self) {
        self.removed.set(true);
        self.pools().for_each(ErasedPool::close);
    }

    /// The pool of idle connections of type `C` for requests of this priority.
    ///
    /// # Panics
    /// When two types of connection are pooled on one host, which is a mistake of the caller.
    pub fn pool<C: 'static>(&self, priority: RequestPriority) -> &Pool<C> {
        let pool = self.pools_of(priority).idle.get_or_init(|| {
            let pool = Pool::<C>::new();
            if self.removed.get() {
                pool.close();
            }
            Box::new(pool)
        });
        let any: &dyn Any = pool.as_any();
        any.downcast_ref()
            .expect("one type of upstream connection per process")
    }

    /// The pool of shared connections of type `C` for requests of this priority.
    ///
    /// # Panics
    /// When two types of connection are shared on one host, which is a mistake of the caller.
    pub fn shared_pool<C: Multiplexed>(&self, priority: RequestPriority) -> &SharedPool<C> {
        let pool = self.pools_of(priority).shared.get_or_init(|| {
            let pool = SharedPool::<C>::new();
            if self.removed.get() {
                pool.close();
            }
            Box::new(pool)
        });
        let any: &dyn Any = pool.as_any();
        any.downcast_ref()
            .expect("one type of shared connection per process")
    }

    fn pools(&self) -> impl Iterator<Item = &dyn ErasedPool> {
        self.pools.iter().flat_map(Pools::all)
    }

    fn pools_of(&self, priority: RequestPriority) -> &Pools {
        &self.pools[match priority {
            RequestPriority::Default => 0,
            RequestPriority::High => 1,
        }]
    }

    pub(crate) fn begin_request(&self) {
        self.active_requests.set(self.active_requests.get() + 1);
        increment(&self.counts.rq_total);
    }

    pub(crate) fn end_request(&self) {
        self.active_requests
            .set(self.active_requests.get().saturating_sub(1));
    }

    /// Whether there is a connection of this key for requests of this priority, or one is being made.
    pub(crate) fn has_connection(&self, priority: RequestPriority, key: PoolKey) -> bool {
        self.connections.borrow().contains_key(&(priority, key))
    }

    pub(crate) fn open_connection(&self, priority: RequestPriority, key: PoolKey) {
        *self.connections.borrow_mut().entry((priority, key)).or_default() += 1;
        self.active_connections.set(self.active_connections.get() + 1);
        increment(&self.counts.cx_total);
    }

    pub(crate) fn close_connection(&self, priority: RequestPriority, key: PoolKey) {
        self.active_connections
            .set(self.active_connections.get().saturating_sub(1));
        let mut connections = self.connections.borrow_mut();
        let left = connections.get_mut(&(priority, key)).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            connections.remove(&(priority, key));
        }
        drop(connections);
        let alone = (left == 0).then_some(key);
        let pools = self.pools_of(priority);
        pools.all().for_each(|pool| pool.connection_closed(alone));
    }

    /// Closes an idle connection for requests of this priority; whether there was one.
    pub(crate) fn close_idle(&self, priority: RequestPriority) -> bool {
        self.pools_of(priority).all().any(ErasedPool::close_idle)
    }

    /// Takes a connection in that requests share, and tells all who wait for it.
    pub fn share<C: Multiplexed>(&self, priority: RequestPriority, connection: &Rc<C>) {
        self.shared_pool(priority).add(connection);
        let (key, pools) = (connection.key(), self.pools_of(priority));
        pools.all().for_each(|pool| pool.connection_shared(key));
    }

    /// A request on a connection that others share has ended: the first that waits for it may look again.
    pub fn room_was_made(&self, priority: RequestPriority, key: PoolKey) {
        let pools = self.pools_of(priority);
        pools.all().for_each(|pool| pool.room_was_made(key));
    }

    pub(crate) fn connect_failed(&self) {
        increment(&self.counts.cx_connect_fail);
    }

    /// Counts the end of a request by its status (`rq_success`, `rq_error`).
    pub fn record_status(&self, status: u16) {
        increment(if status >= 500 {
            &self.counts.rq_error
        } else {
            &self.counts.rq_success
        });
    }

    /// Counts a request that failed without an answer.
    pub fn record_failure(&self) {
        increment(&self.counts.rq_error);
    }

    /// Counts a request that timed out.
    pub fn record_timeout(&self) {
        increment(&self.counts.rq_timeout);
        increment(&self.counts.rq_error);
    }

    pub(crate) fn touch(&self, now: Instant) {
        self.last_used.set(Some(now));
    }

    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.last_used.get()
    }

    /// Closes connections that were idle for longer than `timeout`; the number closed.
    pub(crate) fn sweep(&self, now: Instant, timeout: Option<Duration>) -> usize {
        self.pools().map(|pool| pool.sweep(now, timeout)).sum()
    }
}
