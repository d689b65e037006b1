//! Requests that wait for a connection to a host, in order.
//!
//! A request keeps its place until it goes, whatever it is told meanwhile. What it has not heard when it goes, the next
//! one is told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use crate::limits;
use crate::pool_key::PoolKey;

/// What somebody who waits is told.
#[derive(Debug)]
pub(crate) enum News<T> {
    /// Something has changed: look again for a connection, or for room to open one.
    LookAgain,
    /// This is for the one who waits alone.
    Take(T),
}

struct Place<T> {
    key: PoolKey,
    news: Option<News<T>>,
    waker: Option<Waker>,
}

/// The queue. At most [`limits::MAX_WAITING_REQUESTS`] wait in it.
pub(crate) struct WaitQueue<T> {
    next: Cell<u64>,
    places: RefCell<BTreeMap<u64, Place<T>>>,
}

impl<T> Default for WaitQueue<T> {
    fn default() -> Self {
        Self {
            next: Cell::new(0),
            places: RefCell::default(),
        }
    }
}

impl<T> WaitQueue<T> {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.places.borrow().len()
    }

    /// Takes the last place, for a connection of `key`; none, when too many wait.
    pub(crate) fn join(&self, key: PoolKey) -> Option<Waiting<'_, T>> {
        if self.len() >= limits::MAX_WAITING_REQUESTS {
            return None;
        }
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        let place = Place {
            key,
            news: None,
            waker: None,
        };
        self.places.borrow_mut().insert(ticket, place);
        Some(Waiting {
            queue: self,
            ticket,
            key,
        })
    }

    /// Tells the first who waits for a `wanted` connection and has heard nothing yet. Without one the news come back.
    pub(crate) fn tell_first(&self, wanted: impl Fn(PoolKey) -> bool, news: News<T>) -> Result<(), News<T>> {
        let mut places = self.places.borrow_mut();
        let first = places.values_mut().find(|p| p.news.is_none() && wanted(p.key));
        let Some(place) = first else {
            return Err(news);
        };
        place.news = Some(news);
        let waker = place.waker.take();
        drop(places);
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Tells all who wait for a connection of `key` and have heard nothing yet; the number of those who wait for one.
    pub(crate) fn tell_all(&self, key: PoolKey, news: impl Fn() -> News<T>) -> usize {
        let mut wakers = Vec::new();
        let mut told = 0;
        for place in self.places.borrow_mut().values_mut().filter(|p| p.key == key) {
            told += 1;
            place.news.get_or_insert_with(&news);
            wakers.extend(place.waker.take());
        }
        wakers.into_iter().for_each(Waker::wake);
        told
    }
}

/// A place in the queue. Dropped, it is given up.
pub(crate) struct Waiting<'a, T> {
    queue: &'a WaitQueue<T>,
    ticket: u64,
    key: PoolKey,
}

impl<T> Waiting<'_, T> {
    /// Waits for the next news.
    pub(crate) async fn news(&mut self) -> News<T> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<News<T>> {
        let mut places = self.queue.places.borrow_mut();
        let Some(place) = places.get_mut(&self.ticket) else {
            return Poll::Ready(News::LookAgain);
        };
        match place.news.take() {
            Some(news) => Poll::Ready(news),
            None => {
                place.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        // Taken out first: what it was given may look at the queue again when it is dropped.
        let place = self.queue.places.borrow_mut().remove(&self.ticket);
        if let Some(Place {
            news: Some(News::LookAgain),
            ..
        }) = place
            && let Err(news) = self.queue.tell_first(|key| key == self.key, News::LookAgain)
        {
            // Nobody waits at all.
            let _ = self.queue.tell_first(|_| true, news);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool_key::HttpVersions;

    fn key(name: &str) -> PoolKey {
        PoolKey::http(HttpVersions::Http2, &name)
    }

    fn hears(waiting: &Waiting<'_, u32>) -> Option<News<u32>> {
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(news) => Some(news),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let queue = WaitQueue::<u32>::default();
        (0..1000).for_each(|_| drop(queue.join(key("a"))));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn the_queue_is_bounded_by_those_who_still_wait() {
        let queue = WaitQueue::<u32>::default();
        let join = || queue.join(key("a"));
        let mut all: Vec<_> = (0..limits::MAX_WAITING_REQUESTS).map_while(|_| join()).collect();
        assert_eq!(all.len(), limits::MAX_WAITING_REQUESTS);
        assert!(join().is_none());
        all.pop();
        assert!(join().is_some());
    }

    #[test]
    fn news_go_to_the_first_who_waits_for_them_and_has_heard_none() {
        let queue = WaitQueue::<u32>::default();
        let (a, b, c) = (queue.join(key("a")), queue.join(key("b")), queue.join(key("b")));
        let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
        let tell = |number| queue.tell_first(|k| k == key("b"), News::Take(number));
        assert!(tell(1).is_ok() && tell(2).is_ok());
        assert!(matches!(tell(3), Err(News::Take(3))));
        assert!(hears(&a).is_none());
        assert!(matches!(
            (hears(&b), hears(&c)),
            (Some(News::Take(1)), Some(News::Take(2)))
        ));
        assert!(tell(4).is_ok());
        assert!(matches!(hears(&b), Some(News::Take(4))), "it has kept its place");
    }

    #[test]
    fn what_nobody_heard_the_next_one_is_told() {
        let queue = WaitQueue::<u32>::default();
        let (first, other, second) = (queue.join(key("a")), queue.join(key("b")), queue.join(key("a")));
        let (other, second) = (other.unwrap(), second.unwrap());
        assert!(queue.tell_first(|_| true, News::LookAgain).is_ok());
        drop(first);
        assert!(hears(&other).is_none());
        assert!(matches!(hears(&second), Some(News::LookAgain)));
    }
}
