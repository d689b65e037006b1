//! What compiling a resource may use, and what it leaves behind: interned names and the route configurations it waits for.

use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::accesslog::v3::AccessLog;
use api_envoy::envoy::config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier};
use api_envoy::wkt::std_duration;
use indexmap::IndexSet;
use proxy_core::{ClusterSlot, ConfigError, ConfigResult, TrafficDirection};
use proxy_observe::LogFiles;
use proxy_router::{FilterConfig, RouteContext};
use proxy_upstream::SlotTable;
use proxy_upstream::secrets::{SecretStore, Sources};
use telemetry::stats::Registry;

use crate::access_log::{self, AccessLogConfig};
use crate::limits::DEFAULT_INITIAL_FETCH_TIMEOUT_SECONDS;

/// Stands for the name of a route configuration that comes over RDS. Slots are dense and begin at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteSlot(pub u32);

impl RouteSlot {
    /// The slot as an index into a table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Route configuration names and their slots. Names are never forgotten, so that a slot stays valid.
#[derive(Debug, Default)]
pub struct RouteNames {
    names: IndexSet<Arc<str>>,
}

impl RouteNames {
    /// The slot of `name`, given on first use.
    ///
    /// # Panics
    /// After four thousand million names.
    pub fn intern(&mut self, name: &str) -> RouteSlot {
        let index = match self.names.get_index_of(name) {
            Some(index) => index,
            None => self.names.insert_full(name.into()).0,
        };
        RouteSlot(u32::try_from(index).expect("fewer names than fit in 32 bits"))
    }
}

/// The two name tables of a process. They live on the main thread.
#[derive(Debug, Default)]
pub struct NameTables {
    /// Cluster names.
    pub clusters: SlotTable,
    /// Route configuration names.
    pub routes: RouteNames,
}

impl NameTables {
    /// The slot of a cluster name.
    pub fn cluster(&mut self, name: &str) -> ClusterSlot {
        self.clusters.intern(name)
    }

    /// The slot of a route configuration name.
    pub fn route(&mut self, name: &str) -> RouteSlot {
        self.routes.intern(name)
    }
}

impl RouteContext for NameTables {
    fn cluster(&mut self, name: &str) -> ClusterSlot {
        Self::cluster(self, name)
    }

    fn filter_config(&mut self, _filter: &str, config: &api_envoy::Any) -> ConfigResult<FilterConfig> {
        proxy_filters::route_config(config)
    }
}

impl RouteContext for CompileContext<'_> {
    fn cluster(&mut self, name: &str) -> ClusterSlot {
        self.names.cluster(name)
    }

    fn filter_config(&mut self, filter: &str, config: &api_envoy::Any) -> ConfigResult<FilterConfig> {
        self.names.filter_config(filter, config)
    }
}

/// Who this proxy is: `Node` of the bootstrap, with what the command line changed.
#[derive(Clone, Debug, Default)]
pub struct LocalNode {
    /// `node.id`.
    pub id: Arc<str>,
    /// `node.cluster`.
    pub cluster: Arc<str>,
    /// `node.locality.zone`.
    pub zone: Arc<str>,
}

/// What the compilation of one listener may use.
#[derive(Debug)]
pub struct CompileContext<'a> {
    names: &'a mut NameTables,
    stats: &'a Registry,
    node: &'a LocalNode,
    log_files: &'a LogFiles,
    secrets: Option<&'a mut SecretStore>,
    direction: TrafficDirection,
    awaited: Vec<AwaitedRoute>,
}

/// A route configuration that a listener refers to and cannot serve without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedRoute {
    /// Its name.
    pub name: Arc<str>,
    /// Its slot.
    pub slot: RouteSlot,
    /// How long the listener waits for it; zero waits for ever.
    pub initial_fetch_timeout: Duration,
}

impl<'a> CompileContext<'a> {
    /// A context without awaited routes, in which no secret can be had.
    pub fn new(
        names: &'a mut NameTables,
        stats: &'a Registry,
        node: &'a LocalNode,
        log_files: &'a LogFiles,
    ) -> Self {
        Self {
            names,
            stats,
            node,
            log_files,
            secrets: None,
            direction: TrafficDirection::Unspecified,
            awaited: Vec::new(),
        }
    }

    /// The same context, in which secrets can be had from `store`.
    #[must_use]
    pub fn and_secrets(mut self, store: &'a mut SecretStore) -> Self {
        self.secrets = Some(store);
        self
    }

    /// Compiles with the store of secrets, which is empty where none can be had.
    pub(crate) fn with_secrets<T>(&mut self, compile: impl FnOnce(&mut SecretStore) -> T) -> T {
        match &mut self.secrets {
            Some(store) => compile(store),
            None => compile(&mut SecretStore::new(self.stats, Sources::default())),
        }
    }

    /// Compiles access logs; `field` is their name in the enclosing message.
    ///
    /// # Errors
    /// A logger that this proxy does not have, an unknown operator, or a file that cannot be opened.
    pub fn access_logs(&self, field: &str, logs: &[AccessLog]) -> ConfigResult<Vec<AccessLogConfig>> {
        access_log::compile(field, logs, self.log_files)
    }

    /// The slot of a cluster that configuration names. The cluster need not exist.
    pub fn cluster(&mut self, name: &str) -> ClusterSlot {
        self.names.cluster(name)
    }

    /// The slot of a route configuration that comes over ADS, which the listener will wait for.
    ///
    /// # Errors
    /// Another source than ADS, or no name.
    pub fn route_config(&mut self, name: &str, source: Option<&ConfigSource>) -> ConfigResult<RouteSlot> {
        if name.is_empty() {
            return Err(ConfigError::at("route_config_name", "must not be empty"));
        }
        let initial_fetch_timeout = ads_source(source).map_err(|e| e.within("config_source"))?;
        let slot = self.names.route(name);
        if self.awaited.iter().all(|a| a.slot != slot) {
            self.awaited.push(AwaitedRoute {
                name: name.into(),
                slot,
                initial_fetch_timeout,
            });
        }
        Ok(slot)
    }

    /// Where statistics are registered.
    #[must_use]
    pub fn stats(&self) -> &'a Registry {
        self.stats
    }

    /// Who this proxy is.
    #[must_use]
    pub fn node(&self) -> &'a LocalNode {
        self.node
    }

    /// The direction of the listener that is being compiled.
    #[must_use]
    pub fn direction(&self) -> TrafficDirection {
        self.direction
    }

    pub(crate) fn set_direction(&mut self, direction: TrafficDirection) {
        self.direction = direction;
    }

    pub(crate) fn take_awaited(&mut self) -> Vec<AwaitedRoute> {
        std::mem::take(&mut self.awaited)
    }
}

/// Checks that a resource is to come over the aggregated stream; gives its `initial_fetch_timeout`.
///
/// # Errors
/// Another source.
pub fn ads_source(source: Option<&ConfigSource>) -> ConfigResult<Duration> {
    let source = source.ok_or_else(|| ConfigError::new("a config source is needed"))?;
    match &source.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => {}
        Some(ConfigSourceSpecifier::ApiConfigSource(_)) => {
            return Err(ConfigError::unsupported("api_config_source"));
        }
        Some(ConfigSourceSpecifier::PathConfigSource(_)) => {
            return Err(ConfigError::unsupported("path_config_source"));
        }
        Some(ConfigSourceSpecifier::Self_(_)) => return Err(ConfigError::unsupported("self")),
        _ => return Err(ConfigError::new("only ads is supported")),
    }
    let default = Duration::from_secs(DEFAULT_INITIAL_FETCH_TIMEOUT_SECONDS);
    Ok(source
        .initial_fetch_timeout
        .as_ref()
        .map_or(default, std_duration))
}
