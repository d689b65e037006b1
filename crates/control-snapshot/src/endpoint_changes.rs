//! Which endpoints differ between two worlds: worked out once, where every proxy would ask for each of its clusters.

use std::collections::HashSet;
use std::sync::Arc;

use crate::snapshot::{Snapshot, parse_cluster_name};

/// So many hosts are tried one by one.
const FEW: usize = 4;

/// The services whose endpoints differ between two worlds that are otherwise, for endpoints, the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointChanges {
    hosts: HashSet<Arc<str>>,
}

impl EndpointChanges {
    /// What differs between a world and an earlier one. Nothing comes of it when something else differs that
    /// [`Snapshot::endpoint_view`] looks at: then every cluster of every proxy has to be looked at.
    #[must_use]
    pub fn between(earlier: &Snapshot, later: &Snapshot) -> Option<Self> {
        let same = later.mesh() == earlier.mesh()
            && later.registry().services == earlier.registry().services
            && later.destination_rules() == earlier.destination_rules();
        same.then(|| Self {
            hosts: match std::ptr::eq(later.registry(), earlier.registry()) {
                true => HashSet::new(),
                false => later.registry().hosts_with_other_endpoints(earlier.registry()),
            },
        })
    }

    /// Whether the endpoints of a cluster may differ, whichever proxy asks.
    #[must_use]
    pub fn concern(&self, cluster: &str) -> bool {
        // Mostly the endpoints of one service have changed, and the end of a name is looked at sooner than all of it.
        if self.hosts.len() <= FEW && !self.hosts.iter().any(|host| cluster.ends_with(&**host)) {
            return false;
        }
        parse_cluster_name(cluster).is_some_and(|(.., host)| self.hosts.contains(host))
    }
}
