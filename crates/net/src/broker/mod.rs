//! The socket broker: who opens the sockets of a sidecar that does not live where its traffic is.
//!
//! On a laptop an application runs in a network namespace of its own and its sidecar runs outside. The sidecar is an
//! ordinary proxy with ordinary configuration (virtualOutbound on 15001, virtualInbound on 15006); only where its
//! sockets come from differs. So instead of binding, it asks the broker, which the agent serves on a Unix socket:
//!
//! | the sidecar asks for | the broker answers with |
//! |---|---|
//! | `listen 0.0.0.0:15001` | a listener inside the application's namespace, where rules redirect connections to it |
//! | `listen 0.0.0.0:15006` | listeners on the workload's own host address, one per service port |
//! | `listen` anything else | a listener on the host, moved to a free port when taken |
//! | `socket` | sockets made inside the namespace, to reach the application |
//!
//! Where the application shares the host's network the listeners and sockets are the host's, and the broker says at
//! which other addresses the application listens.
//!
//! The broker knows none of this: it carries the questions to a [`Policy`] (see crate `agent`).

mod client;
mod server;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

pub use crate::socket::Family;
pub use client::{Broker, Sockets};
pub use server::{Server, serve_channel};

/// How a brokered listener learns where a connection was meant to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// An ordinary listener: there is no other destination than the listener.
    Plain,
    /// Connections were redirected to it: `SO_ORIGINAL_DST` tells the destination.
    Redirected,
    /// Connections dialled it: the local address of each connection is the destination.
    Direct,
}

/// A listening socket that the broker opened.
#[derive(Debug)]
pub struct BrokeredListener {
    /// The socket: listening, non-blocking, close-on-exec.
    pub fd: OwnedFd,
    /// How to find the original destination of its connections.
    pub kind: ListenerKind,
    /// The address that it is bound to; differs from the one that was asked for, see [`ListenerKind`].
    pub local_addr: SocketAddr,
}

/// What a broker grants. Calls come from one thread, one at a time, and should return in well under a millisecond.
pub trait Policy {
    /// Opens the listeners that stand for `address`. Asked again for the same address (by another worker of the proxy),
    /// it opens them again, on the same ports.
    ///
    /// # Errors
    /// The reason, which the sidecar reports as the failure of its listener.
    fn listen(&mut self, address: SocketAddr) -> io::Result<Vec<BrokeredListener>>;

    /// A channel on which [`serve_channel`] mints sockets, or `None` when the application shares the host's network.
    ///
    /// # Errors
    /// The reason why the namespace cannot be reached.
    fn namespace_channel(&mut self) -> io::Result<Option<OwnedFd>>;

    /// Where the application listens, if not where the configuration says: the configuration's address, and the real
    /// one. Asked once per sidecar.
    fn moved(&self) -> Vec<(SocketAddr, SocketAddr)> {
        Vec::new()
    }
}
