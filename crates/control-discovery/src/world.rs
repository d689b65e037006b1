//! The world as it changes: objects in, snapshots out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use control_snapshot::{EndpointChanges, Incoming, Kind, Objects, Settings, Snapshot};
use control_sources::watch::Change;
use diagnostics::Diagnostic;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::debounce::Debounce;
use crate::generate::Assignments;
use crate::limits;
use crate::metrics::Metrics;

/// One published state of the world.
#[derive(Debug)]
pub struct Publication {
    /// Counts publications from 1.
    pub sequence: u64,
    /// The version that responses carry.
    pub version: Arc<str>,
    /// The world.
    pub snapshot: Snapshot,
    /// What was made of its endpoints so far.
    pub assignments: Assignments,
    /// When the first change that it holds came in.
    pub changed_at: Instant,
    /// Which kinds changed, in this publication and in the ones before it.
    history: VecDeque<(u64, BTreeSet<Kind>)>,
    /// Which endpoints differ from those of the publication of that sequence, where that says it all.
    endpoint_changes: Option<(u64, EndpointChanges)>,
}

impl Publication {
    /// Which endpoints differ from those of an earlier publication. `None`: that is not known, or more than endpoints.
    #[must_use]
    pub fn endpoint_changes_since(&self, sequence: u64) -> Option<&EndpointChanges> {
        let (since, changes) = self.endpoint_changes.as_ref()?;
        (*since == sequence).then_some(changes)
    }

    /// The kinds that changed after an earlier publication. `None`: too long ago to tell.
    #[must_use]
    pub fn kinds_since(&self, sequence: u64) -> Option<BTreeSet<Kind>> {
        let oldest = self.history.front().map_or(self.sequence, |(oldest, _)| *oldest);
        if sequence + 1 < oldest {
            return None;
        }
        let later = self.history.iter().filter(|(s, _)| *s > sequence);
        Some(later.flat_map(|(_, kinds)| kinds.iter().copied()).collect())
    }
}

struct State {
    objects: Objects,
    /// The kinds that no watch has listed yet.
    unlisted: BTreeSet<Kind>,
    /// How often objects of each kind have changed since the last publication.
    changes: BTreeMap<Kind, u64>,
    debounce: Debounce,
    ready: bool,
    sequence: u64,
    history: VecDeque<(u64, BTreeSet<Kind>)>,
}

/// What is to be published.
struct Draft {
    objects: Objects,
    sequence: u64,
    changed_at: Instant,
    history: VecDeque<(u64, BTreeSet<Kind>)>,
}

/// Gathers changes and publishes them. Nothing is published before [`World::ready`]: half a world would take
/// configuration away from proxies that have it.
pub struct World {
    state: Mutex<State>,
    changed: Notify,
    /// What is wrong beside the objects themselves, by what it is about.
    notes: Mutex<BTreeMap<String, Diagnostic>>,
    published: watch::Sender<Option<Arc<Publication>>>,
    metrics: Metrics,
    version_prefix: String,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("version_prefix", &self.version_prefix)
            .finish_non_exhaustive()
    }
}

impl World {
    /// An empty world. `started` goes into every version, so that versions of two runs of a control plane differ
    /// (Istio uses the time).
    #[must_use]
    pub fn new(settings: Settings, started: &str) -> Arc<Self> {
        let state = State {
            objects: Objects::new(settings),
            unlisted: Kind::ALL.iter().map(|(kind, ..)| *kind).collect(),
            changes: BTreeMap::new(),
            debounce: Debounce::new(limits::DEBOUNCE_QUIET, limits::DEBOUNCE_MAX),
            ready: false,
            sequence: 0,
            history: VecDeque::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            notes: Mutex::default(),
            published: watch::Sender::new(None),
            metrics: Metrics::default(),
            version_prefix: started.to_owned(),
        })
    }

    /// Says whether workloads can get identities from now on, and publishes what follows from it.
    pub fn set_identity(&self, identity: bool) {
        {
            let mut state = self.state.lock();
            if state.objects.settings().identity == identity {
                return;
            }
            state.objects.set_identity(identity);
            // As if MeshConfig had changed: it concerns every proxy.
            state.touch(Kind::ConfigMap);
        }
        self.changed.notify_one();
    }

    /// Takes in what the watches report. Once they have listed every kind, the world is ready.
    pub fn take(&self, change: Change) {
        match change {
            Change::Apply { kind, object } => drop(self.apply(kind, object)),
            Change::Delete {
                kind,
                namespace,
                name,
            } => self.delete(kind, &namespace, &name),
            Change::Synced { kind } => {
                let complete = {
                    let mut state = self.state.lock();
                    state.unlisted.remove(&kind) && state.unlisted.is_empty()
                };
                if complete {
                    tracing::info!("configuration read");
                    self.ready();
                }
            }
        }
    }

    /// Takes in a new or changed object; what is wrong with it is logged, and returned.
    pub fn apply(&self, kind: Kind, object: Value) -> Option<Diagnostic> {
        // Keys and signatures are looked at while nobody waits.
        let incoming = Incoming::read(kind, object);
        let diagnostic = {
            let mut state = self.state.lock();
            if !state.objects.concerned_by(&incoming) {
                return None;
            }
            let diagnostic = state.objects.take(incoming);
            state.touch(kind);
            diagnostic
        };
        if let Some(diagnostic) = &diagnostic {
            tracing::warn!(resource = %diagnostic.resource, field = %diagnostic.field, "{}", diagnostic.message);
        }
        self.changed.notify_one();
        diagnostic
    }

    /// Takes an object out.
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        {
            let mut state = self.state.lock();
            if !state.objects.knows(kind, namespace, name) {
                return;
            }
            state.objects.delete(kind, namespace, name);
            state.touch(kind);
        }
        self.changed.notify_one();
    }

    /// Says what is wrong about something that no object of the world tells, or that nothing is any more. It is
    /// published as a change is, so that whoever shows diagnostics looks again. Returns whether that is news.
    pub fn note(&self, about: &str, diagnostic: Option<Diagnostic>) -> bool {
        let changed = {
            let mut notes = self.notes.lock();
            let before = match diagnostic.clone() {
                Some(diagnostic) => notes.insert(about.to_owned(), diagnostic),
                None => notes.remove(about),
            };
            before != diagnostic
        };
        if changed {
            self.state.lock().debounce.changed(Instant::now());
            self.changed.notify_one();
        }
        changed
    }

    /// What [`World::note`] was told.
    #[must_use]
    pub fn notes(&self) -> Vec<Diagnostic> {
        self.notes.lock().values().cloned().collect()
    }

    /// Reads the current objects.
    pub fn read<T>(&self, read: impl FnOnce(&Objects) -> T) -> T {
        read(&self.state.lock().objects)
    }

    /// Everything that exists has been taken in: publish from now on.
    pub fn ready(&self) {
        {
            let mut state = self.state.lock();
            state.ready = true;
            state.debounce.changed(Instant::now());
        }
        self.changed.notify_one();
    }

    /// The last publication, and those to come.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Publication>>> {
        self.published.subscribe()
    }

    /// The last publication.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Publication>> {
        self.published.borrow().clone()
    }

    /// What is counted of it and of those that serve it.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Publishes changes as they come, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let due = {
                let state = self.state.lock();
                state.debounce.due().filter(|_| state.ready)
            };
            match due {
                None => self.changed.notified().await,
                Some(due) if due > Instant::now() => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = self.changed.notified() => {}
                },
                Some(_) => self.publish(),
            }
        }
    }

    /// Publishes at once what has changed, without waiting for quiet.
    pub(crate) fn publish(&self) {
        let draft = self.draft();
        self.commit(draft);
    }

    /// Takes what has changed, to publish it.
    fn draft(&self) -> Draft {
        let mut state = self.state.lock();
        let changed_at = state.debounce.take().unwrap_or_else(Instant::now);
        let changes = std::mem::take(&mut state.changes);
        for (kind, count) in &changes {
            self.metrics.triggered(*kind, *count);
        }
        self.metrics.debounced(changed_at.elapsed());
        state.sequence += 1;
        let sequence = state.sequence;
        state.history.push_back((sequence, changes.into_keys().collect()));
        if state.history.len() > limits::PUBLICATION_HISTORY {
            state.history.pop_front();
        }
        Draft {
            objects: state.objects.clone(),
            sequence,
            changed_at,
            history: state.history.clone(),
        }
    }

    /// Publishes a draft, unless a later one is out already: it holds everything that this one does.
    fn commit(&self, draft: Draft) {
        let began_at = Instant::now();
        let before = self.current();
        let snapshot =
            Snapshot::build_after(before.as_deref().map(|before| &before.snapshot), &draft.objects);
        let endpoint_changes = before.and_then(|before| {
            let changes = EndpointChanges::between(&before.snapshot, &snapshot)?;
            Some((before.sequence, changes))
        });
        self.metrics.snapshot_built(began_at.elapsed());
        let sequence = draft.sequence;
        let publication = Arc::new(Publication {
            sequence,
            version: format!("{}/{sequence}", self.version_prefix).into(),
            snapshot,
            assignments: Assignments::default(),
            changed_at: draft.changed_at,
            history: draft.history,
            endpoint_changes,
        });
        let published = self.published.send_if_modified(|current| {
            let later = current.as_ref().is_none_or(|current| current.sequence < sequence);
            if later {
                *current = Some(publication);
            }
            later
        });
        tracing::debug!(sequence, published, "snapshot built");
    }
}

impl State {
    fn touch(&mut self, kind: Kind) {
        *self.changes.entry(kind).or_default() += 1;
        self.debounce.changed(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn namespace(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_published_before_the_world_is_complete() {
        let world = World::new(Settings::default(), "t");
        let running = tokio::spawn(Arc::clone(&world).run());
        world.apply(Kind::Namespace, namespace("a"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(world.current().is_none());
        world.ready();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(&*world.current().expect("published").version, "t/1");
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_publication_that_says_which_kinds_changed() {
        let world = World::new(Settings::default(), "t");
        world.ready();
        world.publish();
        let running = tokio::spawn(Arc::clone(&world).run());
        for index in 0..100 {
            world.apply(Kind::Namespace, namespace(&format!("n{index}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.delete(Kind::Pod, "a", "b");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let publication = world.current().expect("published");
        assert_eq!(publication.sequence, 3);
        assert_eq!(publication.kinds_since(2), Some(BTreeSet::from([Kind::Pod])));
        assert_eq!(
            publication.kinds_since(1),
            Some(BTreeSet::from([Kind::Namespace, Kind::Pod]))
        );
        running.abort();
    }

    #[test]
    fn an_older_snapshot_that_is_ready_later_does_not_take_the_place_of_a_newer_one() {
        let world = World::new(Settings::default(), "t");
        world.apply(Kind::Namespace, namespace("a"));
        let older = world.draft();
        world.apply(Kind::Namespace, namespace("b"));
        let newer = world.draft();
        let seen = world.subscribe();
        world.commit(newer);
        world.commit(older);
        let publication = seen.borrow().clone().expect("published");
        assert_eq!(publication.sequence, 2);
        assert_eq!(
            publication.kinds_since(0),
            Some(BTreeSet::from([Kind::Namespace]))
        );
    }

    #[test]
    fn identities_that_come_later_are_published_as_a_change_of_the_whole_mesh() {
        let world = World::new(Settings::default(), "t");
        world.ready();
        world.publish();
        world.set_identity(false);
        assert!(world.state.lock().changes.is_empty());
        world.set_identity(true);
        world.publish();
        let publication = world.current().expect("published");
        assert!(publication.snapshot.settings().identity);
        assert_eq!(
            publication.kinds_since(publication.sequence - 1),
            Some(BTreeSet::from([Kind::ConfigMap]))
        );
    }

    #[test]
    fn config_maps_of_others_are_no_reason_to_publish() {
        let world = World::new(Settings::default(), "t");
        let map = |data: Value| json!({"metadata": {"name": "a", "namespace": "b"}, "data": data});
        let touched = || std::mem::take(&mut world.state.lock().changes).len();
        world.apply(Kind::ConfigMap, map(json!({"leader": "me"})));
        world.delete(Kind::ConfigMap, "b", "a");
        assert_eq!(touched(), 0);
        world.apply(Kind::ConfigMap, map(json!({"ca.crt": "damaged"})));
        assert_eq!(touched(), 1);
        world.apply(Kind::ConfigMap, map(json!({"leader": "me"})));
        assert_eq!(touched(), 1, "it has no authorities any more");
        world.delete(Kind::ConfigMap, "b", "a");
        assert_eq!(touched(), 0);
    }

    #[test]
    fn a_world_is_ready_once_every_kind_was_listed() {
        let world = World::new(Settings::default(), "t");
        let (last, others) = Kind::ALL.split_last().expect("there are kinds");
        for (kind, ..) in others {
            world.take(Change::Synced { kind: *kind });
        }
        assert!(!world.state.lock().ready);
        world.take(Change::Synced { kind: last.0 });
        assert!(world.state.lock().ready);
    }

    #[test]
    fn a_stream_that_lags_too_far_behind_cannot_tell_what_changed() {
        let world = World::new(Settings::default(), "t");
        for _ in 0..limits::PUBLICATION_HISTORY + 2 {
            world.publish();
        }
        let publication = world.current().expect("published");
        assert_eq!(publication.kinds_since(1), None);
        assert!(publication.kinds_since(publication.sequence - 1).is_some());
    }
}
