//! The main thread: configuration goes in, commands go out to the workers.
//!
//! Everything here runs on one thread: discovery, DNS, timers, the admin interface. What must happen because of a
//! change is decided by [`ConfigState`]; this module carries it out.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api_envoy::Any;
use api_envoy::envoy::config::core::v3::TrafficDirection as Direction;
use api_envoy::envoy::config::listener::v3::Listener as ListenerProto;
use proxy_config::bootstrap::{AdsTarget, BootstrapConfig};
use proxy_config::state::{Action, ConfigState, ListenerVersion, Source, StartPhase, Waiting};
use proxy_core::random::{Random, seed};
use proxy_core::{ClusterSlot, ConfigError, ConfigResult, TrafficDirection};
use proxy_observe::LogFiles;
use proxy_upstream::config::{Discovery, Transport};
use proxy_upstream::secrets::SecretKey;
use proxy_upstream::{Assignment, ClusterConfig, ClusterUpdate, dns};
use telemetry::stats::{Registry, Shard};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use xds::grpc::client::Security;

use crate::ads_stats::AdsStats;
use crate::args::{Args, DrainStrategy};
use crate::certificate_stats::CertificateStats;
use crate::command::{Command, DrainPlan, Listener, PutListener};
use crate::http::HttpConfig;
use crate::limits;
use crate::secret_stats::AllSecretStats;
use crate::server_stats::ServerStats;
use crate::sockets::Sockets;
use crate::subscriptions::{Subscription, Subscriptions};

/// The main thread's state. Cheap to share within it.
#[derive(Debug)]
pub struct Server {
    pub(crate) args: Args,
    pub(crate) bootstrap: BootstrapConfig,
    pub(crate) registry: Registry,
    pub(crate) shard: Shard,
    pub(crate) stats: ServerStats,
    pub(crate) state: RefCell<ConfigState<Arc<HttpConfig>>>,
    pub(crate) sockets: RefCell<Sockets>,
    pub(crate) workers: Vec<mpsc::Sender<Command>>,
    pub(crate) log_files: Arc<LogFiles>,
    /// Counts for secrets.
    pub(crate) secret_stats: AllSecretStats,
    /// When certificates expire; as it was when the statistics were last read.
    pub(crate) certificate_stats: RefCell<CertificateStats>,
    /// Secrets that are to be fetched, and that no longer are; `secrets` sees to them when it is told.
    pub(crate) secret_requests: RefCell<Vec<SecretRequest>>,
    pub(crate) secrets_requested: Notify,
    pub(crate) started_at: SystemTime,
    pub(crate) started: Instant,
    pub(crate) live: Cell<bool>,
    pub(crate) health_check_failed: Cell<bool>,
    pub(crate) exit: Notify,
    /// Something was done that takes much memory for a moment.
    pub(crate) memory_taken: Notify,
    /// Counts for the discovery service's cluster, when there is one.
    pub(crate) ads_stats: OnceCell<AdsStats>,
    /// Versions of listeners that were replaced or removed, while their connections drain.
    pub(crate) draining: RefCell<Vec<Rc<DrainingListener>>>,
    /// Listeners that were told to take no more connections.
    stopped: RefCell<HashSet<Arc<str>>>,
    /// Which listeners are put in force no more, because those like them were told so.
    closed: Cell<Closed>,
    resolver: dns::Turns,
    resolvers: RefCell<HashMap<ClusterSlot, AbortHandle>>,
    pub(crate) subscriptions: Rc<Subscriptions>,
    random: Random,
}

/// Which listeners are put in force no more (Envoy's `StopListenersType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Closed {
    #[default]
    None,
    Inbound,
    All,
}

/// A version of a listener whose connections drain.
#[derive(Debug)]
pub(crate) struct DrainingListener {
    pub(crate) name: Arc<str>,
    pub(crate) source: Source,
}

/// What is to be done about a secret that does not come over ADS.
#[derive(Debug)]
pub(crate) enum SecretRequest {
    Fetch(SecretKey),
    Drop(SecretKey),
}

/// What a server is made of.
pub(crate) struct Parts {
    pub(crate) args: Args,
    pub(crate) bootstrap: BootstrapConfig,
    pub(crate) registry: Registry,
    pub(crate) sockets: Sockets,
    pub(crate) workers: Vec<mpsc::Sender<Command>>,
    pub(crate) log_files: Arc<LogFiles>,
}

impl Server {
    pub(crate) fn new(parts: Parts) -> Rc<Self> {
        let shard = parts.registry.shard();
        let stats = ServerStats::new(&parts.registry);
        shard.set_gauge(stats.concurrency, parts.workers.len() as u64);
        let local = parts.bootstrap.local.clone();
        let mut state = ConfigState::new(parts.registry.clone(), local, Arc::clone(&parts.log_files));
        state.set_secret_sources(parts.bootstrap.secret_sources());
        Rc::new(Self {
            secret_stats: AllSecretStats::new(&parts.registry),
            certificate_stats: RefCell::default(),
            secret_requests: RefCell::default(),
            secrets_requested: Notify::new(),
            args: parts.args,
            bootstrap: parts.bootstrap,
            registry: parts.registry,
            shard,
            stats,
            state: RefCell::new(state),
            sockets: RefCell::new(parts.sockets),
            workers: parts.workers,
            log_files: parts.log_files,
            started_at: SystemTime::now(),
            started: Instant::now(),
            live: Cell::new(false),
            health_check_failed: Cell::new(false),
            exit: Notify::new(),
            memory_taken: Notify::new(),
            ads_stats: OnceCell::new(),
            draining: RefCell::default(),
            stopped: RefCell::default(),
            closed: Cell::default(),
            resolver: dns::Turns::new(Arc::new(dns::SystemResolver)),
            resolvers: RefCell::default(),
            subscriptions: Rc::default(),
            random: Random::new(seed()),
        })
    }

    /// Takes the static resources of the bootstrap and begins to start.
    ///
    /// # Errors
    /// A resource is refused.
    pub(crate) fn load_static(self: &Rc<Self>) -> ConfigResult<()> {
        let resources = self.bootstrap.proto.static_resources.clone().unwrap_or_default();
        for (i, secret) in resources.secrets.iter().enumerate() {
            let source = source(api_envoy::any::pack(secret), "");
            let added = self.state.borrow_mut().add_static_secret(source);
            added.map_err(|e| e.index(i).within("secrets").within("static_resources"))?;
        }
        for (i, cluster) in resources.clusters.iter().enumerate() {
            let source = source(api_envoy::any::pack(cluster), "");
            let added = self.state.borrow_mut().add_static_cluster(source);
            added.map_err(|e| e.index(i).within("clusters").within("static_resources"))?;
            self.shard.inc(self.stats.clusters.added);
        }
        for (i, listener) in resources.listeners.iter().enumerate() {
            let source = source(api_envoy::any::pack(listener), "");
            let added = self.put_listener(source, true);
            added.map_err(|e| e.index(i).within("listeners").within("static_resources"))?;
            self.shard.inc(self.stats.listeners.added);
        }
        Ok(())
    }

    /// Goes on to serve, once what the start waits for is there.
    pub(crate) fn start(self: &Rc<Self>) {
        if let Some(ads) = &self.bootstrap.ads {
            self.state
                .borrow_mut()
                .await_discovery(ads.clusters, ads.listeners);
        }
        self.state.borrow_mut().start();
        self.pump();
    }

    /// Compiles a listener, binds its sockets, and takes it.
    pub(crate) fn put_listener(&self, source: Source, is_static: bool) -> ConfigResult<()> {
        let mut state = self.state.borrow_mut();
        let mut sockets = self.sockets.borrow_mut();
        let http: proxy_config::listener::HttpCompiler<'_, Arc<HttpConfig>> =
            &mut |proto, context| HttpConfig::compile(proto, context).map(Arc::new);
        let bind: proxy_config::state::Bind<'_, Arc<HttpConfig>> = &mut |config| sockets.bind(config);
        match is_static {
            true => state.add_static_listener(source, http, bind),
            false => state.update_listener(source, http, bind),
        }
    }

    /// Carries out what must happen now. To be called after every change of the state.
    pub(crate) fn pump(self: &Rc<Self>) {
        self.pump_actions();
        self.stats.follow(&self.shard, &self.state.borrow());
        self.subscriptions.send();
    }

    /// The same, with `subscribe` for changes of subscription.
    pub(crate) fn pump_with(self: &Rc<Self>, subscribe: impl FnOnce(Vec<Subscription>)) {
        self.pump_actions();
        self.stats.follow(&self.shard, &self.state.borrow());
        subscribe(self.subscriptions.take());
    }

    /// Carries out actions; changes of subscription are collected.
    pub(crate) fn pump_actions(self: &Rc<Self>) {
        loop {
            let actions = self.state.borrow_mut().take_actions();
            if actions.is_empty() {
                return;
            }
            self.memory_taken.notify_one();
            actions.into_iter().for_each(|action| self.carry_out(action));
        }
    }

    fn carry_out(self: &Rc<Self>, action: Action<Arc<HttpConfig>>) {
        match action {
            Action::ApplyCluster {
                slot,
                config,
                endpoints,
            } => {
                if !matches!(
                    config.discovery,
                    Discovery::StrictDns(_) | Discovery::LogicalDns(_)
                ) {
                    self.stop_resolving(slot);
                }
                self.change_cluster(&ClusterUpdate::Put {
                    slot,
                    config,
                    endpoints,
                });
            }
            Action::ApplyEndpoints { slot, endpoints } => {
                self.change_cluster(&ClusterUpdate::Endpoints { slot, endpoints });
            }
            Action::RemoveCluster { slot } => {
                self.stop_resolving(slot);
                self.change_cluster(&ClusterUpdate::Remove { slot });
            }
            Action::Resolve { slot, config } => self.resolve(slot, config),
            Action::ApplyRoutes { slot, table } => {
                self.tell_all(|_| Command::Routes {
                    slot,
                    table: table.clone(),
                });
            }
            Action::ApplyListener { config, before } => {
                self.apply_listener(&config);
                if let Some(before) = before {
                    self.tell_of_draining(&before, Some(&config));
                }
            }
            Action::RemoveListener { name, before } => {
                self.sockets.borrow_mut().forget(&name);
                self.stopped.borrow_mut().remove(&name);
                if let Some(before) = before {
                    self.tell_of_draining(&before, None);
                }
                let drain = self.drain_plan();
                self.tell_all(|_| Command::RemoveListener {
                    name: Arc::clone(&name),
                    drain,
                });
            }
            Action::Subscribe { type_url, name } => {
                self.subscriptions.push((true, type_url, name));
            }
            Action::Unsubscribe { type_url, name } => {
                if type_url == api_envoy::type_url::SECRET {
                    self.forget_secret_stats(&name);
                }
                self.subscriptions.push((false, type_url, name));
            }
            Action::FetchSecret { key } => self.request_secret(SecretRequest::Fetch(key)),
            Action::DropSecret { key } => {
                self.forget_secret_stats(&key.name);
                self.request_secret(SecretRequest::Drop(key));
            }
            Action::Wait { waiting, timeout } => {
                let this = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(timeout).await;
                    this.count_timeout(&waiting);
                    this.state.borrow_mut().timed_out(&waiting);
                    this.pump();
                });
            }
            Action::Live => self.go_live(),
        }
    }

    fn request_secret(&self, request: SecretRequest) {
        self.secret_requests.borrow_mut().push(request);
        self.secrets_requested.notify_one();
    }

    /// A timer is over; where it was a secret's that has not come, that is counted.
    fn count_timeout(&self, waiting: &Waiting) {
        let Waiting::Secret(key) = waiting else { return };
        let state = self.state.borrow();
        if state
            .secrets()
            .get(key)
            .is_some_and(|entry| entry.source.is_none())
        {
            self.secret_stats.of(&key.name).timed_out(&self.shard);
        }
    }

    /// A secret is no longer used; one of the same name may be, from elsewhere.
    fn forget_secret_stats(&self, name: &str) {
        if !self.state.borrow().secrets().keys().any(|key| &*key.name == name) {
            self.secret_stats.forget(name);
        }
    }

    fn change_cluster(&self, update: &ClusterUpdate) {
        self.tell_all(|_| Command::Cluster(update.clone()));
    }

    fn apply_listener(&self, config: &Arc<Listener>) {
        let mut sockets = self.sockets.borrow_mut().deliver(config);
        let drain = self.drain_plan();
        self.tell_all(|worker| {
            let sockets = sockets.as_mut().map(|all| std::mem::take(&mut all[worker]));
            let put = PutListener {
                config: Arc::clone(config),
                sockets,
                drain,
            };
            Command::PutListener(Box::new(put))
        });
        // Counted for each worker that has it, as in Envoy.
        let created = self.workers.len() as u64;
        self.shard.add(self.stats.listener_create_success, created);
    }

    /// Tells of a version that was in force, for as long as its connections drain: the whole listener, or the filter
    /// chains that are gone when nothing else has changed.
    fn tell_of_draining(
        self: &Rc<Self>,
        before: &ListenerVersion<Arc<HttpConfig>>,
        after: Option<&Arc<Listener>>,
    ) {
        let this = Rc::clone(self);
        let in_place = after.filter(|after| before.config.is_same_but_for_chains(after));
        let over: Box<dyn FnOnce()> = if let Some(after) = in_place {
            self.shard.inc(self.stats.listener_in_place_updated);
            let gone = i64::try_from(before.config.chains_missing_from(after)).unwrap_or(i64::MAX);
            self.shard.move_gauge(self.stats.filter_chains_draining, gone);
            Box::new(move || this.shard.move_gauge(this.stats.filter_chains_draining, -gone))
        } else {
            let listener = Rc::new(DrainingListener {
                name: Arc::clone(&before.config.name),
                source: before.source.clone(),
            });
            self.draining.borrow_mut().push(Rc::clone(&listener));
            self.shard.move_gauge(self.stats.listeners_draining, 1);
            Box::new(move || {
                this.draining.borrow_mut().retain(|d| !Rc::ptr_eq(d, &listener));
                this.shard.move_gauge(this.stats.listeners_draining, -1);
            })
        };
        let time = self.drain_plan().time;
        tokio::task::spawn_local(async move {
            tokio::time::sleep(time).await;
            over();
        });
    }

    /// Drains listeners because somebody asked for it; with `stop_accepting` they take no more connections.
    pub(crate) fn drain_listeners(&self, inbound_only: bool, stop_accepting: bool) {
        let drain = self.drain_plan();
        self.tell_all(|_| Command::DrainListeners {
            drain,
            inbound_only,
            stop_accepting,
        });
        if !stop_accepting {
            return;
        }
        let closed = if inbound_only {
            Closed::Inbound
        } else {
            Closed::All
        };
        self.closed.set(self.closed.get().max(closed));
        let (state, mut stopped) = (self.state.borrow(), self.stopped.borrow_mut());
        for (name, entry) in state.listeners() {
            let stops = |direction| !inbound_only || direction == TrafficDirection::Inbound;
            let stops = entry.active.as_ref().is_some_and(|v| stops(v.config.direction));
            if stops && stopped.insert(Arc::clone(name)) {
                self.shard.inc(self.stats.listener_stopped);
            }
        }
    }

    /// Whether a new or changed listener goes in force: not once those of its direction were told to take no more
    /// connections. As in Envoy it is no refusal, for the control plane has done nothing wrong.
    pub(crate) fn takes_listener(&self, resource: &Any) -> bool {
        let is_inbound = || {
            let listener = api_envoy::any::unpack::<ListenerProto>(resource);
            listener.is_ok_and(|l| l.traffic_direction() == Direction::Inbound)
        };
        match self.closed.get() {
            Closed::None => true,
            Closed::Inbound => !is_inbound(),
            Closed::All => false,
        }
    }

    /// The start is complete once every worker has carried out what it was told before.
    fn go_live(self: &Rc<Self>) {
        let (sender, mut arrived) = mpsc::channel(self.workers.len().max(1));
        self.tell_all(|_| {
            let sender = sender.clone();
            Command::Inspect(Box::new(move |_| {
                // There is room for every worker, and the main thread waits for all.
                let _ = sender.try_send(());
            }))
        });
        drop(sender);
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while arrived.recv().await.is_some() {}
            this.live.set(true);
            let took = u64::try_from(this.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            this.shard.record(this.stats.initialization_time_ms, took);
            this.shard.set_gauge(this.stats.live, 1);
            this.shard.set_gauge(this.stats.workers_started, 1);
            tracing::info!(took_ms = took, "all dependencies initialized, listening");
        });
    }

    /// How connections of replaced and removed listeners end.
    pub(crate) fn drain_plan(&self) -> DrainPlan {
        DrainPlan {
            time: Duration::from_secs(self.args.drain_time_s),
            immediate: self.args.drain_strategy == DrainStrategy::Immediate,
        }
    }

    /// Sends a command to every worker. A worker whose queue is full is waited for: configuration is never dropped.
    pub(crate) fn tell_all(&self, mut command: impl FnMut(usize) -> Command) {
        for (index, worker) in self.workers.iter().enumerate() {
            let deadline = Instant::now() + limits::WORKER_PATIENCE;
            let mut waiting = command(index);
            loop {
                waiting = match worker.try_send(waiting) {
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => break,
                    Err(mpsc::error::TrySendError::Full(command)) => command,
                };
                if Instant::now() > deadline {
                    tracing::error!(worker = index, "a worker takes no commands: giving up on it");
                    self.exit.notify_one();
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn resolve(self: &Rc<Self>, slot: ClusterSlot, config: Arc<ClusterConfig>) {
        self.stop_resolving(slot);
        // Only the latest answer counts, so that a slow main thread collects none.
        let (sender, mut results) = watch::channel(None::<Arc<Assignment>>);
        let random = Random::new(self.random.next());
        let lookups = dns::run(
            Arc::clone(&config),
            Arc::new(self.resolver.clone()),
            move || random.next(),
            move |endpoints| sender.send_modify(|latest| *latest = Some(endpoints)),
        );
        let this = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            let follow = async {
                while results.changed().await.is_ok() {
                    let Some(endpoints) = results.borrow_and_update().clone() else {
                        continue;
                    };
                    this.state.borrow_mut().resolved(slot, &config, endpoints);
                    this.pump();
                }
            };
            tokio::join!(lookups, follow);
        });
        self.resolvers.borrow_mut().insert(slot, task.abort_handle());
    }

    fn stop_resolving(&self, slot: ClusterSlot) {
        if let Some(task) = self.resolvers.borrow_mut().remove(&slot) {
            task.abort();
        }
    }

    /// Counts the discovery service's connection in its cluster from now on.
    pub(crate) fn count_discovery(&self, cluster: &str) {
        if let Some(stats) = self.connection_stats(cluster) {
            self.ads_stats.get_or_init(|| stats);
        }
    }

    /// Counts a connection of the main thread in the cluster that it is made through.
    pub(crate) fn connection_stats(&self, cluster: &str) -> Option<AdsStats> {
        let state = self.state.borrow();
        let entry = state.clusters().get(cluster)?;
        let newest = entry.warming.as_ref().or(entry.active.as_ref())?;
        Some(AdsStats::new(self.shard.clone(), Arc::clone(&newest.config)))
    }

    /// What secures connections to the service behind a static cluster.
    pub(crate) fn security_towards(&self, cluster: &str, target: &AdsTarget) -> Option<Security> {
        let state = self.state.borrow();
        let entry = state.clusters().get(cluster)?;
        let version = entry.warming.as_ref().or(entry.active.as_ref())?;
        let Transport::Tls(tls) = version.config.transport.default_transport() else {
            return None;
        };
        let hostname = match target {
            AdsTarget::Tcp(host, _) if host.parse::<std::net::IpAddr>().is_err() => Some(host.clone()),
            _ => None,
        };
        Some(Security {
            context: tls.current().clone(),
            hostname,
        })
    }

    /// How far the start has come.
    #[must_use]
    pub fn phase(&self) -> StartPhase {
        match self.state.borrow().phase() {
            StartPhase::Live if !self.live.get() => StartPhase::Initializing,
            phase => phase,
        }
    }
}

/// A resource that came now.
pub(crate) fn source(resource: Any, version: &str) -> Source {
    Source {
        resource: Arc::new(resource),
        version: version.into(),
        last_updated: SystemTime::now(),
    }
}

/// What a refused static resource is called.
pub(crate) fn static_error(error: ConfigError) -> String {
    format!("the bootstrap is refused: {error}")
}
