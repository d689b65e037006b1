//! Who is looked up when: a lookup of the system's resolver holds a thread until it ends, whoever has stopped to wait
//! for it, so lookups take turns.
//!
//! A name is looked up once at a time, for all who ask. How many are looked up at once is bounded, more narrowly for
//! names of which nothing is known, and still more so for those that were slow: so names that never answer hold no
//! more than their share of the threads, and those that answer are not kept waiting behind them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::{Answer, Resolve, ResolveFuture};
use crate::limits;

/// How the last lookup of a name went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Quick,
    Slow,
}

/// An answer that all who ask can have. Errors are told by kind and text, for they cannot be copied.
type Shared = Result<Answer, (io::ErrorKind, Arc<str>)>;

/// What is known of names. The lock is held for a look or a change only.
#[derive(Debug, Default)]
struct Names {
    /// Names that somebody waits for, or that are being looked up.
    asked: HashMap<Box<str>, watch::Receiver<Option<Shared>>>,
    /// How names fared that were looked up before.
    paces: HashMap<Box<str>, Pace>,
}

/// Lets lookups of another resolver take turns.
#[derive(Clone)]
pub struct Turns {
    resolver: Arc<dyn Resolve>,
    names: Arc<Mutex<Names>>,
    all: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns")
            .field(
                "running",
                &(limits::MAX_DNS_LOOKUPS - self.all.available_permits()),
            )
            .finish_non_exhaustive()
    }
}

/// A lookup that waits for its turn or is under way. When it goes, the name may be asked for anew.
struct Asking {
    names: Arc<Mutex<Names>>,
    name: Box<str>,
    answer: watch::Sender<Option<Shared>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.names.lock().asked.remove(&self.name);
    }
}

impl Asking {
    /// Everybody gets the answer, which took so long.
    fn done(self, result: io::Result<Answer>, took: Duration) {
        let pace = match took < limits::DNS_SLOW_AFTER {
            true => Pace::Quick,
            false => Pace::Slow,
        };
        {
            let paces = &mut self.names.lock().paces;
            if paces.len() >= limits::MAX_DNS_NAMES_KNOWN && !paces.contains_key(&self.name) {
                // Names that are still in use are soon known again.
                paces.clear();
            }
            paces.insert(self.name.clone(), pace);
        }
        let shared = result.map_err(|error| (error.kind(), error.to_string().into()));
        // Nobody may be waiting any more.
        let _ = self.answer.send(Some(shared));
    }
}

/// What somebody who asks for a name does.
enum Role {
    /// Looks it up for all.
    Asks(Asking),
    /// Waits for who does.
    Follows(watch::Receiver<Option<Shared>>),
}

impl Turns {
    /// Lets the lookups of `resolver` take turns.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self {
            resolver,
            names: Arc::default(),
            all: Arc::new(Semaphore::new(limits::MAX_DNS_LOOKUPS)),
            unproven: Arc::new(Semaphore::new(limits::MAX_UNPROVEN_DNS_LOOKUPS)),
            slow: Arc::new(Semaphore::new(limits::MAX_SLOW_DNS_LOOKUPS)),
        }
    }

    fn role(&self, name: &str) -> Role {
        let mut names = self.names.lock();
        if let Some(answer) = names.asked.get(name) {
            return Role::Follows(answer.clone());
        }
        let (sender, receiver) = watch::channel(None);
        names.asked.insert(name.into(), receiver);
        Role::Asks(Asking {
            names: Arc::clone(&self.names),
            name: name.into(),
            answer: sender,
        })
    }

    /// Waits for a place in every lane that the name has to use, the narrowest first, so that nobody holds a place that
    /// others could use.
    async fn turn(&self, name: &str) -> Vec<OwnedSemaphorePermit> {
        let pace = self.names.lock().paces.get(name).copied();
        let lanes: &[&Arc<Semaphore>] = match pace {
            Some(Pace::Quick) => &[&self.all],
            None => &[&self.unproven, &self.all],
            Some(Pace::Slow) => &[&self.slow, &self.unproven, &self.all],
        };
        let mut places = Vec::with_capacity(lanes.len());
        for lane in lanes {
            // The semaphores are never closed.
            places.extend(Arc::clone(lane).acquire_owned().await.ok());
        }
        places
    }

    async fn look_up(&self, name: &str) -> io::Result<Answer> {
        loop {
            let mut answer = match self.role(name) {
                Role::Follows(answer) => answer,
                Role::Asks(asking) => {
                    let places = self.turn(name).await;
                    let answer = asking.answer.subscribe();
                    let resolver = Arc::clone(&self.resolver);
                    // A task of its own keeps the places until the lookup has ended, whoever waits for it.
                    tokio::spawn(async move {
                        let began = Instant::now();
                        let result = resolver.resolve(&asking.name).await;
                        drop(places);
                        asking.done(result, began.elapsed());
                    });
                    answer
                }
            };
            // An error: who was to look it up has stopped to wait for its turn.
            if let Ok(shared) = answer.wait_for(Option::is_some).await
                && let Some(shared) = &*shared
            {
                return shared
                    .clone()
                    .map_err(|(kind, text)| io::Error::new(kind, &*text));
            }
        }
    }
}

impl Resolve for Turns {
    fn resolve<'a>(&'a self, name: &'a str) -> ResolveFuture<'a> {
        Box::pin(self.look_up(name))
    }
}
