//! Getting a place on a connection that requests share, or having one made for all who wait.

use std::io;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::checkout::{ConnectionPermit, Pending};
use crate::circuit_breaker::RequestPriority;
use crate::cluster::{Cluster, Overflow};
use crate::connect::ConnectError;
use crate::host::Host;
use crate::pool_key::PoolKey;
use crate::shared_pool::Multiplexed;
use crate::wait_queue::News;

/// Why a request got no connection.
#[derive(Clone, Debug)]
pub enum SharedError {
    /// A circuit breaker is open.
    Overflow,
    /// The connection that it waited for could not be made.
    Connect(Rc<ConnectError>),
}

/// A connection that is being made for all who wait for such a one. Dropped without an outcome, it has failed.
#[derive(Debug)]
pub struct Attempt<C: Multiplexed<Failure = ConnectError>> {
    host: Rc<Host>,
    priority: RequestPriority,
    key: PoolKey,
    connection: PhantomData<fn() -> C>,
}

impl<C: Multiplexed<Failure = ConnectError>> Attempt<C> {
    fn begin(host: &Rc<Host>, priority: RequestPriority, key: PoolKey) -> Self {
        host.shared_pool::<C>(priority).begin_connecting(key);
        Self {
            host: Rc::clone(host),
            priority,
            key,
            connection: PhantomData,
        }
    }

    /// Tells those who wait that there is a connection, or why there is none.
    pub fn end(self, outcome: Result<Rc<C>, ConnectError>) {
        let pool = self.host.shared_pool::<C>(self.priority);
        // From here on whoever finds no room may have another one made.
        pool.end_connecting(self.key);
        match outcome {
            Ok(connection) => self.host.share(self.priority, &connection),
            Err(error) => pool.failed(self.key, error),
        }
    }
}

impl<C: Multiplexed<Failure = ConnectError>> Drop for Attempt<C> {
    fn drop(&mut self) {
        let pool = self.host.shared_pool::<C>(self.priority);
        if pool.is_connecting(self.key) {
            pool.end_connecting(self.key);
            let error = io::Error::other("the attempt was given up");
            pool.failed(self.key, ConnectError::Io(error));
        }
    }
}

/// A connection to `host` with room for a request: one that is there and `fits`, else the first that gets ready. `open`
/// starts to make one of `key`.
///
/// # Errors
/// See [`SharedError`].
pub async fn acquire_shared<C: Multiplexed<Failure = ConnectError>>(
    (cluster, host, priority): (&Rc<Cluster>, &Rc<Host>, RequestPriority),
    key: PoolKey,
    fits: impl Fn(&C) -> bool,
    open: impl Fn(ConnectionPermit, Attempt<C>),
) -> Result<Rc<C>, SharedError> {
    let pool = host.shared_pool::<C>(priority);
    if let Some(connection) = pool.find(&fits) {
        return Ok(connection);
    }
    let _pending = Pending::begin(cluster, priority).map_err(|Overflow| SharedError::Overflow)?;
    let mut waiting = pool.wait(key).ok_or(SharedError::Overflow)?;
    loop {
        if !pool.is_connecting(key)
            && let Ok(permit) = ConnectionPermit::take(cluster, host, priority, key)
        {
            open(permit, Attempt::begin(host, priority, key));
        }
        if let News::Take(error) = waiting.news().await {
            return Err(SharedError::Connect(error));
        }
        if let Some(connection) = pool.find(&fits) {
            return Ok(connection);
        }
    }
}
