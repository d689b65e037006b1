//! The clusters of one worker, by slot.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use foldhash::{HashMap, HashMapExt as _};
use proxy_core::ClusterSlot;
use telemetry::stats::Shard;

use crate::cluster::Cluster;
use crate::config::ClusterConfig;
use crate::connect::Dialer;
use crate::endpoints::Assignment;
use crate::snapshot::ClusterSnapshot;

/// A change that the main thread sends to every worker.
#[derive(Clone, Debug)]
pub enum ClusterUpdate {
    /// A cluster is new, or its configuration changed. In the second case its connections are drained.
    Put {
        /// The slot of its name.
        slot: ClusterSlot,
        /// The configuration.
        config: Arc<ClusterConfig>,
        /// Its endpoints; a cluster is only sent once it has them.
        endpoints: Arc<Assignment>,
    },
    /// A cluster's endpoints changed.
    Endpoints {
        /// The slot of its name.
        slot: ClusterSlot,
        /// All its endpoints.
        endpoints: Arc<Assignment>,
    },
    /// A cluster is gone.
    Remove {
        /// The slot of its name.
        slot: ClusterSlot,
    },
}

/// The clusters of one worker. Not `Send`: each worker has its own.
pub struct ClusterManager {
    clusters: Vec<Option<Rc<Cluster>>>,
    /// A name keeps its slot, so that of a cluster that is gone leads to an empty place.
    by_name: HashMap<Arc<str>, ClusterSlot>,
    shard: Shard,
    seed: u64,
    dialer: Option<Rc<dyn Dialer>>,
    reports_membership: bool,
}

impl std::fmt::Debug for ClusterManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterManager")
            .field("clusters", &self.clusters)
            .finish_non_exhaustive()
    }
}

impl ClusterManager {
    /// A worker without clusters. `seed` sets where load balancing begins; `dialer` makes the sockets of clusters bound
    /// to a source address, when they cannot be made in this process.
    #[must_use]
    pub fn new(shard: Shard, seed: u64, dialer: Option<Rc<dyn Dialer>>) -> Self {
        Self {
            clusters: Vec::new(),
            by_name: HashMap::new(),
            shard,
            seed,
            dialer,
            reports_membership: false,
        }
    }

    /// Makes this worker set the gauges `membership_total` and its like, which are the same on all. One worker must.
    pub fn report_membership(&mut self) {
        self.reports_membership = true;
    }

    /// The cluster in a slot.
    #[must_use]
    #[inline]
    pub fn get(&self, slot: ClusterSlot) -> Option<&Rc<Cluster>> {
        self.clusters.get(slot.index())?.as_ref()
    }

    /// The cluster called `name`, for those whose name only a request tells.
    #[must_use]
    pub fn get_by_name(&self, name: &str) -> Option<&Rc<Cluster>> {
        self.get(*self.by_name.get(name)?)
    }

    /// All clusters.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Cluster>> {
        self.clusters.iter().flatten()
    }

    /// What makes the sockets of clusters that are bound to a source address.
    #[must_use]
    pub fn dialer(&self) -> Option<&Rc<dyn Dialer>> {
        self.dialer.as_ref()
    }

    /// Carries out a change. Hosts that it brings are new from `now` on.
    pub fn apply(&mut self, update: ClusterUpdate, now: Instant) {
        match update {
            ClusterUpdate::Put {
                slot,
                config,
                endpoints,
            } => {
                self.seed = self.seed.wrapping_add(1);
                self.by_name.insert(Arc::clone(&config.name), slot);
                let cluster = Cluster::new(
                    config,
                    endpoints,
                    self.shard.clone(),
                    self.seed,
                    self.reports_membership,
                    now,
                );
                self.replace(slot, Some(cluster));
            }
            ClusterUpdate::Endpoints { slot, endpoints } => {
                if let Some(cluster) = self.get(slot) {
                    cluster.update_endpoints(endpoints, now);
                }
            }
            ClusterUpdate::Remove { slot } => self.replace(slot, None),
        }
    }

    fn replace(&mut self, slot: ClusterSlot, cluster: Option<Rc<Cluster>>) {
        if self.clusters.len() <= slot.index() {
            self.clusters.resize_with(slot.index() + 1, || None);
        }
        if let Some(before) = std::mem::replace(&mut self.clusters[slot.index()], cluster) {
            before.close();
        }
    }

    /// Housekeeping: idle connections, unused destinations, ejections. To be called about once a second.
    pub fn tick(&self, now: Instant) {
        self.iter().for_each(|cluster| cluster.tick(now));
    }

    /// What `/clusters` shows, as this worker sees it; see [`ClusterSnapshot::merge`].
    #[must_use]
    pub fn snapshot(&self) -> Vec<ClusterSnapshot> {
        self.iter()
            .map(|cluster| ClusterSnapshot::take(cluster))
            .collect()
    }
}
