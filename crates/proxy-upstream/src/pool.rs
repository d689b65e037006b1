//! Idle upstream connections of one host on one worker, and who waits for them.
//!
//! HTTP/1 semantics: a connection carries one request at a time, so it is taken out of the pool for a request and given
//! back after it. The most recently used connection is taken first, so that those beyond the need grow old and close.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits;
use crate::pool_key::PoolKey;
use crate::wait_queue::{News, WaitQueue, Waiting};

struct Idle<C> {
    connection: C,
    since: Instant,
}

/// Idle connections of type `C`.
pub struct Pool<C> {
    idle: RefCell<VecDeque<Idle<C>>>,
    waiting: WaitQueue<C>,
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
    /// Drops the connection that was idle longest, if one is.
    fn close_idle(&self) -> bool;
    /// A connection ended: the first that waits may open another, and so may the first that waits for one of `alone`,
    /// of which there is no other.
    fn connection_closed(&self, alone: Option<PoolKey>);
    /// A connection of `key` takes another request.
    fn room_was_made(&self, key: PoolKey);
    /// There is a new connection of `key`, which requests share.
    fn connection_shared(&self, key: PoolKey);
}

impl<C> std::fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("idle", &self.idle.borrow().len())
            .field("waiting", &self.waiting.len())
            .finish()
    }
}

impl<C> Pool<C> {
    pub(crate) fn new() -> Self {
        Self {
            idle: RefCell::default(),
            waiting: WaitQueue::default(),
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
        let connection = match self.waiting.tell_first(|_| true, News::Take(connection)) {
            Err(News::Take(connection)) => connection,
            _ => return,
        };
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

    /// A place in the queue: for a connection, or for the news that another may be opened.
    pub(crate) fn wait(&self, key: PoolKey) -> Option<Waiting<'_, C>> {
        self.waiting.join(key)
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

    fn close_idle(&self) -> bool {
        let oldest = self.idle.borrow_mut().pop_front();
        oldest.is_some()
    }

    fn connection_closed(&self, alone: Option<PoolKey>) {
        // Nobody may be waiting.
        let _ = self.waiting.tell_first(|_| true, News::LookAgain);
        if let Some(alone) = alone {
            let _ = self.waiting.tell_first(|key| key == alone, News::LookAgain);
        }
    }

    fn room_was_made(&self, key: PoolKey) {
        let _ = self.waiting.tell_first(|k| k == key, News::LookAgain);
    }

    fn connection_shared(&self, key: PoolKey) {
        self.waiting.tell_all(key, || News::LookAgain);
    }
}
