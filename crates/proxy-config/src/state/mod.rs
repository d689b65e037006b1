//! What configuration is in force, what is warming, and what must happen next: a state machine without I/O.
//!
//! Envoy's cluster manager and listener manager as seen from xDS. A resource goes in with one of the `update`
//! functions and is refused, or accepted; what follows from it comes out of [`ConfigState::take_actions`].
//!
//! - A cluster whose endpoints come by EDS or DNS is *warming* until they are there, or until its
//!   `initial_fetch_timeout` is over; meanwhile the cluster that it replaces stays in force.
//! - A listener is warming until every route configuration it names is there, or timed out.
//! - Both are warming until every secret that their TLS contexts name is there, or timed out.
//! - Nothing is listened on before the *start* is complete: all static clusters are warm, the first CDS and LDS
//!   answers have come (or timed out), and what they brought is warm.

mod clusters;
mod listeners;
mod routes;
#[cfg(test)]
mod secret_tests;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::{Any, type_url};
use indexmap::IndexMap;
use proxy_core::{ClusterSlot, ConfigError, ConfigResult};
use proxy_observe::LogFiles;
use proxy_router::RouteTable;
use proxy_upstream::secrets::{SecretKey, SecretStore, Sources};
use proxy_upstream::{Assignment, ClusterConfig};
use telemetry::stats::Registry;

use crate::address::BindAddress;
use crate::context::{LocalNode, NameTables, RouteSlot};
use crate::listener::ListenerConfig;

pub use clusters::ClusterEntry;
pub use listeners::{Bind, ListenerEntry, ListenerVersion};
pub use routes::{EndpointsEntry, RouteEntry};
pub use secrets::SecretEntry;

/// Something that must be done because configuration changed. Actions are done in order.
#[derive(Debug)]
pub enum Action<H> {
    /// Puts a cluster in force on the workers, or replaces it.
    ApplyCluster {
        /// Its slot.
        slot: ClusterSlot,
        /// The cluster.
        config: Arc<ClusterConfig>,
        /// Its endpoints.
        endpoints: Arc<Assignment>,
    },
    /// Replaces the endpoints of a cluster that is in force.
    ApplyEndpoints {
        /// The cluster's slot.
        slot: ClusterSlot,
        /// The endpoints.
        endpoints: Arc<Assignment>,
    },
    /// Takes a cluster out of force.
    RemoveCluster {
        /// Its slot.
        slot: ClusterSlot,
    },
    /// Begins to resolve the names of a cluster; each result goes to [`ConfigState::resolved`].
    Resolve {
        /// The cluster's slot.
        slot: ClusterSlot,
        /// The cluster.
        config: Arc<ClusterConfig>,
    },
    /// Puts a route configuration in force, or takes it out.
    ApplyRoutes {
        /// Its slot.
        slot: RouteSlot,
        /// The table, or nothing when it is gone.
        table: Option<Arc<RouteTable>>,
    },
    /// Puts a listener in force, or replaces it. Its sockets were bound when it was accepted.
    ApplyListener {
        /// The listener.
        config: Arc<ListenerConfig<H>>,
        /// The version that was in force, whose connections drain.
        before: Option<ListenerVersion<H>>,
    },
    /// Removes a listener and drains its connections.
    RemoveListener {
        /// Its name.
        name: Arc<str>,
        /// The version that was in force.
        before: Option<ListenerVersion<H>>,
    },
    /// Wants resources from the discovery service.
    Subscribe {
        /// Their type.
        type_url: &'static str,
        /// Their name.
        name: Arc<str>,
    },
    /// No longer wants a resource.
    Unsubscribe {
        /// Its type.
        type_url: &'static str,
        /// Its name.
        name: Arc<str>,
    },
    /// Begins to fetch a secret that does not come over ADS; each version goes to [`ConfigState::update_secret`].
    FetchSecret {
        /// The secret.
        key: SecretKey,
    },
    /// No longer fetches a secret.
    DropSecret {
        /// The secret.
        key: SecretKey,
    },
    /// Calls [`ConfigState::timed_out`] after a while.
    Wait {
        /// What is waited for.
        waiting: Waiting,
        /// How long.
        timeout: Duration,
    },
    /// The start is complete: the proxy is live.
    Live,
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The first answer with clusters.
    Clusters,
    /// The first answer with listeners.
    Listeners,
    /// The endpoints of an EDS service name.
    Endpoints(Arc<str>),
    /// A route configuration.
    Routes(Arc<str>),
    /// A secret.
    Secret(SecretKey),
}

/// A resource as it came.
#[derive(Clone, Debug)]
pub struct Source {
    /// The resource.
    pub resource: Arc<Any>,
    /// The version it came with; empty for static resources.
    pub version: Arc<str>,
    /// When it came.
    pub last_updated: SystemTime,
}

/// An update that was refused, and not followed by one that was taken.
#[derive(Clone, Debug)]
pub struct Refused {
    /// As it came.
    pub source: Source,
    /// Why it was refused.
    pub error: ConfigError,
}

impl Refused {
    /// What is known of an update once it was tried: nothing when it was taken.
    fn of(source: Source, tried: &ConfigResult<()>) -> Option<Self> {
        let error = tried.as_ref().err()?.clone();
        Some(Self { source, error })
    }
}

/// How far the start has come (`envoy.admin.v3.ServerInfo.State`, without draining).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPhase {
    /// Clusters are awaited.
    PreInitializing,
    /// Clusters are there, listeners are awaited.
    Initializing,
    /// Complete.
    Live,
}

/// Configuration in force and warming. `H` is a compiled HTTP connection manager.
#[derive(Debug)]
pub struct ConfigState<H> {
    names: NameTables,
    stats: Registry,
    node: LocalNode,
    log_files: Arc<LogFiles>,
    clusters: IndexMap<Arc<str>, ClusterEntry>,
    endpoints: IndexMap<Arc<str>, EndpointsEntry>,
    listeners: IndexMap<Arc<str>, ListenerEntry<H>>,
    /// Which listener has an address, so that thousands of them are compared with none.
    taken_addresses: HashMap<BindAddress, Arc<str>>,
    /// Listeners of which no version was ever taken, the latest refusal last.
    refused_listeners: IndexMap<Arc<str>, Refused>,
    routes: IndexMap<Arc<str>, RouteEntry>,
    store: SecretStore,
    secrets: IndexMap<SecretKey, SecretEntry>,
    /// Whether a version of a listener that named routes has gone since unused ones were looked for.
    routes_may_be_unused: bool,
    actions: VecDeque<Action<H>>,
    phase: StartPhase,
    /// Whether static resources are still coming in.
    loading: bool,
    /// Discovery answers that the start still waits for.
    await_clusters: bool,
    await_listeners: bool,
}

impl<H> ConfigState<H> {
    /// Nothing is in force; the start waits for nothing.
    #[must_use]
    pub fn new(stats: Registry, node: LocalNode, log_files: Arc<LogFiles>) -> Self {
        let sources = Sources {
            ads: true,
            ..Sources::default()
        };
        Self {
            names: NameTables::default(),
            store: SecretStore::new(&stats, sources),
            secrets: IndexMap::new(),
            stats,
            node,
            log_files,
            clusters: IndexMap::new(),
            endpoints: IndexMap::new(),
            listeners: IndexMap::new(),
            taken_addresses: HashMap::new(),
            refused_listeners: IndexMap::new(),
            routes: IndexMap::new(),
            routes_may_be_unused: false,
            actions: VecDeque::new(),
            phase: StartPhase::PreInitializing,
            loading: true,
            await_clusters: false,
            await_listeners: false,
        }
    }

    /// The start waits for the first answers of the discovery service; a timeout of zero waits for ever.
    pub fn await_discovery(&mut self, clusters: Option<Duration>, listeners: Option<Duration>) {
        self.await_clusters = clusters.is_some();
        self.await_listeners = listeners.is_some();
        for (timeout, waiting) in [(clusters, Waiting::Clusters), (listeners, Waiting::Listeners)] {
            if let Some(timeout) = timeout {
                self.wait(waiting, timeout);
            }
        }
    }

    /// Static resources are complete: the start goes on from here.
    pub fn start(&mut self) {
        self.loading = false;
        self.advance();
    }

    /// What must be done now, in order.
    pub fn take_actions(&mut self) -> VecDeque<Action<H>> {
        std::mem::take(&mut self.actions)
    }

    /// A response of the discovery service was applied: the start no longer waits for the first of its type.
    pub fn answered(&mut self, type_url: &str) {
        match type_url {
            type_url::CLUSTER => self.await_clusters = false,
            type_url::LISTENER => self.await_listeners = false,
            _ => {}
        }
        self.advance();
    }

    /// A timer of [`Action::Wait`] is over.
    pub fn timed_out(&mut self, waiting: &Waiting) {
        match waiting {
            Waiting::Clusters => self.await_clusters = false,
            Waiting::Listeners => self.await_listeners = false,
            Waiting::Endpoints(service) => self.endpoints_timed_out(service),
            Waiting::Routes(name) => self.routes_timed_out(name),
            Waiting::Secret(key) => self.secret_timed_out(key),
        }
        self.advance();
    }

    /// How far the start has come.
    #[must_use]
    pub fn phase(&self) -> StartPhase {
        self.phase
    }

    /// Names and their slots.
    #[must_use]
    pub fn names(&self) -> &NameTables {
        &self.names
    }

    /// All clusters by name.
    #[must_use]
    pub fn clusters(&self) -> &IndexMap<Arc<str>, ClusterEntry> {
        &self.clusters
    }

    /// All endpoint assignments by service name.
    #[must_use]
    pub fn endpoints(&self) -> &IndexMap<Arc<str>, EndpointsEntry> {
        &self.endpoints
    }

    /// All listeners by name.
    #[must_use]
    pub fn listeners(&self) -> &IndexMap<Arc<str>, ListenerEntry<H>> {
        &self.listeners
    }

    /// Refused listeners of which no version was ever taken, by name.
    #[must_use]
    pub fn refused_listeners(&self) -> &IndexMap<Arc<str>, Refused> {
        &self.refused_listeners
    }

    /// All discovered route configurations by name.
    #[must_use]
    pub fn routes(&self) -> &IndexMap<Arc<str>, RouteEntry> {
        &self.routes
    }

    /// All secrets that configuration names, those of the bootstrap among them.
    #[must_use]
    pub fn secrets(&self) -> &IndexMap<SecretKey, SecretEntry> {
        &self.secrets
    }

    fn push(&mut self, action: Action<H>) {
        self.actions.push_back(action);
    }

    fn wait(&mut self, waiting: Waiting, timeout: Duration) {
        if !timeout.is_zero() {
            self.push(Action::Wait { waiting, timeout });
        }
    }

    /// Moves the start on as far as it goes.
    fn advance(&mut self) {
        if self.loading {
            return;
        }
        if self.phase == StartPhase::PreInitializing && !self.await_clusters && self.clusters_are_warm() {
            self.phase = StartPhase::Initializing;
        }
        if self.phase == StartPhase::Initializing && !self.await_listeners && self.listeners_are_warm() {
            self.phase = StartPhase::Live;
            self.release_listeners();
            self.push(Action::Live);
        }
    }
}
