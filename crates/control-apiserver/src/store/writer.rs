//! The one thread that changes the store: it takes the writes that wait, commits them together and answers them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::history::{Event, EventKind, History};
use super::{Change, Disk, Expected, Key, Object, Shared, StoreError};
use crate::limits;

type Reply = oneshot::Sender<Result<Arc<Object>, StoreError>>;

/// A change that waits.
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) expected: Expected,
    pub(super) change: Change,
    pub(super) reply: Reply,
}

/// What the thread is asked to do.
pub(super) enum Command {
    Write(Write),
    Close,
}

/// A change that was accepted and is part of the next commit.
struct Accepted {
    event: Event,
    reply: Reply,
}

pub(super) struct Writer {
    disk: Disk,
    shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn new(disk: Disk, shared: Arc<Shared>) -> Self {
        Self { disk, shared }
    }

    /// Runs until the store is closed or nobody holds it any more.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut writes = Vec::new();
            let mut closing = false;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Write(write) => writes.push(write),
                    Command::Close => closing = true,
                }
                let more = !closing && writes.len() < limits::COMMIT_BATCH;
                next = if more { commands.try_recv().ok() } else { None };
            }
            self.process(writes);
            if closing {
                break;
            }
        }
    }

    fn process(&mut self, writes: Vec<Write>) {
        if self.disk.is_closed()
            && let Err(error) = self.recover()
        {
            for write in writes {
                answer(write.reply, Err(error.clone()));
            }
            return;
        }
        let accepted = self.accept(writes);
        if accepted.is_empty() {
            return;
        }
        let revision = accepted.last().map_or(0, |last| last.event.object.revision());
        let rows: Vec<_> = accepted
            .iter()
            .map(|change| {
                let object = &change.event.object;
                let body = (change.event.kind != EventKind::Deleted).then(|| object.body());
                (object.key().as_str(), body)
            })
            .collect();
        match self.disk.commit(revision, &rows) {
            Ok(()) => self.publish(revision, accepted),
            Err(error) => {
                tracing::error!(%error, "a change could not be stored");
                for change in accepted {
                    answer(change.reply, Err(error.clone()));
                }
            }
        }
    }

    /// Opens the database again. When a commit reached the disk although it reported an error, the disk is right:
    /// its state becomes ours, and every watch has to start over.
    fn recover(&mut self) -> Result<(), StoreError> {
        let loaded = self.disk.reopen()?;
        let mut state = self.shared.state.write();
        if loaded.revision != state.revision {
            state.revision = loaded.revision;
            state.objects = loaded.objects;
            state.history = History::new(loaded.revision);
        }
        Ok(())
    }

    /// Checks each write against the state that the writes before it leave, and gives it a revision.
    fn accept(&self, writes: Vec<Write>) -> Vec<Accepted> {
        let state = self.shared.state.read();
        let mut revision = state.revision;
        let mut pending: HashMap<Key, Option<Arc<Object>>> = HashMap::new();
        let mut accepted = Vec::new();
        for write in writes {
            let Write {
                key,
                expected,
                change,
                reply,
            } = write;
            let current = match pending.get(&key) {
                Some(pending) => pending.clone(),
                None => state.objects.get(&key).cloned(),
            };
            match apply(&key, current, expected, change, revision + 1) {
                Ok(event) => {
                    revision += 1;
                    let after = (event.kind != EventKind::Deleted).then(|| Arc::clone(&event.object));
                    pending.insert(key, after);
                    accepted.push(Accepted { event, reply });
                }
                Err(error) => answer(reply, Err(error)),
            }
        }
        accepted
    }

    fn publish(&self, revision: u64, accepted: Vec<Accepted>) {
        let mut replies = Vec::with_capacity(accepted.len());
        {
            let mut state = self.shared.state.write();
            for change in accepted {
                let object = Arc::clone(&change.event.object);
                if change.event.kind == EventKind::Deleted {
                    state.objects.remove(object.key());
                } else {
                    state.objects.insert(object.key().clone(), Arc::clone(&object));
                }
                state.history.push(change.event);
                replies.push((change.reply, object));
            }
            state.revision = revision;
        }
        self.shared.revision.send_replace(revision);
        for (reply, object) in replies {
            answer(reply, Ok(object));
        }
    }
}

fn apply(
    key: &Key,
    current: Option<Arc<Object>>,
    expected: Expected,
    change: Change,
    revision: u64,
) -> Result<Event, StoreError> {
    match (expected, &current) {
        (Expected::Absent, None) => {}
        (Expected::Absent, Some(_)) => return Err(StoreError::Exists),
        (Expected::Revision(_), None) => return Err(StoreError::Missing),
        (Expected::Revision(revision), Some(object)) if object.revision() == revision => {}
        (Expected::Revision(_), Some(_)) => return Err(StoreError::Conflict),
    }
    let (kind, value) = match change {
        Change::Put(value) if current.is_none() => (EventKind::Added, value),
        Change::Put(value) => (EventKind::Modified, value),
        Change::Remove(value) => (EventKind::Deleted, value),
    };
    let object = Arc::new(Object::seal(key.clone(), revision, value)?);
    Ok(Event {
        kind,
        object,
        previous: current,
    })
}

/// The one who asked may have gone away; the change stands all the same.
fn answer(reply: Reply, result: Result<Arc<Object>, StoreError>) {
    let _receiver_gone = reply.send(result);
}
