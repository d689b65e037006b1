//! Getting a connection for a request: from the pool, by opening one, or by waiting when `max_connections` is reached.

use std::rc::Rc;
use std::time::Instant;

use crate::circuit_breaker::RequestPriority;
use crate::cluster::{Cluster, Overflow};
use crate::host::Host;

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

/// A connection to `host` for one request: an idle one, else the right to open one, else, when `max_connections` is
/// reached, the first that becomes free. `usable` says whether an idle connection still works.
///
/// Try [`Pool::take`](crate::Pool::take) first where speed matters: this is the slow way, and the two agree.
///
/// # Errors
/// [`Overflow`] when as many requests wait as may.
pub async fn acquire<C: 'static>(
    cluster: &Rc<Cluster>,
    host: &Rc<Host>,
    priority: RequestPriority,
    now: Instant,
    usable: impl FnMut(&mut C) -> bool,
) -> Result<Acquired<C>, Overflow> {
    acquire_fitting((cluster, host, priority), now, |_| true, usable).await
}

/// As [`acquire`], with a connection that `fits` accepts. One that becomes free and does not fit is closed to make room.
///
/// # Errors
/// As [`acquire`].
pub async fn acquire_fitting<C: 'static>(
    (cluster, host, priority): (&Rc<Cluster>, &Rc<Host>, RequestPriority),
    now: Instant,
    fits: impl Fn(&C) -> bool,
    mut usable: impl FnMut(&mut C) -> bool,
) -> Result<Acquired<C>, Overflow> {
    let pool = host.pool::<C>();
    let idle_timeout = cluster.config().http.idle_timeout;
    if let Some(connection) = pool.take_fitting(now, idle_timeout, &fits, &mut usable) {
        return Ok(Acquired::Ready(connection));
    }
    let pending = Pending::begin(cluster, priority)?;
    loop {
        if let Ok(permit) = ConnectionPermit::take(cluster, host, priority) {
            drop(pending);
            return Ok(Acquired::Connect(permit));
        }
        if let Ok(Some(mut connection)) = pool.wait().await
            && fits(&connection)
            && usable(&mut connection)
        {
            return Ok(Acquired::Ready(connection));
        }
    }
}
