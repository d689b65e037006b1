//! What a registry is made of.

use std::collections::BTreeSet;

use api_istio::networking::{ServiceEntry, WorkloadEntry};

use crate::config::Config;
use crate::kubernetes::{EndpointSlice, Node, Pod, Service};
use crate::mesh::Mesh;
use crate::objects::{Objects, Settings};
use crate::peer_authentication::PeerAuthentications;
use crate::shared::Shared;
use crate::table::{Key, Table};

/// All that a registry is made of: it sees nothing else of the world, so equal ones make equal registries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Inputs {
    pub(super) workloads: WorkloadInputs,
    pub(super) services: Table<Service>,
    pub(super) endpoint_slices: Table<EndpointSlice>,
    pub(super) service_entries: Table<Config<ServiceEntry>>,
    pub(super) peers: PeerAuthentications,
}

/// All that its workloads are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WorkloadInputs {
    pub(super) common: Common,
    pub(super) pods: Table<Pod>,
    pub(super) entries: Table<Config<WorkloadEntry>>,
    pub(super) unhealthy_entries: BTreeSet<Key>,
}

/// What matters to each of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Common {
    pub(super) settings: Settings,
    pub(super) mesh: Shared<Mesh>,
    pub(super) nodes: Table<Node>,
}

impl Inputs {
    pub(crate) fn of(objects: &Objects, peers: &PeerAuthentications) -> Self {
        Self {
            workloads: WorkloadInputs {
                common: Common {
                    settings: objects.settings.clone(),
                    mesh: objects.mesh.clone(),
                    nodes: objects.nodes.clone(),
                },
                pods: objects.pods.clone(),
                entries: objects.workload_entries.clone(),
                unhealthy_entries: objects.unhealthy_entries.clone(),
            },
            services: objects.services.clone(),
            endpoint_slices: objects.endpoint_slices.clone(),
            service_entries: objects.service_entries.clone(),
            peers: peers.clone(),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.workloads.common.settings
    }

    pub(super) fn mesh(&self) -> &Mesh {
        &self.workloads.common.mesh
    }
}
