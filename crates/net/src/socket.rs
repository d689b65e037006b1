//! TCP sockets as a proxy needs them: shared listening ports, keepalive, and the address that a redirected
//! connection was meant for (`SO_ORIGINAL_DST`, netfilter's `nf_nat`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::LISTEN_BACKLOG;

/// Whether several sockets may listen on the same port (`SO_REUSEPORT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSharing {
    /// Each worker has a listener of its own and the kernel spreads connections over them.
    Shared,
    /// A second listener on the port is refused with `AddrInUse`.
    Exclusive,
}

/// Opens a non-blocking TCP listener with `SO_REUSEADDR`, close-on-exec and, if asked, `SO_REUSEPORT`.
///
/// An IPv6 wildcard listens to IPv6 only, as Envoy does unless `ipv4_compat` is set.
///
/// # Errors
/// What `socket`, `bind` or `listen` report: `AddrInUse` for a taken port, `PermissionDenied` for a privileged one.
pub fn listen(address: SocketAddr, sharing: PortSharing) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if sharing == PortSharing::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Changes how many connections may wait to be accepted; the kernel has a limit of its own (`somaxconn`). For any
/// kind of listening socket, whoever opened it.
///
/// # Errors
/// What `listen` reports.
pub fn set_backlog(listener: impl AsFd, connections: u32) -> io::Result<()> {
    SockRef::from(&listener).listen(i32::try_from(connections).unwrap_or(i32::MAX))
}

/// Whether nobody listens on this address now. The answer can be outdated at once, so a caller still handles `AddrInUse`.
///
/// A probe is needed because two processes of the same user that both set `SO_REUSEPORT` would silently share the port.
#[must_use]
pub fn is_free(address: SocketAddr) -> bool {
    listen(address, PortSharing::Exclusive).is_ok()
}

/// Completes when the other side has closed a connection or reset it, whatever it has sent before that nobody has read. The
/// socket is a duplicate of the connection's: whoever reads and writes is not disturbed.
///
/// # Errors
/// What the registration with the runtime reports.
pub async fn until_closed(socket: OwnedFd) -> io::Result<()> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, which is when the registration is.
    #[allow(unsafe_code, reason = "tokio cannot see that the descriptor stays open")]
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
    loop {
        let mut ready = socket.ready(Interest::READABLE).await?;
        if ready.ready().is_read_closed() {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// An unbound, non-blocking TCP socket of the given family.
///
/// # Errors
/// What `socket` reports, for instance that the process has no descriptor left.
pub fn unbound(family: Family) -> io::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A bound, non-blocking UDP socket.
///
/// # Errors
/// What `socket` or `bind` report.
pub fn datagram(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The address families that a mesh speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The address that the client dialled before a netfilter rule redirected the connection (`SO_ORIGINAL_DST`).
///
/// # Errors
/// `NotFound` or `InvalidInput` when the connection was not redirected in the network namespace of its listener.
pub fn original_destination(connection: impl AsFd) -> io::Result<SocketAddr> {
    let socket = SockRef::from(&connection);
    let local = socket.local_addr()?;
    let original = if local.as_socket_ipv6().is_some() {
        socket.original_dst_v6()?
    } else {
        socket.original_dst_v4()?
    };
    original
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The address that this end of a connection, or a listener, is bound to.
///
/// # Errors
/// What `getsockname` reports.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    SockRef::from(&socket)
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Keepalive probes, as `envoy.config.core.v3.TcpKeepalive`. `None` leaves the kernel's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection is given up.
    pub probes: Option<u32>,
}

/// Turns keepalive on (`SO_KEEPALIVE`, `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
///
/// # Errors
/// What `setsockopt` reports.
pub fn set_keepalive(connection: impl AsFd, keepalive: Keepalive) -> io::Result<()> {
    let mut parameters = TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        parameters = parameters.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        parameters = parameters.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        parameters = parameters.with_retries(probes);
    }
    SockRef::from(&connection).set_tcp_keepalive(&parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn shared_listeners_coexist_on_one_port() {
        let first = listen(ANY_PORT, PortSharing::Shared).unwrap();
        let address = local_address(&first).unwrap();
        listen(address, PortSharing::Shared).unwrap();
        assert!(!is_free(address), "the probe sees a shared port as taken");
    }

    #[test]
    fn exclusive_listener_refuses_a_second_one() {
        let first = listen(ANY_PORT, PortSharing::Exclusive).unwrap();
        let address = local_address(&first).unwrap();
        let error = listen(address, PortSharing::Shared).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(is_free(address));
    }

    #[test]
    fn a_backlog_can_be_changed_while_a_socket_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        set_backlog(&listener, 2).unwrap();
        // A Unix socket that does not wait is told at once that the queue is full, which is one more than was asked for.
        let connect = || {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let address = socket2::SockAddr::unix(&path).unwrap();
            client.connect(&address).map(|()| client)
        };
        let waiting: Vec<_> = (0..3).map(|_| connect().unwrap()).collect();
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(waiting);
    }

    #[test]
    fn a_connection_that_nobody_redirected_has_no_original_destination() {
        let listener = std::net::TcpListener::from(listen(ANY_PORT, PortSharing::Exclusive).unwrap());
        listener.set_nonblocking(false).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        crate::descriptors::set_receive_timeout(&listener, crate::testing::PATIENCE).unwrap();
        let (server, _) = listener.accept().unwrap();
        // With connection tracking loaded the kernel answers with the unchanged address, without it with an error.
        match original_destination(&server) {
            Ok(address) => assert_eq!(address, server.local_addr().unwrap()),
            Err(error) => assert!(error.raw_os_error().is_some()),
        }
        drop(client);
    }

    #[test]
    fn keepalive_sets_the_idle_time() {
        let listener = std::net::TcpListener::bind(ANY_PORT).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let keepalive = Keepalive {
            time: Some(Duration::from_secs(77)),
            interval: None,
            probes: Some(3),
        };
        set_keepalive(&client, keepalive).unwrap();
        let socket = SockRef::from(&client);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
