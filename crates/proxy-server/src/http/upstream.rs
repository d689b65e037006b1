//! Upstream HTTP/1 connections: taking one for a request, and giving it back.

use std::rc::Rc;
use std::task::{Context, Waker};

use proxy_core::Address;
use proxy_core::stream_info::StreamBytes;
use proxy_http::{HeadLimits, HeadParser, RequestHead};
use proxy_upstream::transport::Transport as HostTransport;
use proxy_upstream::{
    Acquired, Cluster, ConnectError, ConnectionPermit, HandshakeOptions, Host, HostAddress, Overflow,
    RequestPriority, Stream,
};
use tokio::time::Instant;

use super::buffer::{BufferPool, ReadBuffer, WriteBuffer};
use super::local::HttpLocal;
use super::transport::{SocketStream, Transport as _};
use crate::local::Local;

/// An upstream connection with its buffers. It counts against the cluster's limits until it is dropped.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    pub(crate) stream: SocketStream,
    pub(crate) read: ReadBuffer,
    pub(crate) write: WriteBuffer,
    pub(crate) parser: HeadParser,
    pub(crate) id: u64,
    /// Requests on this connection so far, the present one included.
    pub(crate) requests: u32,
    pub(crate) local_address: Option<Address>,
    /// What its TLS handshake told.
    pub(crate) tls: Option<Rc<tls::ConnectionInfo>>,
    /// Why TLS ended it, in the words of the access log.
    pub(crate) failure: Option<String>,
    /// The server name that a request has asked for; others need another connection.
    server_name: ServerName,
    /// The host's transport socket when the connection was made.
    transport: HostTransport,
    /// Bytes of the present request and response; counted when the request ends.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    opened: Instant,
    permit: ConnectionPermit,
}

/// What a request asks of the TLS handshake of its connection (`auto_sni`, `auto_san_validation`, `istio.alpn`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerName {
    pub(crate) name: Option<Box<str>>,
    pub(crate) verify: bool,
    /// The application protocols that are offered, if not those of the transport socket.
    pub(crate) alpn: Option<Rc<[String]>>,
}

impl ServerName {
    /// What a request asks of the handshakes of a cluster.
    pub(crate) fn of_request(cluster: &Cluster, head: &RequestHead) -> Self {
        let Some(options) = &cluster.config().http.server_name else {
            return Self::default();
        };
        let by_header = options.header.as_deref().and_then(|name| head.headers.get(name));
        let by_header = by_header.filter(|value| !value.is_empty());
        let authority = by_header.unwrap_or_else(|| head.authority());
        let name = std::str::from_utf8(authority).ok().and_then(host_name);
        Self {
            name: name.filter(|_| options.ask).map(Box::from),
            verify: options.verify,
            alpn: None,
        }
    }

    /// The same, with these application protocols.
    pub(crate) fn offering(self, alpn: Option<Rc<[String]>>) -> Self {
        Self { alpn, ..self }
    }

    /// The same for one host: nothing, where no handshake is done with it.
    pub(crate) fn for_host(&self, host: &Host) -> Self {
        if *self != Self::default() && host.with_spec(|spec| matches!(spec.transport, HostTransport::Tls(_)))
        {
            return self.clone();
        }
        Self::default()
    }
}

/// The name in an authority, without its port; an address is none.
fn host_name(authority: &str) -> Option<&str> {
    if authority.starts_with('[') {
        return None;
    }
    let name = authority.split(':').next().unwrap_or_default();
    (!name.is_empty() && name.parse::<std::net::Ipv4Addr>().is_err()).then_some(name)
}

/// Why a request got no connection.
#[derive(Debug)]
pub(crate) enum CheckoutError {
    /// A circuit breaker is open.
    Overflow,
    /// No connection could be made.
    Connect(ConnectError),
}

impl From<Overflow> for CheckoutError {
    fn from(_: Overflow) -> Self {
        CheckoutError::Overflow
    }
}

/// An idle connection to the host that still works, if there is one.
pub(crate) fn take_idle(
    cluster: &Cluster,
    host: &Host,
    server_name: &ServerName,
    now: Instant,
    pool: &BufferPool,
) -> Option<Box<UpstreamConnection>> {
    host.pool::<Box<UpstreamConnection>>().take_fitting(
        now.into_std(),
        cluster.config().http.idle_timeout,
        |connection| connection.server_name == *server_name,
        |connection| connection.is_usable(pool),
    )
}

/// A connection to the host: an idle one, a new one, or the first that becomes free. Who stops to wait for it drops the
/// future, and is counted.
pub(crate) async fn checkout(
    (worker, local): (&Local, &HttpLocal),
    cluster: &Rc<Cluster>,
    host: &Rc<Host>,
    priority: RequestPriority,
    server_name: &ServerName,
) -> Result<Box<UpstreamConnection>, CheckoutError> {
    let mut waiting = Waiting { cluster, over: false };
    let result = connection_for((worker, local), cluster, host, priority, server_name).await;
    waiting.over = true;
    result
}

async fn connection_for(
    (worker, local): (&Local, &HttpLocal),
    cluster: &Rc<Cluster>,
    host: &Rc<Host>,
    priority: RequestPriority,
    server_name: &ServerName,
) -> Result<Box<UpstreamConnection>, CheckoutError> {
    let usable = |connection: &mut Box<UpstreamConnection>| connection.is_usable(&local.buffers);
    let now = Instant::now().into_std();
    let acquired = proxy_upstream::acquire_fitting(
        (cluster, host, priority),
        now,
        |connection| connection.server_name == *server_name,
        usable,
    );
    match acquired.await? {
        Acquired::Ready(connection) => Ok(connection),
        Acquired::Connect(permit) => {
            let dialer = worker.dialer();
            let transport = host.with_spec(|spec| spec.transport.clone());
            let options = HandshakeOptions {
                server_name: server_name.name.as_deref(),
                verify_server_name: server_name.verify,
                for_http: true,
                alpn: server_name.alpn.as_deref().unwrap_or_default(),
            };
            let stream = proxy_upstream::connect_with(&permit, dialer.as_deref(), options)
                .await
                .map_err(CheckoutError::Connect)?;
            cluster
                .shard()
                .inc(cluster.config().stats.upstream_cx_http1_total);
            let mut connection = Box::new(UpstreamConnection::new(stream, permit, local));
            connection.server_name = server_name.clone();
            connection.transport = transport;
            Ok(connection)
        }
    }
}

/// A request that waits for a connection. It is cancelled when it goes before the wait is over.
struct Waiting<'a> {
    cluster: &'a Cluster,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            let stats = &self.cluster.config().stats;
            self.cluster.shard().inc(stats.upstream_rq_cancelled);
        }
    }
}

impl UpstreamConnection {
    fn new(stream: Stream, permit: ConnectionPermit, local: &HttpLocal) -> Self {
        let local_address = stream.local_addr().map(Address::from);
        let tls = stream.tls().cloned();
        let http = &permit.cluster().config().http;
        let default = HeadLimits {
            bytes: proxy_http::limits::RESPONSE_HEAD_BYTES,
            ..HeadLimits::default()
        };
        let limits = HeadLimits {
            bytes: http
                .max_response_headers_kib
                .map_or(default.bytes, |kib| kib as usize * 1024),
            fields: http
                .max_headers_count
                .map_or(default.fields, |count| count as usize),
        };
        UpstreamConnection {
            stream: SocketStream(stream),
            read: ReadBuffer::default(),
            write: WriteBuffer::default(),
            parser: HeadParser::new(limits),
            id: local.next_upstream_connection(),
            requests: 0,
            local_address,
            tls,
            failure: None,
            server_name: ServerName::default(),
            transport: HostTransport::Plaintext,
            sent: 0,
            received: 0,
            opened: Instant::now(),
            permit,
        }
    }

    /// True while nothing has come on an idle connection: neither its end nor bytes that nobody asked for.
    fn is_usable(&mut self, pool: &BufferPool) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        if self.stream.poll_readable(&mut context).is_pending() {
            return true;
        }
        // The readiness may be a remainder of the last read; only a read tells.
        let usable = self
            .read
            .poll_fill(&mut self.stream, &mut context, pool)
            .is_pending();
        self.read.release(pool);
        usable
    }

    /// Keeps why a read or write failed, where TLS tells more than that it did. A host may refuse our certificate so
    /// late (RFC 8446, section 4.4.4).
    pub(crate) fn note_failure(&mut self, error: &std::io::Error) {
        if self.tls.is_some() && self.failure.is_none() {
            self.failure = Some(tls::HandshakeFailure::from_io(error).envoy_reason());
        }
    }

    /// Begins a request.
    pub(crate) fn begin_request(&mut self) {
        self.requests += 1;
        (self.sent, self.received) = (0, 0);
    }

    /// Counts the bytes of the request that has ended, on the cluster and for whom they were moved.
    pub(crate) fn end_request(&self, bytes: &mut StreamBytes) {
        bytes.upstream_wire_sent += self.sent;
        bytes.upstream_wire_received += self.received;
        let cluster = self.permit.cluster();
        let stats = &cluster.config().stats;
        cluster
            .shard()
            .add(stats.upstream_cx_rx_bytes_total, self.received);
        cluster.shard().add(stats.upstream_cx_tx_bytes_total, self.sent);
    }

    /// Gives the connection back for the next request, unless it has carried enough.
    pub(crate) fn give_back(mut self: Box<Self>, now: Instant, pool: &BufferPool) {
        self.read.release(pool);
        self.write.clear(pool);
        let (cluster, host) = (Rc::clone(self.permit.cluster()), Rc::clone(self.permit.host()));
        let options = &cluster.config().http;
        let most = options.max_requests_per_connection;
        if most > 0 && self.requests >= most {
            cluster
                .shard()
                .inc(cluster.config().stats.upstream_cx_max_requests);
            return;
        }
        let too_old = options
            .max_connection_duration
            .is_some_and(|limit| now - self.opened >= limit);
        // After a change of its settings nobody may use what was agreed on before.
        let same_transport = host.with_spec(|spec| spec.transport == self.transport);
        if !too_old && same_transport && !host.is_removed() {
            host.pool::<Box<UpstreamConnection>>()
                .give_back(self, now.into_std());
        }
    }
}

impl Drop for UpstreamConnection {
    fn drop(&mut self) {
        let cluster = self.permit.cluster();
        let length = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        cluster
            .shard()
            .record(cluster.config().stats.upstream_cx_length_ms, length);
    }
}

/// A host's address in the form that logs use.
pub(crate) fn address_of(host: &Host) -> Option<Address> {
    host.with_spec(|spec| match &spec.address {
        HostAddress::Ip(address) => Some(Address::Ip(*address)),
        HostAddress::Pipe(path) => Some(Address::Pipe(path.to_string_lossy().as_ref().into())),
        HostAddress::Name(..) => None,
    })
}
