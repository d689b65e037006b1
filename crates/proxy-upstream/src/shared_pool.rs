//! Upstream connections of one host on one worker that carry many requests at a time (HTTP/2).
//!
//! As in Envoy's pool a request takes the first connection that has room. When none has, one connection is opened for
//! all who wait, and if it cannot be made, all of them have failed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::limits;
use crate::pool::ErasedPool;

/// A connection that carries many requests at a time.
pub trait Multiplexed: 'static {
    /// Why one could not be made.
    type Failure: 'static;

    /// Whether it still takes requests, now or when one on it has ended.
    fn is_open(&self) -> bool;
    /// Whether it takes another request now.
    fn has_room(&self) -> bool;
    /// Since when no request is on it.
    fn idle_since(&self) -> Option<Instant>;
}

/// What is told to those who wait: that they may look again, or why there will be no connection.
type News<C> = Result<(), Rc<<C as Multiplexed>::Failure>>;

/// Shared connections of type `C`.
pub struct SharedPool<C: Multiplexed> {
    connections: RefCell<Vec<Rc<C>>>,
    connecting: Cell<bool>,
    waiting: RefCell<VecDeque<oneshot::Sender<News<C>>>>,
    closed: Cell<bool>,
}

impl<C: Multiplexed> std::fmt::Debug for SharedPool<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedPool")
            .field("connections", &self.connections.borrow().len())
            .field("waiting", &self.waiting.borrow().len())
            .finish_non_exhaustive()
    }
}

impl<C: Multiplexed> SharedPool<C> {
    pub(crate) fn new() -> Self {
        Self {
            connections: RefCell::default(),
            connecting: Cell::new(false),
            waiting: RefCell::default(),
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

    /// Takes a connection in, and tells those who wait. A closed pool takes one only for somebody who waits for it.
    pub fn add(&self, connection: &Rc<C>) {
        self.connecting.set(false);
        self.connections.borrow_mut().push(Rc::clone(connection));
        let told = self.tell_all(&Ok(()));
        if told == 0 && self.closed.get() {
            self.clear();
        }
    }

    /// A connection could not be made.
    pub fn failed(&self, error: C::Failure) {
        self.connecting.set(false);
        self.tell_all(&Err(Rc::new(error)));
    }

    /// A request has ended: the first that waits may look again.
    pub fn room_was_made(&self) {
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            if waiter.send(Ok(())).is_ok() {
                return;
            }
        }
    }

    /// Gives the number of those who still waited.
    fn tell_all(&self, news: &News<C>) -> usize {
        let waiting = self.waiting.take().into_iter();
        waiting
            .filter_map(|waiter| waiter.send(news.clone()).ok())
            .count()
    }

    /// Waits in the queue for news, unless it is too long.
    pub(crate) fn wait(&self) -> Option<oneshot::Receiver<News<C>>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= limits::MAX_WAITING_REQUESTS {
            return None;
        }
        waiting.push_back(sender);
        Some(receiver)
    }

    /// Whether a connection is being made.
    pub(crate) fn is_connecting(&self) -> bool {
        self.connecting.get()
    }

    /// Somebody begins to make a connection.
    pub(crate) fn begin_connecting(&self) {
        self.connecting.set(true);
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

    fn connection_closed(&self) {
        // While one is being made, its outcome is what those who wait are told.
        if !self.connecting.get() {
            self.room_was_made();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection with room for one request.
    #[derive(Default)]
    struct One {
        used: Cell<bool>,
        ended: Cell<bool>,
    }

    impl Multiplexed for One {
        type Failure = &'static str;

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

    #[test]
    fn everybody_hears_of_a_failure_and_one_of_room() {
        let pool = SharedPool::<One>::new();
        let mut waiters: Vec<_> = (0..3).filter_map(|_| pool.wait()).collect();
        drop(waiters.remove(0));
        pool.room_was_made();
        assert!(
            matches!(waiters[0].try_recv(), Ok(Ok(()))),
            "the first that still waits"
        );
        assert!(waiters[1].try_recv().is_err());
        pool.failed("refused");
        assert!(matches!(waiters[1].try_recv(), Ok(Err(reason)) if *reason == "refused"));
    }

    #[test]
    fn a_closed_pool_gives_a_connection_to_who_waits_for_it_and_keeps_none() {
        let pool = SharedPool::new();
        pool.close();
        let connection = Rc::new(One::default());
        pool.add(&connection);
        assert_eq!(Rc::strong_count(&connection), 1, "nobody waits");
        let _waiter = pool.wait();
        pool.add(&connection);
        let found = pool.find(any);
        assert!(found.is_some_and(|found| Rc::ptr_eq(&found, &connection)));
        assert_eq!(Rc::strong_count(&connection), 1, "it is given away");
    }
}
