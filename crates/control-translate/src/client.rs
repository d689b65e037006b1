//! Who calls, as far as that decides what a cluster is like.

use control_snapshot::{Mesh, ProxyKind, ProxyView, Shared};

/// Everything that an outbound cluster depends on beside the service that it leads to. Clusters are made of this and
/// not of the view, so that proxies of which this is equal have them in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    /// What it is for.
    pub(crate) kind: ProxyKind,
    /// Whether it names its requests' protocols in ALPN as the mesh does.
    pub(crate) announces_protocols: bool,
    /// Whether it exchanges metadata with its peers on connections that carry bytes.
    pub(crate) exchanges_metadata: bool,
    /// Whether it carries streams inside HTTP.
    pub(crate) tunnels: bool,
    /// Whether it has an identity to show.
    pub(crate) identity: bool,
    /// MeshConfig.
    pub(crate) mesh: Shared<Mesh>,
}

impl Client {
    pub(crate) fn of(view: &ProxyView) -> Self {
        Self {
            kind: view.profile.kind,
            announces_protocols: view.profile.announces_protocols,
            exchanges_metadata: view.profile.exchanges_metadata,
            tunnels: view.profile.tunnels,
            identity: view.identity,
            mesh: view.mesh.clone(),
        }
    }
}
