//! Statistics of the main thread: `server.`, `listener_manager.`, `cluster_manager.`, `control_plane.` and
//! `filesystem.`.

use proxy_config::state::{ConfigState, StartPhase};
use telemetry::stats::{Counter, Gauge, Histogram, Registry, Scope, Shard};

use crate::file_stats::FileStats;

/// Handles of the main thread's statistics.
#[derive(Debug)]
pub(crate) struct ServerStats {
    /// Keep the handles valid.
    _scopes: [Scope; 6],
    pub(crate) live: Gauge,
    pub(crate) state: Gauge,
    pub(crate) uptime: Gauge,
    pub(crate) concurrency: Gauge,
    pub(crate) days_until_first_cert_expiring: Gauge,
    pub(crate) initialization_time_ms: Histogram,
    pub(crate) workers_started: Gauge,
    pub(crate) listeners: ResourceStats,
    pub(crate) clusters: ResourceStats,
    pub(crate) listener_create_success: Counter,
    pub(crate) listener_create_failure: Counter,
    pub(crate) listener_stopped: Counter,
    pub(crate) listener_in_place_updated: Counter,
    pub(crate) listeners_draining: Gauge,
    pub(crate) filter_chains_draining: Gauge,
    pub(crate) lds: UpdateStats,
    pub(crate) cds: UpdateStats,
    pub(crate) connected_state: Gauge,
    pub(crate) files: FileStats,
}

/// Counts of one kind of resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResourceStats {
    pub(crate) added: Counter,
    pub(crate) modified: Counter,
    pub(crate) removed: Counter,
    pub(crate) active: Gauge,
    pub(crate) warming: Gauge,
}

/// Counts of discovery responses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpdateStats {
    pub(crate) attempt: Counter,
    pub(crate) success: Counter,
    pub(crate) rejected: Counter,
}

impl UpdateStats {
    fn new(scope: &Scope) -> Self {
        Self {
            attempt: scope.counter("update_attempt"),
            success: scope.counter("update_success"),
            rejected: scope.counter("update_rejected"),
        }
    }
}

impl ServerStats {
    pub(crate) fn new(registry: &Registry) -> Self {
        let server = registry.scope("server.");
        let listeners = registry.scope("listener_manager.");
        let clusters = registry.scope("cluster_manager.");
        let control_plane = registry.scope("control_plane.");
        let (lds, cds) = (
            registry.scope("listener_manager.lds."),
            registry.scope("cluster_manager.cds."),
        );
        Self {
            live: server.gauge("live"),
            state: server.gauge("state"),
            uptime: server.gauge("uptime"),
            concurrency: server.gauge("concurrency"),
            days_until_first_cert_expiring: server.gauge("days_until_first_cert_expiring"),
            initialization_time_ms: server.histogram("initialization_time_ms"),
            workers_started: listeners.gauge("workers_started"),
            listeners: ResourceStats {
                added: listeners.counter("listener_added"),
                modified: listeners.counter("listener_modified"),
                removed: listeners.counter("listener_removed"),
                active: listeners.gauge("total_listeners_active"),
                warming: listeners.gauge("total_listeners_warming"),
            },
            clusters: ResourceStats {
                added: clusters.counter("cluster_added"),
                modified: clusters.counter("cluster_modified"),
                removed: clusters.counter("cluster_removed"),
                active: clusters.gauge("active_clusters"),
                warming: clusters.gauge("warming_clusters"),
            },
            listener_create_success: listeners.counter("listener_create_success"),
            listener_create_failure: listeners.counter("listener_create_failure"),
            listener_stopped: listeners.counter("listener_stopped"),
            listener_in_place_updated: listeners.counter("listener_in_place_updated"),
            listeners_draining: listeners.gauge("total_listeners_draining"),
            filter_chains_draining: listeners.gauge("total_filter_chains_draining"),
            lds: UpdateStats::new(&lds),
            cds: UpdateStats::new(&cds),
            connected_state: control_plane.gauge("connected_state"),
            files: FileStats::new(registry),
            _scopes: [server, listeners, clusters, control_plane, lds, cds],
        }
    }

    /// Sets the gauges that count what is in force and what warms.
    pub(crate) fn follow<H>(&self, shard: &Shard, state: &ConfigState<H>) {
        let clusters = state.clusters().values();
        let count = |n: usize| n as u64;
        shard.set_gauge(
            self.clusters.active,
            count(clusters.clone().filter(|c| c.active.is_some()).count()),
        );
        shard.set_gauge(
            self.clusters.warming,
            count(clusters.filter(|c| c.warming.is_some()).count()),
        );
        let listeners = state.listeners().values();
        shard.set_gauge(
            self.listeners.active,
            count(listeners.clone().filter(|l| l.active.is_some()).count()),
        );
        shard.set_gauge(
            self.listeners.warming,
            count(listeners.filter(|l| l.warming.is_some()).count()),
        );
        // The numbers of `envoy.admin.v3.ServerInfo.State`.
        shard.set_gauge(
            self.state,
            match state.phase() {
                StartPhase::Live => 0,
                StartPhase::PreInitializing => 2,
                StartPhase::Initializing => 3,
            },
        );
    }
}
