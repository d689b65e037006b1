//! What the admin endpoint `/clusters` shows (`envoy.admin.v3.ClusterStatus`), gathered per worker and merged.

use std::cell::Cell;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::config::ClusterConfig;
use crate::endpoints::HostSpec;
use crate::host::Host;

/// One cluster.
#[derive(Clone, Debug)]
pub struct ClusterSnapshot {
    /// Its configuration.
    pub config: Arc<ClusterConfig>,
    /// Its hosts, in the order of priorities and localities; those of `ORIGINAL_DST` clusters by address.
    pub hosts: Vec<HostSnapshot>,
}

/// One host. Counts are those of the workers merged so far.
#[derive(Clone, Debug)]
pub struct HostSnapshot {
    /// Its configuration: address, weight, locality, priority, health from EDS, metadata.
    pub spec: Arc<HostSpec>,
    /// Whether outlier detection ejected it (`failed_outlier_check`).
    pub ejected: bool,
    /// Open connections.
    pub cx_active: u64,
    /// Connections that could not be established.
    pub cx_connect_fail: u64,
    /// Connections made or tried.
    pub cx_total: u64,
    /// Requests in flight.
    pub rq_active: u64,
    /// Requests that failed.
    pub rq_error: u64,
    /// Requests that succeeded.
    pub rq_success: u64,
    /// Requests that timed out.
    pub rq_timeout: u64,
    /// Requests.
    pub rq_total: u64,
}

impl ClusterSnapshot {
    pub(crate) fn take(cluster: &Cluster) -> Self {
        let mut hosts: Vec<_> = cluster
            .hosts()
            .iter()
            .map(|host| HostSnapshot::take(host))
            .collect();
        if cluster.endpoints().priorities.is_empty() {
            hosts.sort_by(|a, b| a.spec.key.cmp(&b.spec.key));
        }
        Self {
            config: Arc::clone(cluster.shared_config()),
            hosts,
        }
    }

    /// Adds another worker's view of the same cluster.
    pub fn merge(&mut self, other: Self) {
        for host in other.hosts {
            match self.hosts.iter_mut().find(|mine| mine.spec.key == host.spec.key) {
                Some(mine) => mine.add(&host),
                None => self.hosts.push(host),
            }
        }
    }
}

impl HostSnapshot {
    fn take(host: &Host) -> Self {
        let counts = host.counts();
        Self {
            spec: host.spec(),
            ejected: host.is_ejected(),
            cx_active: host.active_connections().into(),
            cx_connect_fail: Cell::get(&counts.cx_connect_fail),
            cx_total: Cell::get(&counts.cx_total),
            rq_active: host.active_requests().into(),
            rq_error: Cell::get(&counts.rq_error),
            rq_success: Cell::get(&counts.rq_success),
            rq_timeout: Cell::get(&counts.rq_timeout),
            rq_total: Cell::get(&counts.rq_total),
        }
    }

    fn add(&mut self, other: &Self) {
        self.ejected |= other.ejected;
        self.cx_active += other.cx_active;
        self.cx_connect_fail += other.cx_connect_fail;
        self.cx_total += other.cx_total;
        self.rq_active += other.rq_active;
        self.rq_error += other.rq_error;
        self.rq_success += other.rq_success;
        self.rq_timeout += other.rq_timeout;
        self.rq_total += other.rq_total;
    }
}
