//! Auto-registration of workloads (Istio's "VM auto-registration"): a proxy whose node says `AUTO_REGISTER_GROUP` gets a
//! WorkloadEntry made from that WorkloadGroup's template. The entry lives as long as one of the workload's streams is
//! open, and a grace period more. What the workload's agent reports about its health becomes the entry's condition
//! `Healthy`.

mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control_snapshot::Kind;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use entry::{Announcement, Belonging};
use entry::{CONTROLLER, DISCONNECTED_AT, GROUP};

use crate::write::{self, ObjectRef, WriteError};
use crate::{Client, limits};

/// What happens on ADS streams, as far as registration cares. Events of a stream that was never announced are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A stream of a workload has opened.
    Connected {
        /// Names the stream in later events.
        stream: u64,
        /// Who it is.
        announcement: Announcement,
    },
    /// The stream is gone.
    Disconnected {
        /// The stream.
        stream: u64,
    },
    /// The workload's agent has looked.
    Health {
        /// The stream.
        stream: u64,
        /// Whether it may get traffic.
        healthy: bool,
        /// Why not.
        message: String,
    },
}

/// How the registrar behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who registers; written into `istio.io/workloadController`.
    pub controller: String,
    /// How long an entry outlives its last stream.
    pub grace: Duration,
    /// How long an entry that was there before this process waits for its workload to come back.
    pub orphan_grace: Duration,
    /// The wall clock.
    pub clock: fn() -> OffsetDateTime,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            controller: "lateen".to_owned(),
            grace: limits::REGISTRATION_GRACE,
            orphan_grace: limits::ORPHAN_GRACE,
            clock: OffsetDateTime::now_utc,
        }
    }
}

/// Hands stream events to the registrar. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registrar(mpsc::Sender<StreamEvent>);

impl Registrar {
    /// A registrar, and what it does, to be spawned; it ends when every clone of the returned handle is gone.
    pub fn start(client: Client, settings: Settings) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (this, events) = Self::queue();
        let task = Task {
            client,
            settings,
            streams: BTreeMap::new(),
            entries: BTreeMap::new(),
            retry_at: None,
        };
        (this, task.run(events))
    }

    /// A registrar whose events somebody else takes.
    #[must_use]
    pub fn queue() -> (Self, mpsc::Receiver<StreamEvent>) {
        let (sender, events) = mpsc::channel(limits::REGISTRATION_QUEUE);
        (Self(sender), events)
    }

    /// Reports an event, waiting for room.
    pub async fn report(&self, event: StreamEvent) {
        if self.0.send(event).await.is_err() {
            tracing::debug!("the registrar has stopped");
        }
    }
}

type Key = (String, String);

#[derive(Default)]
struct Registered {
    streams: BTreeSet<u64>,
    /// When to remove the entry, while it has no streams.
    expires: Option<Instant>,
    /// Whether the entry still has to be written, because its group was missing or the API server was away.
    unwritten: bool,
}

struct Task {
    client: Client,
    settings: Settings,
    streams: BTreeMap<u64, Announcement>,
    entries: BTreeMap<Key, Registered>,
    /// When entries that could not be written are tried again. Kept while events come in: they must not put it off.
    retry_at: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut events: mpsc::Receiver<StreamEvent>) {
        self.adopt().await;
        loop {
            let wake = self.next_wake();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => return,
                },
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    self.expire().await;
                    if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                        self.retry_at = None;
                        self.write_pending().await;
                    }
                }
            }
        }
    }

    fn next_wake(&mut self) -> Option<Instant> {
        let unwritten = self.entries.values().any(|e| e.unwritten);
        let in_a_while = || Instant::now() + limits::PENDING_RETRY;
        self.retry_at = unwritten.then(|| self.retry_at.unwrap_or_else(in_a_while));
        let expiries = self.entries.values().filter_map(|e| e.expires);
        expiries.chain(self.retry_at).min()
    }

    /// Entries of an earlier life of this process wait for their workloads to come back.
    async fn adopt(&mut self) {
        let kind = entry::reference("", "");
        let found = retrying(|| write::list(&self.client, &kind)).await;
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "cannot list WorkloadEntries registered earlier");
            Vec::new()
        });
        for object in found {
            let annotation = |key: &str| object["metadata"]["annotations"][key].as_str().is_some();
            if let (true, Ok(reference)) = (annotation(GROUP), ObjectRef::of(&object)) {
                let expires = Some(Instant::now() + self.settings.orphan_grace);
                let key = (reference.namespace, reference.name);
                self.entries.insert(
                    key,
                    Registered {
                        expires,
                        ..Registered::default()
                    },
                );
            }
        }
    }

    async fn handle(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Connected { stream, announcement } => self.connected(stream, announcement).await,
            StreamEvent::Disconnected { stream } => self.disconnected(stream).await,
            StreamEvent::Health {
                stream,
                healthy,
                message,
            } => {
                let Some(announcement) = self.streams.get(&stream) else {
                    return;
                };
                let reference = announcement.entry();
                let written = retrying(|| self.write_health(&reference, healthy, &message)).await;
                if let Err(error) = written {
                    tracing::warn!(entry = %reference, %error, "health not recorded");
                }
            }
        }
    }

    async fn connected(&mut self, stream: u64, announcement: Announcement) {
        let key = announcement.key();
        let registers = matches!(announcement.belonging, Belonging::Group(_));
        self.streams.insert(stream, announcement);
        if registers {
            let registered = self.entries.entry(key.clone()).or_default();
            registered.expires = None;
            if registered.streams.insert(stream) && registered.streams.len() == 1 {
                registered.unwritten = true;
                self.write_entry(&key).await;
            }
        }
    }

    async fn disconnected(&mut self, stream: u64) {
        let Some(announcement) = self.streams.remove(&stream) else {
            return;
        };
        let key = announcement.key();
        let Some(registered) = self.entries.get_mut(&key) else {
            return;
        };
        if !registered.streams.remove(&stream) || !registered.streams.is_empty() {
            return;
        }
        registered.expires = Some(Instant::now() + self.settings.grace);
        registered.unwritten = false;
        let at = entry::timestamp((self.settings.clock)());
        let patch = json!({"metadata": {"annotations": {CONTROLLER: null, DISCONNECTED_AT: at}}});
        let reference = announcement.entry();
        if let Err(error) = retrying(|| write::patch(&self.client, &reference, &patch)).await {
            tracing::debug!(entry = %reference, %error, "disconnection not recorded");
        }
    }

    async fn write_pending(&mut self) {
        let pending: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, e)| e.unwritten)
            .map(|(k, _)| k.clone())
            .collect();
        for key in pending {
            self.write_entry(&key).await;
        }
    }

    async fn write_entry(&mut self, key: &Key) {
        let Some(registered) = self.entries.get(key) else {
            return;
        };
        let Some(announcement) = registered.streams.iter().find_map(|s| self.streams.get(s)) else {
            return;
        };
        match retrying(|| self.register(announcement)).await {
            Ok(()) => {
                tracing::info!(entry = %announcement.entry(), "workload registered");
                if let Some(registered) = self.entries.get_mut(key) {
                    registered.unwritten = false;
                }
            }
            Err(WriteError::NotFound(what)) => {
                tracing::warn!(entry = %announcement.entry(), "waiting for {what}, which the workload announced");
            }
            Err(error) => {
                tracing::warn!(entry = %announcement.entry(), %error, "workload not registered yet")
            }
        }
    }

    async fn register(&self, announcement: &Announcement) -> Result<(), WriteError> {
        let Belonging::Group(group) = &announcement.belonging else {
            return Ok(());
        };
        let group = ObjectRef::new(Kind::WorkloadGroup, &announcement.namespace, group);
        let group = write::get(&self.client, &group).await?;
        let connected = entry::timestamp((self.settings.clock)());
        let object = entry::from_group(&group, announcement, &self.settings.controller, &connected);
        match write::create(&self.client, &object).await {
            Ok(_) => Ok(()),
            Err(WriteError::Conflict(_)) => {
                let mut patch = object;
                patch["metadata"]["annotations"][DISCONNECTED_AT] = Value::Null;
                write::patch(&self.client, &announcement.entry(), &patch)
                    .await
                    .map(drop)
            }
            Err(error) => Err(error),
        }
    }

    async fn write_health(
        &self,
        reference: &ObjectRef,
        healthy: bool,
        message: &str,
    ) -> Result<(), WriteError> {
        let found = write::get(&self.client, reference).await?;
        let now = entry::timestamp((self.settings.clock)());
        let conditions = entry::with_health(&found["status"]["conditions"], healthy, message, &now);
        write::patch_status(
            &self.client,
            reference,
            &json!({"status": {"conditions": conditions}}),
        )
        .await
    }

    async fn expire(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, e)| e.expires.is_some_and(|at| at <= now))
            .map(|(k, _)| k.clone())
            .collect();
        for key in due {
            let reference = entry::reference(&key.0, &key.1);
            match retrying(|| write::delete(&self.client, &reference)).await {
                Ok(()) => {
                    tracing::info!(entry = %reference, "workload gone, entry removed");
                    self.entries.remove(&key);
                }
                Err(error) => {
                    tracing::warn!(entry = %reference, %error, "entry of a gone workload not removed yet");
                    if let Some(registered) = self.entries.get_mut(&key) {
                        registered.expires = Some(now + self.settings.grace.max(limits::PENDING_RETRY));
                    }
                }
            }
        }
    }
}

/// Tries a write again when somebody else wrote in between, or the API server was away for a moment.
async fn retrying<T, F>(mut write: impl FnMut() -> F) -> Result<T, WriteError>
where
    F: Future<Output = Result<T, WriteError>>,
{
    let mut pause = limits::WRITE_RETRY;
    let mut attempt = 1;
    loop {
        match write().await {
            Err(WriteError::Conflict(_) | WriteError::Unavailable { .. })
                if attempt < limits::WRITE_ATTEMPTS =>
            {
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

impl entry::Announcement {
    fn key(&self) -> Key {
        let entry = self.entry();
        (entry.namespace, entry.name)
    }
}
