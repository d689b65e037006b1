//! Upstream connections of one host on one worker that carry many requests at a time (HTTP/2).
//!
//! As in Envoy's pool a request takes the first connection that has room. When none has, one connection is opened for
//! all who wait for such a one, and if it cannot be made, all of them have failed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::pool::ErasedPool;
use crate::pool_key::PoolKey;
use crate::wait_queue::{News, WaitQueue, Waiting};

/// A connection that carries many requests at a time.
pub trait Multiplexed: 'static {
    /// Why one could not be made.
    type Failure: 'static;

    /// Whose requests it is for.
    fn key(&self) -> PoolKey;
    /// Whether it still takes requests, now or when one on it has ended.
    fn is_open(&self) -> bool;
    /// Whether it takes another request now.
    fn has_room(&self) -> bool;
    /// Since when no request is on it.
    fn idle_since(&self) -> Option<Instant>;
}

/// Why there will be no connection, for all who waited for it.
type Failed<C> = Rc<<C as Multiplexed>::Failure>;

/// Shared connections of type `C`.
pub struct SharedPool<C: Multiplexed> {
    connections: RefCell<Vec<Rc<C>>>,
    /// Which connections are being made, each for all who wait for such a one.
    connecting: RefCell<Vec<PoolKey>>,
    waiting: WaitQueue<Failed<C>>,
    closed: Cell<bool>,
}

impl<C: Multiplexed> std::fmt::Debug for SharedPool<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedPool")
            .field("connections", &self.connections.borrow().len())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<C: Multiplexed> SharedPool<C> {
    pub(crate) fn new() -> Self {
        Self {
            connections: RefCell::default(),
            connecting: RefCell::default(),
            waiting: WaitQueue::default(),
            closed: Cell::new(false),
        }
    }

    /// The first connection with room that `fits` accepts. Those that take no more requests are let go: they end with
    /// the last request on them.
    pub fn find(&self, fits: impl Fn(&C) -> bool) -> Option<Rc<C>> {
        let mut gone = Vec::new();
        let found = {
            let mut connections = self.connections.borrow_mut();
            connections.retain(|connection| {
                let open = connection.is_open();
                if !open {
                    gone.push(Rc::clone(connection));
                }
                open
            });
            let at = connections.iter().position(|c| fits(c) && c.has_room());
            match at {
                // A closed pool keeps nothing: what it gives away ends with its request.
                Some(at) if self.closed.get() => Some(connections.swap_remove(at)),
                Some(at) => connections.get(at).cloned(),
                None => None,
            }
        };
        // Dropped outside the borrow: a connection's end may look at the pool again.
        drop(gone);
        found
    }

    /// Takes a connection in, and tells those who wait for it. A closed pool takes one only for somebody who does.
    pub(crate) fn add(&self, connection: &Rc<C>) {
        self.connections.borrow_mut().push(Rc::clone(connection));
        let told = self.waiting.tell_all(connection.key(), || News::LookAgain);
        if told == 0 && self.closed.get() {
            self.clear();
        }
    }

    /// A connection could not be made.
    pub(crate) fn failed(&self, key: PoolKey, error: C::Failure) {
        let error = Rc::new(error);
        self.waiting.tell_all(key, || News::Take(Rc::clone(&error)));
    }

    /// A place in the queue, unless it is too long.
    pub(crate) fn wait(&self, key: PoolKey) -> Option<Waiting<'_, Failed<C>>> {
        self.waiting.join(key)
    }

    /// Whether such a connection is being made.
    pub(crate) fn is_connecting(&self, key: PoolKey) -> bool {
        self.connecting.borrow().contains(&key)
    }

    /// Somebody begins to make a connection.
    pub(crate) fn begin_connecting(&self, key: PoolKey) {
        self.connecting.borrow_mut().push(key);
    }

    /// The connection is made, or will not be.
    pub(crate) fn end_connecting(&self, key: PoolKey) {
        self.connecting.borrow_mut().retain(|k| *k != key);
    }
}

impl<C: Multiplexed> ErasedPool for SharedPool<C> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn close(&self) {
        self.closed.set(true);
        self.clear();
    }

    fn clear(&self) {
        drop(self.connections.take());
    }

    fn sweep(&self, now: Instant, timeout: Option<Duration>) -> usize {
        let mut expired = Vec::new();
        self.connections.borrow_mut().retain(|connection| {
            let idle = connection.idle_since().zip(timeout);
            let keep = connection.is_open()
                && idle.is_none_or(|(since, timeout)| now.saturating_duration_since(since) < timeout);
            if !keep {
                expired.push(Rc::clone(connection));
            }
            keep
        });
        let closed = expired.iter().filter(|connection| connection.is_open()).count();
        drop(expired);
        closed
    }

    fn close_idle(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let idle = connections.iter().position(|c| c.idle_since().is_some());
        let closed = idle.map(|at| connections.remove(at));
        drop(connections);
        closed.is_some()
    }

    fn connection_closed(&self, alone: Option<PoolKey>) {
        // Where one is being made, its outcome is what those who wait for it are told. Nobody may be waiting.
        let may_open = |key| !self.is_connecting(key);
        let _ = self.waiting.tell_first(may_open, News::LookAgain);
        if let Some(alone) = alone.filter(|alone| may_open(*alone)) {
            self.room_was_made(alone);
        }
    }

    fn room_was_made(&self, key: PoolKey) {
        let _ = self.waiting.tell_first(|k| k == key, News::LookAgain);
    }

    fn connection_shared(&self, _: PoolKey) {
        // `add` has told them.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool_key::HttpVersions;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// A connection with room for one request.
    #[derive(Default)]
    struct One {
        used: Cell<bool>,
        ended: Cell<bool>,
    }

    impl Multiplexed for One {
        type Failure = &'static str;

        fn key(&self) -> PoolKey {
            key("one")
        }

        fn is_open(&self) -> bool {
            !self.ended.get()
        }

        fn has_room(&self) -> bool {
            !self.used.get()
        }

        fn idle_since(&self) -> Option<Instant> {
            None
        }
    }

    fn any(_: &One) -> bool {
        true
    }

    fn key(name: &str) -> PoolKey {
        PoolKey::http(HttpVersions::Http2, &name)
    }

    #[test]
    fn a_connection_is_shared_while_it_has_room_and_let_go_when_it_ends() {
        let pool = SharedPool::new();
        let connection = Rc::new(One::default());
        pool.add(&connection);
        assert!(pool.find(any).is_some() && pool.find(|_| false).is_none());
        connection.used.set(true);
        assert!(pool.find(any).is_none());
        connection.ended.set(true);
        assert!(pool.find(any).is_none());
        assert_eq!(Rc::strong_count(&connection), 1);
    }

    /// What somebody has been told: to look again, or of a failure.
    fn hears(waiting: &mut Waiting<'_, Failed<One>>) -> Option<Result<(), &'static str>> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(waiting.news()).poll(&mut context) {
            Poll::Ready(News::LookAgain) => Some(Ok(())),
            Poll::Ready(News::Take(error)) => Some(Err(*error)),
            Poll::Pending => None,
        }
    }

    #[test]
    fn everybody_hears_of_a_failure_and_one_of_room() {
        let pool = SharedPool::<One>::new();
        let mut waiters: Vec<_> = (0..3).filter_map(|_| pool.wait(key("one"))).collect();
        drop(waiters.remove(0));
        pool.room_was_made(key("one"));
        assert_eq!(hears(&mut waiters[0]), Some(Ok(())), "the first that still waits");
        assert_eq!(hears(&mut waiters[1]), None);
        pool.failed(key("one"), "refused");
        assert_eq!(hears(&mut waiters[1]), Some(Err("refused")));
    }

    #[test]
    fn who_waits_for_another_connection_does_not_hear_of_a_failure() {
        let pool = SharedPool::<One>::new();
        let (mut one, mut other) = (pool.wait(key("one")).unwrap(), pool.wait(key("other")).unwrap());
        pool.begin_connecting(key("one"));
        assert!(pool.is_connecting(key("one")) && !pool.is_connecting(key("other")));
        pool.failed(key("one"), "refused");
        assert_eq!((hears(&mut one), hears(&mut other)), (Some(Err("refused")), None));
    }

    #[test]
    fn a_closed_pool_gives_a_connection_to_who_waits_for_it_and_keeps_none() {
        let pool = SharedPool::new();
        pool.close();
        let connection = Rc::new(One::default());
        pool.add(&connection);
        assert_eq!(Rc::strong_count(&connection), 1, "nobody waits");
        let _waiter = pool.wait(key("one"));
        pool.add(&connection);
        let found = pool.find(any);
        assert!(found.is_some_and(|found| Rc::ptr_eq(&found, &connection)));
        assert_eq!(Rc::strong_count(&connection), 1, "it is given away");
    }
}
