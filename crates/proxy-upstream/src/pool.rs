//! Idle upstream connections of one host on one worker, and who waits for them.
//!
//! HTTP/1 semantics: a connection carries one request at a time, so it is taken out of the pool for a request and given
//! back after it. The most recently used connection is taken first, so that those beyond the need grow old and close.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

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
    /// Drops the idle connections.
    fn clear(&self);
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
        usable: impl FnMut(&mut C) -> bool,
    ) -> Option<C> {
        self.take_fitting(now, idle_timeout, |_| true, usable)
    }

    /// As [`take`](Self::take), among the connections that `fits` accepts; the others stay.
    pub fn take_fitting(
        &self,
        now: Instant,
        idle_timeout: Option<Duration>,
        fits: impl Fn(&C) -> bool,
        mut usable: impl FnMut(&mut C) -> bool,
    ) -> Option<C> {
        loop {
            // Dropped outside the borrow: a connection's end may look at the pool again.
            let mut candidate = {
                let mut idle = self.idle.borrow_mut();
                let last = idle.iter().rposition(|idle| fits(&idle.connection))?;
                idle.remove(last)?
            };
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

    /// Waits in the queue: for a connection, or for the news that another may be opened.
    pub(crate) fn wait(&self) -> oneshot::Receiver<Option<C>> {
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
        self.clear();
    }

    fn clear(&self) {
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
