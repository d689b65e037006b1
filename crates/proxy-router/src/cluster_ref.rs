//! Clusters as routes name them: in the configuration, or by a header of the request.

use proxy_core::ClusterSlot;
use proxy_http::{HeaderName, RequestHead};

use crate::filter_config::RouteContext;

/// A cluster by its name and slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCluster {
    /// The name.
    pub name: Box<str>,
    /// The slot of the name.
    pub slot: ClusterSlot,
}

impl NamedCluster {
    pub(crate) fn new(name: &str, context: &mut dyn RouteContext) -> Self {
        Self {
            name: name.into(),
            slot: context.cluster(name),
        }
    }
}

/// The cluster of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterRef<'r> {
    /// Named by the configuration.
    Slot(ClusterSlot, &'r str),
    /// Named by a header of the request; `None` when the header is missing.
    Header(Option<&'r str>),
}

/// Where a route, or one cluster of a split, takes its cluster from.
#[derive(Clone, Debug)]
pub(crate) enum ClusterSource {
    Named(NamedCluster),
    /// The header that names it.
    Header(HeaderName),
}

impl ClusterSource {
    pub(crate) fn cluster<'r>(&'r self, request: &'r RequestHead) -> ClusterRef<'r> {
        match self {
            Self::Named(named) => ClusterRef::Slot(named.slot, &named.name),
            Self::Header(header) => {
                let name = request.headers.get(header);
                ClusterRef::Header(name.and_then(|name| std::str::from_utf8(name).ok()))
            }
        }
    }
}
