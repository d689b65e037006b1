//! The listening sockets of the process, made on the main thread so that a taken port is a refusal of the listener.
//!
//! Sockets belong to a listener's name and addresses: an update that keeps the addresses keeps the sockets, so nothing
//! that waits in an accept queue is lost.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use net::broker::{Broker, ListenerKind};
use net::socket::PortSharing;
use proxy_config::address::BindAddress;
use proxy_core::{ConfigError, ConfigResult};

use crate::command::{ListenSocket, Listener};

/// The sockets of all listeners.
#[derive(Debug)]
pub(crate) struct Sockets {
    workers: usize,
    broker: Option<Arc<Broker>>,
    listeners: HashMap<Arc<str>, Bound>,
}

/// The sockets of one listener.
#[derive(Debug, Default)]
struct Bound {
    /// The addresses whose sockets the workers have.
    delivered: Option<Vec<BindAddress>>,
    /// Sockets that wait for their listener to be warm.
    pending: Option<Pending>,
    /// The addresses that the sockets got.
    local: Vec<BindAddress>,
}

#[derive(Debug)]
struct Pending {
    addresses: Vec<BindAddress>,
    /// For each worker.
    sockets: Vec<Vec<ListenSocket>>,
    local: Vec<BindAddress>,
}

impl Sockets {
    /// No sockets yet. With a broker, its agent opens them.
    pub(crate) fn new(workers: usize, broker: Option<Arc<Broker>>) -> Self {
        Self {
            workers,
            broker,
            listeners: HashMap::new(),
        }
    }

    /// For checking configuration: every listener counts as bound.
    pub(crate) fn that_bind_nothing() -> Self {
        Self::new(0, None)
    }

    /// Binds the addresses of a listener, unless the version before has them.
    pub(crate) fn bind(&mut self, config: &Listener) -> ConfigResult<()> {
        if !config.bind_to_port || self.workers == 0 {
            return Ok(());
        }
        let bound = self.listeners.entry(Arc::clone(&config.name)).or_default();
        if bound
            .pending
            .as_ref()
            .is_some_and(|pending| pending.addresses == config.addresses)
        {
            return Ok(());
        }
        bound.pending = None;
        if bound.delivered.as_ref() == Some(&config.addresses) {
            return Ok(());
        }
        let mut pending = Pending {
            addresses: config.addresses.clone(),
            sockets: (0..self.workers).map(|_| Vec::new()).collect(),
            local: Vec::new(),
        };
        for address in &config.addresses {
            let opened = open(address, config, &mut pending, self.broker.as_deref());
            opened.map_err(|e| ConfigError::at("address", format!("cannot bind '{address}': {e}")))?;
        }
        for socket in pending.sockets.iter().flatten() {
            let set = net::socket::set_backlog(&socket.fd, config.socket.backlog);
            set.map_err(|e| ConfigError::at("tcp_backlog_size", e.to_string()))?;
        }
        bound.pending = Some(pending);
        Ok(())
    }

    /// The new sockets of a listener that goes in force, for each worker; none when it keeps its sockets.
    pub(crate) fn deliver(&mut self, config: &Listener) -> Option<Vec<Vec<ListenSocket>>> {
        if !config.bind_to_port {
            // An update may give up the sockets of the version before.
            let had = self
                .listeners
                .remove(&config.name)
                .is_some_and(|bound| bound.delivered.is_some());
            return had.then(|| (0..self.workers).map(|_| Vec::new()).collect());
        }
        let bound = self.listeners.get_mut(&config.name)?;
        let pending = bound.pending.take()?;
        bound.delivered = Some(pending.addresses);
        bound.local = pending.local;
        Some(pending.sockets)
    }

    /// Forgets a listener that is gone.
    pub(crate) fn forget(&mut self, name: &str) {
        self.listeners.remove(name);
    }

    /// The addresses that a listener's sockets got.
    pub(crate) fn local(&self, name: &str) -> &[BindAddress] {
        self.listeners.get(name).map_or(&[], |bound| &bound.local)
    }
}

fn open(
    address: &BindAddress,
    config: &Listener,
    pending: &mut Pending,
    broker: Option<&Broker>,
) -> io::Result<()> {
    match address {
        BindAddress::Ip(address) => match broker {
            Some(broker) => open_brokered(*address, broker, pending),
            None => open_ip(*address, config.socket.reuse_port, pending),
        },
        BindAddress::Pipe { path, mode } => open_pipe(path, *mode, pending),
    }
}

fn open_ip(address: SocketAddr, reuse_port: bool, pending: &mut Pending) -> io::Result<()> {
    // Sockets that share a port share it with any process of the same user, which would be a silent mistake.
    if address.port() != 0 && !net::socket::is_free(address) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let sharing = if reuse_port {
        PortSharing::Shared
    } else {
        PortSharing::Exclusive
    };
    let first = net::socket::listen(address, sharing)?;
    let local = net::socket::local_address(&first)?;
    pending.local.push(BindAddress::Ip(local));
    pending.sockets[0].push(ListenSocket {
        fd: first,
        kind: ListenerKind::Plain,
        is_unix: false,
    });
    if !reuse_port {
        return share_first(pending);
    }
    for sockets in &mut pending.sockets[1..] {
        let fd = net::socket::listen(local, sharing)?;
        sockets.push(ListenSocket {
            fd,
            kind: ListenerKind::Plain,
            is_unix: false,
        });
    }
    Ok(())
}

/// Gives every worker a duplicate of the socket that the first has: they take turns at one accept queue.
fn share_first(pending: &mut Pending) -> io::Result<()> {
    let (first, others) = pending.sockets.split_first_mut().expect("there is a worker");
    let Some(socket) = first.last() else { return Ok(()) };
    for sockets in others {
        let fd = socket.fd.try_clone()?;
        sockets.push(ListenSocket {
            fd,
            kind: socket.kind,
            is_unix: socket.is_unix,
        });
    }
    Ok(())
}

fn open_brokered(address: SocketAddr, broker: &Broker, pending: &mut Pending) -> io::Result<()> {
    for (worker, sockets) in pending.sockets.iter_mut().enumerate() {
        for brokered in broker.listen(address)? {
            if worker == 0 {
                pending.local.push(BindAddress::Ip(brokered.local_addr));
            }
            sockets.push(ListenSocket {
                fd: brokered.fd,
                kind: brokered.kind,
                is_unix: false,
            });
        }
    }
    Ok(())
}

fn open_pipe(path: &str, mode: u32, pending: &mut Pending) -> io::Result<()> {
    let listener = match path.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            UnixListener::bind_addr(&address)?
        }
        None => {
            // What a process before left behind, as Envoy does.
            let _ = std::fs::remove_file(path);
            UnixListener::bind(path)?
        }
    };
    if mode != 0 && !path.starts_with('@') {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    listener.set_nonblocking(true)?;
    pending.local.push(BindAddress::Pipe {
        path: path.to_owned(),
        mode,
    });
    let fd = OwnedFd::from(listener);
    pending.sockets[0].push(ListenSocket {
        fd,
        kind: ListenerKind::Plain,
        is_unix: true,
    });
    share_first(pending)
}
