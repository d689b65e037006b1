//! Getting a place on a connection that requests share, or having one made for all who wait.

use std::rc::Rc;

use crate::checkout::{ConnectionPermit, Pending};
use crate::circuit_breaker::RequestPriority;
use crate::cluster::{Cluster, Overflow};
use crate::connect::ConnectError;
use crate::host::Host;
use crate::shared_pool::Multiplexed;

/// Why a request got no connection.
#[derive(Clone, Debug)]
pub enum SharedError {
    /// A circuit breaker is open.
    Overflow,
    /// The connection that it waited for could not be made.
    Connect(Rc<ConnectError>),
}

/// A connection to `host` with room for a request: one that is there, else the first that gets ready. `open` starts to
/// make one, and tells the pool with [`SharedPool::add`] or [`SharedPool::failed`].
///
/// # Errors
/// See [`SharedError`].
pub async fn acquire_shared<C: Multiplexed<Failure = ConnectError>>(
    (cluster, host, priority): (&Rc<Cluster>, &Rc<Host>, RequestPriority),
    fits: impl Fn(&C) -> bool,
    open: impl Fn(ConnectionPermit),
) -> Result<Rc<C>, SharedError> {
    let pool = host.shared_pool::<C>();
    if let Some(connection) = pool.find(&fits) {
        return Ok(connection);
    }
    let _pending = Pending::begin(cluster, priority).map_err(|Overflow| SharedError::Overflow)?;
    loop {
        let news = pool.wait().ok_or(SharedError::Overflow)?;
        if !pool.is_connecting()
            && let Ok(permit) = ConnectionPermit::take(cluster, host, priority)
        {
            pool.begin_connecting();
            open(permit);
        }
        // An error: the pool is gone, and with it the host; another try will tell.
        if let Ok(Err(error)) = news.await {
            return Err(SharedError::Connect(error));
        }
        if let Some(connection) = pool.find(&fits) {
            return Ok(connection);
        }
    }
}
