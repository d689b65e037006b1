//! Connecting to a host.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tls::{ConnectOptions, HandshakeFailure};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::checkout::ConnectionPermit;
use crate::config::{BindConfig, ClusterConfig, TcpKeepalive};
use crate::endpoints::{HostAddress, HostSpec};
use crate::pool_key::HttpVersions;
use crate::proxy_protocol::{AnnounceError, Announcement};
use crate::stream::Stream;
use crate::transport::{ALPN_HTTP_2, ALPN_HTTP_11, TlsTransport, Transport};

/// What a connection asks of its transport socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct HandshakeOptions<'a> {
    /// The server name in place of the configured one (`auto_sni`).
    pub server_name: Option<&'a str>,
    /// The server's certificate must have that name (`auto_san_validation`).
    pub verify_server_name: bool,
    /// What will be spoken, where that is HTTP; it decides which application protocols are offered.
    pub http: Option<HttpVersions>,
    /// The application protocols to offer, whatever is configured; empty for those of the transport socket.
    pub alpn: &'a [String],
    /// Whom the connection is for, where the transport socket tells the host (PROXY protocol).
    pub announcement: Option<Announcement<'a>>,
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
    /// The secrets of the TLS context have not come.
    #[error("TLS error: Secret is not supplied by SDS")]
    SecretsNotReady,
    /// The TLS handshake failed.
    #[error("{}", .0.envoy_reason())]
    Handshake(HandshakeFailure),
    /// The host cannot be told of the client, for more is to be told than can be.
    #[error("{}", AnnounceError::TlvsTooLong)]
    TlvsTooLong,
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
    connect_with(permit, dialer, HandshakeOptions::default()).await
}

/// As [`connect`], with something to say about the transport socket, whose time counts too.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(
    permit: &ConnectionPermit,
    dialer: Option<&dyn Dialer>,
    options: HandshakeOptions<'_>,
) -> Result<Stream, ConnectError> {
    let (cluster, host) = (permit.cluster(), permit.host());
    let spec = host.spec();
    let started = tokio::time::Instant::now();
    let attempt = async {
        if let Transport::Unavailable(reason) = &spec.transport {
            return Err(ConnectError::TransportUnavailable(Arc::clone(reason)));
        }
        let mut stream = match &spec.address {
            HostAddress::Ip(address) => Stream::Tcp(connect_tcp(*address, cluster.config(), dialer).await?),
            HostAddress::Pipe(path) => Stream::Unix(UnixStream::connect(path).await?),
            HostAddress::Name(..) => return Err(io::Error::other("the name is not resolved").into()),
        };
        let mut transport = &spec.transport;
        if let Transport::ProxyProtocol(around) = transport {
            let counted = (cluster.shard(), cluster.config().stats.upstream_cx_tx_bytes_total);
            let announced = around
                .announcer
                .announce(&mut stream, options.announcement, counted);
            announced.await.map_err(|error| match error {
                AnnounceError::TlvsTooLong => ConnectError::TlvsTooLong,
                AnnounceError::Io(error) => ConnectError::Io(error),
            })?;
            transport = &around.inner;
        }
        secure(stream, permit, (&spec, transport), options).await
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

/// Does the TLS handshake, where the host's transport socket is TLS.
async fn secure(
    stream: Stream,
    permit: &ConnectionPermit,
    (spec, transport): (&HostSpec, &Transport),
    options: HandshakeOptions<'_>,
) -> Result<Stream, ConnectError> {
    let Transport::Tls(transport) = transport else {
        return Ok(stream);
    };
    let connect = ConnectOptions {
        server_name: options.server_name,
        endpoint_hostname: Some(&*spec.hostname).filter(|name| !name.is_empty()),
        alpn: &alpn(transport, options),
        verify_server_name: options.verify_server_name,
    };
    let (shard, stats) = (permit.cluster().shard(), transport.stats());
    let Some(context) = transport.context() else {
        shard.inc(stats.secrets_not_ready);
        return Err(ConnectError::SecretsNotReady);
    };
    match stream.connect_tls(&context, connect).await {
        Ok(stream) => {
            if let Some(info) = stream.tls() {
                stats.count_success(shard, info);
            }
            Ok(stream)
        }
        Err(failure) => {
            stats.count_failure(shard, &failure);
            tracing::debug!(cluster = %permit.cluster().name(), host = %spec.key, %failure, "TLS handshake failed");
            Err(ConnectError::Handshake(failure))
        }
    }
}

/// What is offered in place of the transport socket's own list; empty leaves that. What the request asks for comes first.
/// As in Envoy a list that is configured outranks what would be spoken, with one exception: HTTP/2 is not offered where
/// HTTP/1 will be spoken.
fn alpn<'a>(transport: &'a TlsTransport, options: HandshakeOptions<'a>) -> Cow<'a, [String]> {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    if !options.alpn.is_empty() {
        return Cow::Borrowed(options.alpn);
    }
    match options.http {
        None => Cow::Borrowed(&[]),
        Some(HttpVersions::Http1) => Cow::Borrowed(transport.http1_alpn()),
        Some(_) if !transport.names_no_alpn() => Cow::Borrowed(&[]),
        Some(HttpVersions::Http2) => Cow::Owned(names(&[ALPN_HTTP_2])),
        Some(HttpVersions::Either) => Cow::Owned(names(&[ALPN_HTTP_2, ALPN_HTTP_11])),
    }
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
