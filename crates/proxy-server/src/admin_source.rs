//! What the admin interface is told of the running proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use api_envoy::any;
use api_envoy::envoy::admin::v3::{CommandLineOptions, command_line_options};
use api_envoy::envoy::config::bootstrap::v3::Bootstrap;
use api_envoy::envoy::config::listener::v3::{Listener, filter::ConfigType};
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::Secret;
use proxy_config::state::{ConfigState, Refused, SecretEntry, Source, StartPhase};
use proxy_upstream::secrets::{SecretKey, SecretSource};
use proxy_upstream::snapshot::ClusterSnapshot;
use telemetry::stats::Registry;
use tokio::sync::oneshot;

use crate::admin::certs::days_left;
use crate::admin::source::{
    AdminSource, Answer, BoundListener, ClusterView, ConfigSnapshot, ContextCertificates, DrainRequest,
    DumpEntry, Phase, Refusal, ServerState,
};
use crate::args::IpVersion;
use crate::command::Command;
use crate::held_certificates::each_context;
use crate::local::Local;
use crate::server::Server;

/// The admin interface's view of the main thread.
#[derive(Debug)]
pub(crate) struct View(pub(crate) Rc<Server>);

impl AdminSource for View {
    fn stats(&self) -> Registry {
        let server = &self.0;
        server
            .shard
            .set_gauge(server.stats.uptime, server.started.elapsed().as_secs());
        if let Some(stats) = server.ads_stats.get() {
            stats.flush();
        }
        server
            .stats
            .files
            .follow(&server.shard, server.log_files.counts());
        let (state, mut stats) = (server.state.borrow(), server.certificate_stats.borrow_mut());
        let mut first = None;
        stats.begin();
        each_context(&state, |context| {
            for (name, certificate) in context.named() {
                let at = certificate.not_after;
                first = Some(first.map_or(at, |first: SystemTime| first.min(at)));
                stats.note(context.scope, name, at);
            }
        });
        stats.end(&server.shard);
        let days = days_left(first, SystemTime::now());
        server
            .shard
            .set_gauge(server.stats.days_until_first_cert_expiring, days);
        server.registry.clone()
    }

    fn state(&self) -> ServerState {
        // Draining listeners alone does not count, as in Envoy: whoever drains tells the health check too.
        if self.0.health_check_failed.get() {
            return ServerState::Draining;
        }
        match self.0.phase() {
            StartPhase::PreInitializing => ServerState::PreInitializing,
            StartPhase::Initializing => ServerState::Initializing,
            StartPhase::Live => ServerState::Live,
        }
    }

    fn bootstrap(&self) -> Bootstrap {
        self.0.bootstrap.proto.clone()
    }

    fn started_at(&self) -> SystemTime {
        self.0.started_at
    }

    fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    fn options(&self) -> CommandLineOptions {
        options(&self.0)
    }

    fn config(&self) -> ConfigSnapshot {
        let state = self.0.state.borrow();
        let mut snapshot = ConfigSnapshot::default();
        for (name, entry) in state.clusters() {
            let error = entry.refused.as_ref().map(refusal);
            let active = entry.active.iter().map(|v| (&v.source, phase(entry.is_static)));
            let warming = entry.warming.iter().map(|v| (&v.source, Phase::Warming));
            snapshot.clusters.extend(
                active
                    .chain(warming)
                    .map(|(source, phase)| dump(name, source, phase, error.clone())),
            );
        }
        for (name, entry) in state.listeners() {
            let error = entry.refused.as_ref().map(refusal);
            let active = entry.active.iter().map(|v| (&v.source, phase(entry.is_static)));
            let warming = entry.warming.iter().map(|v| (&v.source, Phase::Warming));
            for (source, phase) in active.chain(warming) {
                snapshot.listeners.push(dump(name, source, phase, error.clone()));
                snapshot.routes.extend(inline_routes(source));
            }
            // The bootstrap's listeners have no place for a refusal: what discovery wanted under the name has its own.
            if entry.is_static {
                let refused = entry.refused.iter();
                snapshot
                    .listeners
                    .extend(refused.map(|refused| never_taken(name, refused)));
            }
        }
        for listener in self.0.draining.borrow().iter() {
            let draining = dump(&listener.name, &listener.source, Phase::Draining, None);
            snapshot.listeners.push(draining);
        }
        let refused = state.refused_listeners().iter();
        snapshot
            .listeners
            .extend(refused.map(|(name, refused)| never_taken(name, refused)));
        for (name, entry) in state.routes() {
            let error = entry.refused.as_ref().map(refusal);
            let routes = entry.source.iter();
            snapshot
                .routes
                .extend(routes.map(|source| dump(name, source, Phase::Active, error.clone())));
        }
        for (name, entry) in state.endpoints() {
            let error = entry.refused.as_ref().map(refusal);
            let endpoints = entry.source.iter();
            snapshot
                .endpoints
                .extend(endpoints.map(|source| dump(name, source, Phase::Active, error.clone())));
        }
        snapshot.secrets = secrets(&state);
        snapshot
    }

    fn certificates(&self) -> Vec<ContextCertificates> {
        let mut contexts = Vec::new();
        each_context(&self.0.state.borrow(), |context| contexts.push(context.shown()));
        contexts
    }

    fn listeners(&self) -> Vec<BoundListener> {
        let (state, sockets) = (self.0.state.borrow(), self.0.sockets.borrow());
        let active = state
            .listeners()
            .iter()
            .filter_map(|(name, entry)| Some((name, entry.active.as_ref()?)));
        let mut bound = Vec::new();
        for (name, version) in active {
            // A listener without sockets still has an address, and Envoy lists it.
            let local = Some(sockets.local(name)).filter(|local| !local.is_empty());
            for address in local.unwrap_or(&version.config.addresses) {
                bound.push(BoundListener {
                    name: name.to_string(),
                    address: address.to_string(),
                });
            }
        }
        bound
    }

    fn clusters(&self) -> Answer<Vec<ClusterView>> {
        let server = Rc::clone(&self.0);
        Box::pin(async move { clusters(&server).await })
    }

    fn drain_listeners(&self, request: DrainRequest) {
        let server = &self.0;
        tracing::info!(?request, "draining listeners");
        server.drain_listeners(request.inbound_only, !request.graceful);
        if request.graceful && !request.skip_exit {
            let server = Rc::clone(server);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(server.drain_plan().time).await;
                server.drain_listeners(request.inbound_only, true);
            });
        }
    }

    fn quit(&self) {
        self.0.exit.notify_one();
    }

    fn fail_health_check(&self, fail: bool) {
        self.0.health_check_failed.set(fail);
        self.0
            .tell_all(|_| Command::Inspect(Box::new(move |worker| worker.set_fails_health_checks(fail))));
    }

    fn reopen_logs(&self) {
        self.0.log_files.reopen();
    }

    fn answered(&self) {
        self.0.memory_taken.notify_one();
    }

    fn admin_bound(&self, address: SocketAddr) {
        tracing::info!(%address, "admin address");
        let Some(path) = &self.0.args.admin_address_path else {
            return;
        };
        if let Err(error) = std::fs::write(path, address.to_string()) {
            tracing::error!(path = %path.display(), %error, "cannot write the admin address");
        }
    }
}

/// Secrets as Envoy shows them: those that have not come have a version that says so, and nothing but their name.
fn secrets<H>(state: &ConfigState<H>) -> Vec<DumpEntry> {
    let entry = |(key, entry): (&SecretKey, &SecretEntry)| match &entry.source {
        Some(source) => {
            let phase = phase(key.source == SecretSource::Static);
            let dumped = dump(&key.name, source, phase, entry.refused.as_ref().map(refusal));
            let resource = state.shown_secret(key).or(dumped.resource);
            DumpEntry { resource, ..dumped }
        }
        None => DumpEntry {
            name: key.name.to_string(),
            phase: Phase::Warming,
            version: "uninitialized".to_owned(),
            resource: Some(any::pack(&Secret {
                name: key.name.to_string(),
                ..Secret::default()
            })),
            last_updated: entry.wanted_since.unwrap_or(SystemTime::UNIX_EPOCH),
            error: entry.refused.as_ref().map(refusal),
        },
    };
    state.secrets().iter().map(entry).collect()
}

fn phase(is_static: bool) -> Phase {
    if is_static { Phase::Static } else { Phase::Active }
}

fn dump(name: &str, source: &Source, phase: Phase, error: Option<Refusal>) -> DumpEntry {
    DumpEntry {
        name: name.to_owned(),
        phase,
        version: source.version.to_string(),
        resource: Some((*source.resource).clone()),
        last_updated: source.last_updated,
        error,
    }
}

fn refusal(refused: &Refused) -> Refusal {
    Refusal {
        resource: Some((*refused.source.resource).clone()),
        version: refused.source.version.to_string(),
        details: refused.error.to_string(),
        at: refused.source.last_updated,
    }
}

/// A listener of which nothing is known but a refusal.
fn never_taken(name: &str, refused: &Refused) -> DumpEntry {
    DumpEntry {
        name: name.to_owned(),
        phase: Phase::Refused,
        version: String::new(),
        resource: None,
        last_updated: refused.source.last_updated,
        error: Some(refusal(refused)),
    }
}

/// The route configurations inside a listener.
fn inline_routes(source: &Source) -> Vec<DumpEntry> {
    let Ok(listener) = any::unpack::<Listener>(&source.resource) else {
        return Vec::new();
    };
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let managers = chains
        .flat_map(|chain| &chain.filters)
        .filter_map(|filter| match &filter.config_type {
            Some(ConfigType::TypedConfig(typed)) => any::unpack::<HttpConnectionManager>(typed).ok(),
            _ => None,
        });
    let routes = managers.filter_map(|manager| match manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(routes)) => Some(routes),
        _ => None,
    });
    routes
        .map(|routes| DumpEntry {
            name: routes.name.clone(),
            phase: Phase::Static,
            version: String::new(),
            resource: Some(any::pack(&routes)),
            last_updated: source.last_updated,
            error: None,
        })
        .collect()
}

fn options(server: &Server) -> CommandLineOptions {
    let args = &server.args;
    let text = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|p| p.display().to_string()).unwrap_or_default()
    };
    CommandLineOptions {
        base_id: args.base_id.into(),
        use_dynamic_base_id: args.use_dynamic_base_id,
        concurrency: u32::try_from(server.workers.len()).unwrap_or(u32::MAX),
        config_path: text(&args.config_path),
        config_yaml: args.config_yaml.clone().unwrap_or_default(),
        allow_unknown_static_fields: args.allow_unknown_static_fields,
        ignore_unknown_dynamic_fields: args.ignore_unknown_dynamic_fields,
        admin_address_path: text(&args.admin_address_path),
        local_address_ip_version: match args.local_address_ip_version {
            IpVersion::V4 => command_line_options::IpVersion::V4 as i32,
            IpVersion::V6 => command_line_options::IpVersion::V6 as i32,
        },
        log_level: args.log_level.clone(),
        component_log_level: args.component_log_level.clone().unwrap_or_default(),
        log_path: text(&args.log_path),
        service_cluster: server.bootstrap.local.cluster.to_string(),
        service_node: server.bootstrap.local.id.to_string(),
        service_zone: server.bootstrap.local.zone.to_string(),
        drain_strategy: match args.drain_strategy {
            crate::args::DrainStrategy::Gradual => command_line_options::DrainStrategy::Gradual as i32,
            crate::args::DrainStrategy::Immediate => command_line_options::DrainStrategy::Immediate as i32,
        },
        drain_time: Some(api_envoy::wkt::duration(Duration::from_secs(args.drain_time_s))),
        parent_shutdown_time: Some(api_envoy::wkt::duration(Duration::from_secs(
            args.parent_shutdown_time_s,
        ))),
        file_flush_interval: Some(api_envoy::wkt::duration(Duration::from_millis(
            args.file_flush_interval_msec,
        ))),
        disable_hot_restart: true,
        ..CommandLineOptions::default()
    }
}

/// Asks every worker for its clusters and adds them up.
async fn clusters(server: &Server) -> Vec<ClusterView> {
    let mut answers = Vec::new();
    for worker in &server.workers {
        let (sender, answer) = oneshot::channel();
        let inspect = move |worker: &Local| {
            // Nobody waits any more when the admin connection is gone.
            let _ = sender.send(worker.cluster_snapshot());
        };
        if worker.send(Command::Inspect(Box::new(inspect))).await.is_ok() {
            answers.push(answer);
        }
    }
    let mut merged: BTreeMap<String, ClusterSnapshot> = BTreeMap::new();
    for answer in answers {
        for cluster in answer.await.unwrap_or_default() {
            match merged.get_mut(&*cluster.config.name) {
                Some(mine) => mine.merge(cluster),
                None => drop(merged.insert(cluster.config.name.to_string(), cluster)),
            }
        }
    }
    let state = server.state.borrow();
    let is_static = |name: &str| state.clusters().get(name).is_some_and(|entry| entry.is_static);
    merged
        .into_values()
        .map(|snapshot| ClusterView {
            added_via_api: !is_static(&snapshot.config.name),
            snapshot,
        })
        .collect()
}
