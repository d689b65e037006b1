//! Connecting to a host.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::checkout::ConnectionPermit;
use crate::config::{BindConfig, ClusterConfig, TcpKeepalive};
use crate::endpoints::HostAddress;
use crate::transport::Transport;

/// A connected upstream socket.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    Unix(UnixStream),
}

/// The future of [`Dialer::socket`].
pub type SocketFuture<'a> = Pin<Box<dyn Future<Output = io::Result<OwnedFd>> + 'a>>;

/// Makes the sockets of clusters that are bound to a source address. A sidecar outside its application's network
/// namespace reaches the application only by sockets that were made inside.
pub trait Dialer {
    /// A TCP socket of the family, neither bound nor connected.
    fn socket(&self, ipv6: bool) -> SocketFuture<'_>;

    /// Where the host at `address` really listens: an application that shares the host's network may have been given
    /// another port than the configuration knows.
    fn destination(&self, address: SocketAddr) -> SocketAddr {
        address
    }
}

/// Why a connection could not be made. `Display` is what `%UPSTREAM_TRANSPORT_FAILURE_REASON%` and the body of the
/// local reply say.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host needs a transport socket that this proxy does not have.
    #[error("{0}")]
    TransportUnavailable(Arc<str>),
    /// Not within the connect timeout.
    #[error("connection timeout")]
    Timeout,
    /// The source address could not be bound.
    #[error("cannot bind to {address}: {source}")]
    Bind {
        /// The source address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The kernel refused, or the host did.
    #[error("{}", describe(.0))]
    Io(#[from] io::Error),
}

/// Envoy's words: `delayed_connect_error: Connection refused` when the kernel reports it after the call.
fn describe(error: &io::Error) -> String {
    let words = match error.kind() {
        io::ErrorKind::ConnectionRefused => "Connection refused".to_owned(),
        io::ErrorKind::NetworkUnreachable => "Network is unreachable".to_owned(),
        io::ErrorKind::HostUnreachable => "No route to host".to_owned(),
        io::ErrorKind::NotFound => "No such file or directory".to_owned(),
        _ => error.to_string(),
    };
    format!("delayed_connect_error: {words}")
}

/// Connects to the permit's host within the cluster's connect timeout, and counts a failure.
///
/// # Errors
/// See [`ConnectError`]. The permit is given back by the caller's dropping it.
pub async fn connect(permit: &ConnectionPermit, dialer: Option<&dyn Dialer>) -> Result<Stream, ConnectError> {
    let (cluster, host) = (permit.cluster(), permit.host());
    let spec = host.spec();
    let started = tokio::time::Instant::now();
    let attempt = async {
        if let Transport::Unavailable(reason) = &spec.transport {
            return Err(ConnectError::TransportUnavailable(Arc::clone(reason)));
        }
        match &spec.address {
            HostAddress::Ip(address) => connect_tcp(*address, cluster.config(), dialer)
                .await
                .map(Stream::Tcp),
            HostAddress::Pipe(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            HostAddress::Name(..) => Err(io::Error::other("the name is not resolved").into()),
        }
    };
    let result = match tokio::time::timeout(cluster.config().connect_timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout),
    };
    let stats = &cluster.config().stats;
    match &result {
        Ok(_) => cluster
            .shard()
            .record(stats.upstream_cx_connect_ms, milliseconds(started.elapsed())),
        Err(error) => {
            host.connect_failed();
            cluster.shard().inc(stats.upstream_cx_connect_fail);
            match error {
                ConnectError::Timeout => cluster.shard().inc(stats.upstream_cx_connect_timeout),
                ConnectError::Bind { .. } => cluster.shard().inc(stats.bind_errors),
                _ => {}
            }
        }
    }
    result
}

fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

async fn connect_tcp(
    address: SocketAddr,
    config: &ClusterConfig,
    dialer: Option<&dyn Dialer>,
) -> Result<TcpStream, ConnectError> {
    let source = config
        .bind
        .as_ref()
        .and_then(|bind| bind.for_destination(address));
    let mut destination = address;
    let socket = match (source, dialer) {
        (Some(_), Some(dialer)) => {
            destination = dialer.destination(address);
            let fd = dialer.socket(destination.is_ipv6()).await?;
            let socket = std::net::TcpStream::from(fd);
            socket.set_nonblocking(true)?;
            TcpSocket::from_std_stream(socket)
        }
        _ if address.is_ipv4() => TcpSocket::new_v4()?,
        _ => TcpSocket::new_v6()?,
    };
    if let (Some(source), Some(bind)) = (source, &config.bind) {
        bind_to(&socket, source, bind)?;
    }
    socket.set_nodelay(true)?;
    if let Some(keepalive) = &config.tcp_keepalive {
        set_keepalive(&socket, keepalive)?;
    }
    Ok(socket.connect(destination).await?)
}

fn bind_to(socket: &TcpSocket, source: SocketAddr, bind: &BindConfig) -> Result<(), ConnectError> {
    let failed = |error| ConnectError::Bind {
        address: source,
        source: error,
    };
    let options = socket2::SockRef::from(socket);
    if bind.freebind {
        let set = if source.is_ipv4() {
            options.set_freebind_v4(true)
        } else {
            options.set_freebind_v6(true)
        };
        set.map_err(failed)?;
    }
    socket.bind(source).map_err(failed)
}

fn set_keepalive(socket: &TcpSocket, keepalive: &TcpKeepalive) -> io::Result<()> {
    let mut options = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        options = options.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        options = options.with_retries(probes);
    }
    socket2::SockRef::from(socket).set_tcp_keepalive(&options)
}
