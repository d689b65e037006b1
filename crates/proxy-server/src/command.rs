//! What the main thread, and other workers, ask of a worker.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use net::broker::ListenerKind;
use proxy_config::{ListenerConfig, RouteSlot};
use proxy_router::RouteTable;
use proxy_upstream::ClusterUpdate;

use crate::http::HttpConfig;
use crate::local::Local;

/// A listener with its HTTP connection managers.
pub type Listener = ListenerConfig<Arc<HttpConfig>>;

/// Something to do on a worker.
pub enum Command {
    /// A cluster changed.
    Cluster(ClusterUpdate),
    /// A route configuration changed, or is gone.
    Routes {
        /// Its slot.
        slot: RouteSlot,
        /// The table.
        table: Option<Arc<RouteTable>>,
    },
    /// A listener is new or changed.
    PutListener(Box<PutListener>),
    /// A listener is gone.
    RemoveListener {
        /// Its name.
        name: Arc<str>,
        /// How its connections end.
        drain: DrainPlan,
    },
    /// Listeners drain because somebody asked for it.
    DrainListeners {
        /// How connections end.
        drain: DrainPlan,
        /// Only those with direction inbound.
        inbound_only: bool,
        /// Whether they stop taking connections at once.
        stop_accepting: bool,
    },
    /// A connection that another worker accepted.
    Connection(HandedOver),
    /// Looks at what the worker has and reports elsewhere.
    Inspect(Box<dyn FnOnce(&Local) + Send>),
    /// Ends the worker.
    Stop,
}

/// A listener to put in force.
#[derive(Debug)]
pub struct PutListener {
    /// Its configuration.
    pub config: Arc<Listener>,
    /// Its sockets on this worker, when they are new; otherwise those of the version before go on.
    pub sockets: Option<Vec<ListenSocket>>,
    /// How connections of the version before end.
    pub drain: DrainPlan,
}

/// A listening socket.
#[derive(Debug)]
pub struct ListenSocket {
    /// The socket: listening and non-blocking.
    pub fd: OwnedFd,
    /// How the original destination of its connections is found.
    pub kind: ListenerKind,
    /// Whether it is a Unix domain socket.
    pub is_unix: bool,
}

/// How connections end when their listener is replaced or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// How long they may go on.
    pub time: Duration,
    /// Whether HTTP connections close at the first occasion.
    pub immediate: bool,
}

/// An accepted connection on its way to another worker.
#[derive(Debug)]
pub struct HandedOver {
    /// The listener that accepted it.
    pub listener: Arc<str>,
    /// The socket.
    pub fd: OwnedFd,
    /// Who is at its other end, where that has an address.
    pub peer: Option<SocketAddr>,
    /// How the original destination is found.
    pub kind: ListenerKind,
    /// Whether it is a Unix domain socket.
    pub is_unix: bool,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cluster(_) => "Cluster",
            Self::Routes { .. } => "Routes",
            Self::PutListener(_) => "PutListener",
            Self::RemoveListener { .. } => "RemoveListener",
            Self::DrainListeners { .. } => "DrainListeners",
            Self::Connection(_) => "Connection",
            Self::Inspect(_) => "Inspect",
            Self::Stop => "Stop",
        })
    }
}
