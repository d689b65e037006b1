//! Clusters: from CDS or the bootstrap to the workers.

use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api_envoy::{any, type_url};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ClusterSlot, ConfigError, ConfigResult};
use proxy_upstream::config::Discovery;
use proxy_upstream::{Assignment, ClusterConfig};

use super::{Action, ConfigState, Refused, Source, Waiting};
use crate::context::ads_source;

/// One cluster name: what is in force and what is warming.
#[derive(Debug)]
pub struct ClusterEntry {
    /// Its slot.
    pub slot: ClusterSlot,
    /// Whether it is in the bootstrap; such a cluster is never replaced by discovery.
    pub is_static: bool,
    /// In force.
    pub active: Option<ClusterVersion>,
    /// Waiting for endpoints or secrets.
    pub warming: Option<ClusterVersion>,
    /// The last update, if it was refused.
    pub refused: Option<Refused>,
}

/// One version of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterVersion {
    /// As it came.
    pub source: Source,
    /// Compiled.
    pub config: Arc<ClusterConfig>,
    /// Its endpoints, once known.
    pub endpoints: Option<Arc<Assignment>>,
}

impl ClusterVersion {
    fn service_name(&self) -> Option<&str> {
        match &self.config.discovery {
            Discovery::Eds { service_name } => Some(service_name),
            _ => None,
        }
    }

    /// Whether its endpoints come under this name.
    fn uses(&self, service: &str) -> bool {
        self.service_name() == Some(service)
    }
}

impl ClusterEntry {
    fn newest(&self) -> Option<&ClusterVersion> {
        self.warming.as_ref().or(self.active.as_ref())
    }
}

impl<H> ConfigState<H> {
    /// Takes a cluster of the bootstrap.
    ///
    /// # Errors
    /// The cluster is refused.
    pub fn add_static_cluster(&mut self, source: Source) -> ConfigResult<()> {
        let proto = unpack(&source)?;
        self.put_cluster(&proto, source, true)
    }

    /// Takes a cluster from CDS. The same bytes again change nothing.
    ///
    /// # Errors
    /// The cluster is refused.
    pub fn update_cluster(&mut self, source: Source) -> ConfigResult<()> {
        let proto = unpack(&source)?;
        let tried = self.put_cluster(&proto, source.clone(), false);
        if let Some(entry) = self.clusters.get_mut(proto.name.as_str()) {
            entry.refused = Refused::of(source, &tried);
        }
        tried
    }

    fn put_cluster(&mut self, proto: &Cluster, source: Source, is_static: bool) -> ConfigResult<()> {
        let name: Arc<str> = proto.name.as_str().into();
        if let Some(entry) = self.clusters.get(&name) {
            if entry.is_static {
                tracing::debug!(cluster = %name, "a static cluster is not replaced by a discovered one");
                return Ok(());
            }
            if entry
                .newest()
                .is_some_and(|v| v.source.resource == source.resource)
            {
                return Ok(());
            }
        }
        let compiled = ClusterConfig::compile_with(proto, &self.stats, &mut self.store);
        self.carry_out_secret_requests();
        let config = Arc::new(compiled?);
        let timeout = endpoints_timeout(proto, &config)?;
        let slot = self.names.cluster(&name);
        let entry = self.clusters.entry(Arc::clone(&name));
        let entry = entry.or_insert(ClusterEntry {
            slot,
            is_static,
            active: None,
            warming: None,
            refused: None,
        });
        let dropped = entry.warming.replace(ClusterVersion {
            source,
            config: Arc::clone(&config),
            endpoints: None,
        });
        match (config.initial_endpoints(), &config.discovery) {
            (Some(endpoints), _) => self.activate(&name, endpoints),
            (None, Discovery::Eds { service_name }) => self.await_endpoints(&name, service_name, timeout),
            (None, _) => self.push(Action::Resolve {
                slot,
                config: Arc::clone(&config),
            }),
        }
        self.let_go_of_endpoints(&name, dropped);
        Ok(())
    }

    fn await_endpoints(&mut self, cluster: &Arc<str>, service: &str, timeout: Duration) {
        let service: Arc<str> = service.into();
        if let Some(entry) = self.endpoints.get_mut(&service) {
            entry.add_cluster(cluster);
            if let Some(known) = entry.decoded() {
                match self.compile_endpoints(cluster, &known) {
                    Ok(endpoints) => return self.activate(cluster, endpoints),
                    Err(error) => tracing::warn!(%cluster, %error, "known endpoints do not fit the cluster"),
                }
            }
        } else {
            self.push(Action::Subscribe {
                type_url: type_url::ENDPOINT,
                name: Arc::clone(&service),
            });
            let mut entry = super::EndpointsEntry::default();
            entry.add_cluster(cluster);
            self.endpoints.insert(Arc::clone(&service), entry);
        }
        self.wait(Waiting::Endpoints(service), timeout);
    }

    /// Compiles endpoints for the newest version of a cluster that uses them, sharing what did not change.
    pub(super) fn compile_endpoints(
        &self,
        cluster: &str,
        proto: &ClusterLoadAssignment,
    ) -> ConfigResult<Arc<Assignment>> {
        let Some(entry) = self.clusters.get(cluster) else {
            return Ok(Arc::default());
        };
        let mut versions = entry.warming.iter().chain(&entry.active);
        let Some(newest) = versions.find(|v| v.uses(&proto.cluster_name)) else {
            return Ok(Arc::default());
        };
        let previous = entry.active.as_ref().and_then(|v| v.endpoints.as_deref());
        Assignment::compile(proto, &newest.config.transport, previous).map(Arc::new)
    }

    /// Puts the newest version of a cluster in force with these endpoints, once its secrets are there.
    pub(super) fn activate(&mut self, name: &str, endpoints: Arc<Assignment>) {
        let warming = self.clusters.get(name).and_then(|entry| entry.warming.as_ref());
        let waits = warming.is_some_and(|v| !self.secrets_are_ready(v.config.transport.secrets()));
        let Some(entry) = self.clusters.get_mut(name) else {
            return;
        };
        if let Some(version) = entry.warming.as_mut().filter(|_| waits) {
            version.endpoints = Some(endpoints);
            return;
        }
        let slot = entry.slot;
        if let Some(mut version) = entry.warming.take() {
            version.endpoints = Some(Arc::clone(&endpoints));
            let config = Arc::clone(&version.config);
            let before = entry.active.replace(version);
            self.push(Action::ApplyCluster {
                slot,
                config,
                endpoints,
            });
            self.let_go_of_endpoints(name, before);
        } else if let Some(active) = &mut entry.active {
            active.endpoints = Some(Arc::clone(&endpoints));
            self.push(Action::ApplyEndpoints { slot, endpoints });
        }
        self.advance();
    }

    /// A cluster gets the endpoints of a service. A version that waits for others is not put in force by them.
    pub(super) fn deliver_endpoints(
        &mut self,
        name: &str,
        proto: &ClusterLoadAssignment,
        endpoints: Arc<Assignment>,
    ) {
        let newest = self.clusters.get(name).and_then(ClusterEntry::newest);
        if newest.is_some_and(|v| v.uses(&proto.cluster_name)) {
            self.activate(name, endpoints);
        }
        self.update_active_endpoints(name, proto);
    }

    /// Where a newer version of a cluster is still warming, the version in force gets its endpoints too.
    fn update_active_endpoints(&mut self, name: &str, proto: &ClusterLoadAssignment) {
        let Some(entry) = self
            .clusters
            .get_mut(name)
            .filter(|entry| entry.warming.is_some())
        else {
            return;
        };
        let slot = entry.slot;
        let active = entry.active.as_mut();
        let Some(active) = active.filter(|v| v.uses(&proto.cluster_name)) else {
            return;
        };
        let previous = active.endpoints.as_deref();
        match Assignment::compile(proto, &active.config.transport, previous).map(Arc::new) {
            Ok(endpoints) => {
                active.endpoints = Some(Arc::clone(&endpoints));
                self.push(Action::ApplyEndpoints { slot, endpoints });
            }
            Err(error) => {
                tracing::warn!(cluster = %name, %error, "endpoints do not fit the cluster in force")
            }
        }
    }

    /// Puts clusters in force that waited for nothing but secrets.
    pub(super) fn warm_clusters(&mut self) {
        let warming = self.clusters.iter().filter_map(|(name, entry)| {
            let version = entry.warming.as_ref()?;
            let endpoints = version.endpoints.as_ref()?;
            let ready = self.secrets_are_ready(version.config.transport.secrets());
            ready.then(|| (Arc::clone(name), Arc::clone(endpoints)))
        });
        for (name, endpoints) in warming.collect::<Vec<_>>() {
            self.activate(&name, endpoints);
        }
    }

    /// The names of a cluster were resolved (or could not be: then to no endpoints). A result for a version that is
    /// gone is dropped.
    pub fn resolved(&mut self, slot: ClusterSlot, config: &Arc<ClusterConfig>, endpoints: Arc<Assignment>) {
        let Some(name) = self.names.clusters.name(slot).cloned() else {
            return;
        };
        let Some(entry) = self.clusters.get(&name) else {
            return;
        };
        if entry.newest().is_some_and(|v| Arc::ptr_eq(&v.config, config)) {
            self.activate(&name, endpoints);
        }
    }

    /// CDS no longer has a cluster.
    pub fn remove_cluster(&mut self, name: &str) {
        if self.clusters.get(name).is_none_or(|entry| entry.is_static) {
            return;
        }
        let Some(entry) = self.clusters.shift_remove(name) else {
            return;
        };
        self.push(Action::RemoveCluster { slot: entry.slot });
        self.let_go_of_endpoints(name, entry.active);
        self.let_go_of_endpoints(name, entry.warming);
        self.advance();
    }

    /// A version of a cluster is gone. When the cluster no longer uses its endpoints, and no other does, they are no
    /// longer wanted.
    fn let_go_of_endpoints(&mut self, cluster: &str, version: Option<ClusterVersion>) {
        let Some(service) = version.as_ref().and_then(ClusterVersion::service_name) else {
            return;
        };
        if let Some(entry) = self.clusters.get(cluster) {
            let mut versions = entry.active.iter().chain(&entry.warming);
            if versions.any(|v| v.uses(service)) {
                return;
            }
        }
        let Some(entry) = self.endpoints.get_mut(service) else {
            return;
        };
        entry.clusters.retain(|name| **name != *cluster);
        if entry.clusters.is_empty()
            && let Some((name, _)) = self.endpoints.shift_remove_entry(service)
        {
            self.push(Action::Unsubscribe {
                type_url: type_url::ENDPOINT,
                name,
            });
        }
    }

    /// The names of the clusters that get their endpoints under `service`.
    pub(super) fn clusters_of(&self, service: &str) -> &[Arc<str>] {
        self.endpoints.get(service).map_or(&[], |entry| &entry.clusters)
    }

    pub(super) fn clusters_are_warm(&self) -> bool {
        self.clusters.values().all(|entry| entry.warming.is_none())
    }

    /// Clusters whose endpoints do not come go on without. Those that have them, or wait for others, are left alone.
    pub(super) fn endpoints_timed_out(&mut self, service: &Arc<str>) {
        let waits = |name: &&Arc<str>| {
            let warming = self.clusters.get(&***name).and_then(|e| e.warming.as_ref());
            warming.is_some_and(|v| v.endpoints.is_none() && v.uses(service))
        };
        let names: Vec<_> = self.clusters_of(service).iter().filter(waits).cloned().collect();
        for name in names {
            tracing::warn!(cluster = %name, "no endpoints within initial_fetch_timeout");
            self.activate(&name, Arc::default());
        }
    }
}

/// # Errors
/// The bytes are no cluster.
fn unpack(source: &Source) -> ConfigResult<Cluster> {
    any::unpack(&source.resource).map_err(|e| ConfigError::new(e.to_string()))
}

/// The `initial_fetch_timeout` of a cluster's endpoints.
fn endpoints_timeout(proto: &Cluster, config: &ClusterConfig) -> ConfigResult<Duration> {
    match &config.discovery {
        Discovery::Eds { .. } => {
            let source = proto
                .eds_cluster_config
                .as_ref()
                .and_then(|eds| eds.eds_config.as_ref());
            ads_source(source)
                .within("eds_config")
                .within("eds_cluster_config")
        }
        _ => Ok(Duration::ZERO),
    }
}
