//! Getting a connection for a request: from the pool, by opening one, or by waiting when `max_connections` is reached.

use std::rc::Rc;

use crate::circuit_breaker::RequestPriority;
use crate::cluster::{Cluster, Overflow};
use crate::host::Host;
use crate::pool_key::PoolKey;
use crate::wait_queue::News;

/// What [`acquire`] brings.
#[derive(Debug)]
pub enum Acquired<T> {
    /// A connection that was there.
    Ready(T),
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
    key: PoolKey,
}

impl ConnectionPermit {
    /// Takes the right to open a connection, unless `max_connections` is reached. Then an idle connection of the host
    /// makes room that counts against the same threshold; whoever asks has found that it does not fit. A host without a
    /// connection of this key and priority may always have one, so that whoever waits for one waits for something that
    /// will come.
    ///
    /// # Errors
    /// [`Overflow`] when `max_connections` is reached.
    pub fn take(
        cluster: &Rc<Cluster>,
        host: &Rc<Host>,
        priority: RequestPriority,
        key: PoolKey,
    ) -> Result<Self, Overflow> {
        let connections = &cluster.config().circuit_breakers.of(priority).connections;
        let made_room = || host.close_idle(priority) && connections.try_acquire();
        if !connections.try_acquire() && !made_room() {
            cluster.shard().inc(cluster.config().stats.upstream_cx_overflow);
            if host.has_connection(priority, key) {
                return Err(Overflow);
            }
            connections.acquire_anyway();
        }
        host.open_connection(priority, key);
        let stats = &cluster.config().stats;
        cluster.shard().inc(stats.upstream_cx_total);
        cluster.shard().move_gauge(stats.upstream_cx_active, 1);
        Ok(Self {
            cluster: Rc::clone(cluster),
            host: Rc::clone(host),
            priority,
            key,
        })
    }

    /// Whose threshold it counts against.
    #[must_use]
    pub fn priority(&self) -> RequestPriority {
        self.priority
    }

    /// Whose requests the connection is for.
    #[must_use]
    pub fn key(&self) -> PoolKey {
        self.key
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
        self.host.close_connection(self.priority, self.key);
    }
}

/// A request that waits for a connection, counted until it has one.
pub(crate) struct Pending<'a> {
    cluster: &'a Cluster,
    priority: RequestPriority,
}

impl<'a> Pending<'a> {
    pub(crate) fn begin(cluster: &'a Cluster, priority: RequestPriority) -> Result<Self, Overflow> {
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

/// A connection to `host` for one request: one that is there, as `look` finds it, else the right to open one of `key`,
/// else, when `max_connections` is reached, the first that becomes free. One that becomes free and that `accept` does
/// not take is closed to make room.
///
/// Look first where speed matters: this is the slow way, and the two agree.
///
/// # Errors
/// [`Overflow`] when as many requests wait as may.
pub async fn acquire<C: 'static, T>(
    (cluster, host, priority): (&Rc<Cluster>, &Rc<Host>, RequestPriority),
    key: PoolKey,
    mut look: impl FnMut() -> Option<T>,
    mut accept: impl FnMut(C) -> Option<T>,
) -> Result<Acquired<T>, Overflow> {
    if let Some(ready) = look() {
        return Ok(Acquired::Ready(ready));
    }
    let _pending = Pending::begin(cluster, priority)?;
    if let Ok(permit) = ConnectionPermit::take(cluster, host, priority, key) {
        return Ok(Acquired::Connect(permit));
    }
    let mut waiting = host.pool::<C>(priority).wait(key).ok_or(Overflow)?;
    loop {
        let ready = match waiting.news().await {
            News::Take(connection) => accept(connection),
            News::LookAgain => look(),
        };
        if let Some(ready) = ready {
            return Ok(Acquired::Ready(ready));
        }
        if let Ok(permit) = ConnectionPermit::take(cluster, host, priority, key) {
            return Ok(Acquired::Connect(permit));
        }
    }
}
