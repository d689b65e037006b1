//! Lists and watches every kind the mesh reads (Kubernetes API concepts, "Efficient detection of changes").
//!
//! Each kind has a task of its own. A list that follows a lost watch becomes the difference to what was known, so the
//! receiver sees changes only. A kind that the server does not serve counts as empty, and is looked for again.

use std::collections::BTreeMap;
use std::time::Duration;

use control_snapshot::Kind;
use futures::{StreamExt as _, pin_mut};
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::Value;
use telemetry::logging::chain;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::{Client, limits};

/// A change of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new or changed object, complete.
    Apply {
        /// Its kind.
        kind: Kind,
        /// The object.
        object: Value,
    },
    /// An object is gone.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its namespace; empty for cluster-wide kinds.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Every object of this kind that existed when the watch began has been reported. Sent once per kind.
    Synced {
        /// The kind.
        kind: Kind,
    },
}

/// A Pod with this annotation only shows a WorkloadEntry to people; it is not a workload of its own.
pub const VIEW_ANNOTATION: &str = "lateen.io/view-of";

/// The versions under which a kind may be served, best first.
fn versions(kind: Kind) -> &'static [&'static str] {
    if kind == Kind::ReferenceGrant {
        return &["v1", "v1beta1"];
    }
    api_istio::kinds::Kind::find(kind.group(), kind.name()).map_or(&["v1"], |kind| kind.versions)
}

pub(crate) fn resource(kind: Kind, attempt: usize) -> ApiResource {
    let versions = versions(kind);
    let version = versions[attempt % versions.len()];
    ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group(), version, kind.name()))
}

/// Which objects of a kind are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Those of this namespace; of all when it is empty.
    pub namespace: String,
    /// Those that this field selector selects; all when it is empty.
    pub fields: String,
}

impl Scope {
    /// One object of a namespace, whether it is there or not.
    #[must_use]
    pub fn one(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            fields: format!("metadata.name={name}"),
        }
    }

    /// What the mesh reads of a kind.
    fn of(kind: Kind) -> Self {
        match kind {
            // Tokens and what Helm keeps are many, large, and no credentials of gateways.
            Kind::Secret => Self {
                namespace: String::new(),
                fields: "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token".to_owned(),
            },
            _ => Self::default(),
        }
    }

    /// What is enough of a kind where the server does not let us read all: of ConfigMaps, MeshConfig.
    fn least(kind: Kind, root_namespace: &str) -> Option<Self> {
        (kind == Kind::ConfigMap).then(|| Self::one(root_namespace, "istio"))
    }
}

/// Watches every kind until the receiver is dropped. `root_namespace` is where MeshConfig lives.
///
/// The tasks end when the returned set is dropped.
#[must_use]
pub fn watch_all(client: &Client, root_namespace: &str) -> (mpsc::Receiver<Change>, JoinSet<()>) {
    let all = Kind::ALL
        .iter()
        .map(|(kind, ..)| (*kind, Scope::of(*kind), Scope::least(*kind, root_namespace)));
    watch(client, all)
}

/// Watches some objects of some kinds until the receiver is dropped, or the returned set of tasks.
#[must_use]
pub fn watch_some(
    client: &Client,
    wanted: impl IntoIterator<Item = (Kind, Scope)>,
) -> (mpsc::Receiver<Change>, JoinSet<()>) {
    watch(
        client,
        wanted.into_iter().map(|(kind, scope)| (kind, scope, None)),
    )
}

fn watch(
    client: &Client,
    wanted: impl IntoIterator<Item = (Kind, Scope, Option<Scope>)>,
) -> (mpsc::Receiver<Change>, JoinSet<()>) {
    let (sender, receiver) = mpsc::channel(limits::CHANGE_QUEUE);
    let mut tasks = JoinSet::new();
    for (kind, scope, least) in wanted {
        let watch = Watch {
            client: client.clone(),
            kind,
            scope,
            least,
            known: BTreeMap::new(),
            synced: false,
            changes: sender.clone(),
        };
        tasks.spawn(watch.run());
    }
    (receiver, tasks)
}

/// The receiver has gone: there is nobody to watch for.
struct Gone;

/// Why a round of watching ended.
enum Round {
    /// The kind is not served in this version.
    Absent,
    /// Something else failed; the wait before the next round may grow.
    Failed,
}

struct Watch {
    client: Client,
    kind: Kind,
    scope: Scope,
    /// What is watched instead where the server refuses the scope.
    least: Option<Scope>,
    /// Namespace and name to resource version.
    known: BTreeMap<(String, String), Option<String>>,
    synced: bool,
    changes: mpsc::Sender<Change>,
}

impl Watch {
    async fn run(mut self) {
        let versions = versions(self.kind).len();
        let mut attempt = 0;
        let mut pause = limits::WATCH_RETRY_BASE;
        loop {
            match self.round(attempt, &mut pause).await {
                Err(Gone) => return,
                Ok(Round::Absent) => {
                    attempt += 1;
                    if attempt % versions == 0 {
                        if self.restarted(BTreeMap::new()).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(limits::ABSENT_KIND_RETRY).await;
                    }
                }
                Ok(Round::Failed) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::WATCH_RETRY_MAX);
                }
            }
        }
    }

    /// Watches until something fails that waiting might mend.
    async fn round(&mut self, attempt: usize, pause: &mut Duration) -> Result<Round, Gone> {
        let api_resource = resource(self.kind, attempt);
        let mut config = watcher::Config::default().page_size(limits::LIST_PAGE);
        if !self.scope.fields.is_empty() {
            config = config.fields(&self.scope.fields);
        }
        let client = self.client.0.clone();
        let api: Api<DynamicObject> = match self.scope.namespace.as_str() {
            "" => Api::all_with(client, &api_resource),
            namespace => Api::namespaced_with(client, namespace, &api_resource),
        };
        let events = watcher(api, config);
        pin_mut!(events);
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = BTreeMap::new(),
                Ok(Event::InitApply(object)) => {
                    let (key, version) = identity(&object);
                    self.apply(object).await?;
                    listed.insert(key, version);
                }
                Ok(Event::InitDone) => {
                    self.restarted(std::mem::take(&mut listed)).await?;
                    *pause = limits::WATCH_RETRY_BASE;
                }
                Ok(Event::Apply(object)) => self.apply(object).await?,
                Ok(Event::Delete(object)) => {
                    let (key, _) = identity(&object);
                    self.delete(key).await?;
                }
                Err(error) if is_absent(&error) => return Ok(Round::Absent),
                Err(error) if self.least.is_some() && is_status(&error, 403) => {
                    self.scope = self.least.take().unwrap_or_default();
                    let (kind, fields) = (self.kind.name(), &self.scope.fields);
                    tracing::warn!(kind, fields, error = %chain(&error), "not all are readable; the others are not looked at");
                    return Ok(Round::Failed);
                }
                // A mesh without credentials for gateways is a mesh all the same.
                Err(error) if credentials(self.kind) && is_status(&error, 403) => {
                    if !self.synced {
                        let kind = self.kind.name();
                        tracing::warn!(kind, error = %chain(&error), "not readable; gateways go without");
                    }
                    return Ok(Round::Absent);
                }
                // The watcher resumes by itself where it stopped, after a pause of ours.
                Err(error) => {
                    tracing::debug!(kind = self.kind.name(), error = %chain(&error), "watch interrupted");
                    if matches!(error, watcher::Error::InitialListFailed(_)) {
                        return Ok(Round::Failed);
                    }
                    tokio::time::sleep(*pause).await;
                }
            }
        }
        Ok(Round::Failed)
    }

    async fn apply(&mut self, object: DynamicObject) -> Result<(), Gone> {
        let (key, version) = identity(&object);
        if version.is_some() && self.known.get(&key) == Some(&version) {
            return Ok(());
        }
        if self.kind == Kind::Pod && object.annotations().contains_key(VIEW_ANNOTATION) {
            return Ok(());
        }
        self.known.insert(key, version);
        let Ok(object) = serde_json::to_value(object) else {
            return Ok(());
        };
        self.changes
            .send(Change::Apply {
                kind: self.kind,
                object,
            })
            .await
            .map_err(|_| Gone)
    }

    async fn delete(&mut self, key: (String, String)) -> Result<(), Gone> {
        if self.known.remove(&key).is_none() {
            return Ok(());
        }
        let (namespace, name) = key;
        self.changes
            .send(Change::Delete {
                kind: self.kind,
                namespace,
                name,
            })
            .await
            .map_err(|_| Gone)
    }

    /// A list is complete: whatever was known and is not in it is gone.
    async fn restarted(&mut self, listed: BTreeMap<(String, String), Option<String>>) -> Result<(), Gone> {
        let gone: Vec<_> = self
            .known
            .keys()
            .filter(|key| !listed.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            self.delete(key).await?;
        }
        if !std::mem::replace(&mut self.synced, true) {
            self.changes
                .send(Change::Synced { kind: self.kind })
                .await
                .map_err(|_| Gone)?;
        }
        Ok(())
    }
}

fn identity(object: &DynamicObject) -> ((String, String), Option<String>) {
    (
        (object.namespace().unwrap_or_default(), object.name_any()),
        object.resource_version(),
    )
}

/// Whether nothing but credentials of gateways depends on a kind.
fn credentials(kind: Kind) -> bool {
    matches!(kind, Kind::Secret | Kind::ReferenceGrant)
}

fn is_absent(error: &watcher::Error) -> bool {
    is_status(error, 404)
}

fn is_status(error: &watcher::Error, code: u16) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == code,
        _ => false,
    }
}
