//! The object store: all objects in memory, every change on disk before it is acknowledged.
//!
//! It plays etcd's role behind the API: one revision counter for everything, compare-and-swap writes, and a bounded
//! history from which watches are served. Reads never touch the disk, so they go on when it is full or broken.

#[cfg(test)]
pub(crate) mod breakable;
mod disk;
mod history;
mod object;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::limits;

pub(crate) use disk::Disk;
#[cfg(test)]
pub(crate) use disk::OpenDatabase;
pub(crate) use history::{Event, EventKind};
pub(crate) use object::Object;

use history::History;
use writer::{Command, Writer};

/// Where an object lives: `group/plural/namespace/name`. The core group and cluster scope are empty segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(Arc<str>);

impl Key {
    pub(crate) fn new(resource: &ResourcePrefix, namespace: &str, name: &str) -> Self {
        Self(format!("{}{namespace}/{name}", resource.0).into())
    }

    fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The resource this key belongs to.
    pub(crate) fn resource(&self) -> ResourcePrefix {
        let end = self
            .0
            .match_indices('/')
            .nth(1)
            .map_or(self.0.len(), |(at, _)| at + 1);
        ResourcePrefix(self.0[..end].into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// `group/plural/`, the beginning of all keys of one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ResourcePrefix(Arc<str>);

impl ResourcePrefix {
    pub(crate) fn new(group: &str, plural: &str) -> Self {
        Self(format!("{group}/{plural}/").into())
    }

    /// Group and plural name.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.0.trim_end_matches('/').split_once('/').unwrap_or(("", ""))
    }
}

/// What must be true of the stored object for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// There is none.
    Absent,
    /// It has exactly this revision.
    Revision(u64),
}

/// A change of one object. Values are whole objects without `apiVersion` and `kind`.
#[derive(Debug)]
pub(crate) enum Change {
    /// Store this.
    Put(Value),
    /// Remove the object; this is its last state, which watchers are told.
    Remove(Value),
}

/// Why a write did not happen. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the object exists")]
    Exists,
    #[error("the object is missing")]
    Missing,
    #[error("the object was changed")]
    Conflict,
    #[error("{0}")]
    Full(String),
    #[error("{0}")]
    Io(String),
    #[error("the store is closed")]
    Closed,
}

/// Objects of one resource as of one revision.
pub(crate) struct Listing {
    pub(crate) revision: u64,
    pub(crate) objects: Vec<Arc<Object>>,
}

/// The asked-for past is no longer known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    /// The oldest revision that can still be asked for.
    pub(crate) oldest: u64,
}

struct State {
    revision: u64,
    objects: BTreeMap<Key, Arc<Object>>,
    history: History,
}

impl State {
    fn range<'s>(
        &'s self,
        resource: &ResourcePrefix,
        namespace: &str,
    ) -> impl Iterator<Item = &'s Arc<Object>> {
        let start: Arc<str> = if namespace.is_empty() {
            Arc::clone(&resource.0)
        } else {
            format!("{}{namespace}/", resource.0).into()
        };
        self.objects
            .range(Key(Arc::clone(&start))..)
            .take_while(move |(key, _)| key.0.starts_with(&*start))
            .map(|(_, object)| object)
    }
}

struct Shared {
    state: RwLock<State>,
    revision: watch::Sender<u64>,
}

/// A handle to the store; clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl Store {
    /// Opens the database file at `path`, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::start(Disk::open(disk::file(path))?)
    }

    /// Opens the store over any database, for tests of broken disks.
    #[cfg(test)]
    pub(crate) fn open_database(open: OpenDatabase) -> Result<Self, StoreError> {
        Self::start(Disk::open(open)?)
    }

    fn start(disk: Disk) -> Result<Self, StoreError> {
        let loaded = disk.load()?;
        let state = State {
            revision: loaded.revision,
            objects: loaded.objects,
            history: History::new(loaded.revision),
        };
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            revision: watch::Sender::new(loaded.revision),
        });
        let (commands, received) = mpsc::channel(limits::WRITE_QUEUE);
        let writer = Writer::new(disk, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("apiserver-store".to_owned())
            .spawn(move || writer.run(received))
            .map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self {
            shared,
            commands,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Finishes the writes that are under way and releases the database file.
    pub(crate) async fn close(&self) {
        let _already_closed = self.commands.send(Command::Close).await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the store's writer thread panicked");
            }
        }
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> u64 {
        self.shared.state.read().revision
    }

    /// Signals every new revision.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// All objects of a resource, in key order; `namespace` may be empty for all namespaces.
    pub(crate) fn list(&self, resource: &ResourcePrefix, namespace: &str) -> Listing {
        let state = self.shared.state.read();
        Listing {
            revision: state.revision,
            objects: state.range(resource, namespace).cloned().collect(),
        }
    }

    /// As [`Store::list`], but as things were at `revision`.
    pub(crate) fn list_at(
        &self,
        resource: &ResourcePrefix,
        namespace: &str,
        revision: u64,
    ) -> Result<Listing, Expired> {
        let state = self.shared.state.read();
        if revision == state.revision {
            return Ok(Listing {
                revision,
                objects: state.range(resource, namespace).cloned().collect(),
            });
        }
        let mut objects: BTreeMap<Key, Arc<Object>> = state
            .range(resource, namespace)
            .map(|object| (object.key().clone(), Arc::clone(object)))
            .collect();
        for event in state.history.since(resource, revision)?.iter().rev() {
            if !namespace.is_empty() && event.object.namespace() != namespace {
                continue;
            }
            match &event.previous {
                Some(previous) => objects.insert(previous.key().clone(), Arc::clone(previous)),
                None => objects.remove(event.object.key()),
            };
        }
        Ok(Listing {
            revision,
            objects: objects.into_values().collect(),
        })
    }

    /// Every object of every resource.
    pub(crate) fn all(&self) -> Vec<Arc<Object>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    /// Events of a resource after `revision`, oldest first, and the revision up to which this is complete.
    pub(crate) fn events_since(
        &self,
        resource: &ResourcePrefix,
        revision: u64,
    ) -> Result<(Vec<Event>, u64), Expired> {
        let state = self.shared.state.read();
        Ok((state.history.since(resource, revision)?, state.revision))
    }

    /// Makes one change durable and visible. Cancelling the future does not undo a change that was handed over.
    pub(crate) async fn write(
        &self,
        key: Key,
        expected: Expected,
        change: Change,
    ) -> Result<Arc<Object>, StoreError> {
        let (reply, answered) = oneshot::channel();
        let command = Command::Write(writer::Write {
            key,
            expected,
            change,
            reply,
        });
        self.commands
            .send(command)
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

#[cfg(test)]
mod tests;
