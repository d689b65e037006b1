//! Upstream connections: taking one for a request; those for HTTP/1, which are given back.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use proxy_core::proxy_protocol::{Endpoints, Tlv};
use proxy_core::stream_info::StreamBytes;
use proxy_core::{Address, ConnectionInfo};
use proxy_http::{
    BodyFraming, HeadLimits, HeadParser, Headers, RequestHead, ResponseHead, Version, response_framing,
    write_last_chunk,
};
use proxy_upstream::config::HttpProtocol;
use proxy_upstream::proxy_protocol::Announcement;
use proxy_upstream::transport::{ALPN_HTTP_2, Transport as HostTransport};
use proxy_upstream::{
    Acquired, Cluster, ConnectError, ConnectionPermit, HandshakeOptions, Host, HostAddress, HttpVersions,
    Overflow, PoolKey, RequestPriority, Stream,
};
use tokio::time::Instant;

use super::body::{BodySink, Piece, Pulled, write_piece};
use super::buffer::{BufferPool, ReadBuffer, WriteBuffer};
use super::download::Download;
use super::forward::{Reception, Reset};
use super::http2::{self, Http2Connection, Http2Uplink};
use super::local::HttpLocal;
use super::transport::{SocketStream, Transport as _};
use super::uplink::Uplink;
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
    requests: u32,
    /// The present request goes out in chunks.
    chunked: bool,
    /// Trailers are passed on, both ways.
    enable_trailers: bool,
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

/// What a request asks of its connection: of the TLS handshake (`auto_sni`, `auto_san_validation`, `istio.alpn`), and
/// whom the host is told of (PROXY protocol).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ServerName {
    pub(crate) name: Option<Box<str>>,
    pub(crate) verify: bool,
    /// The application protocols that are offered, if not those of the transport socket.
    pub(crate) alpn: Option<Rc<[String]>>,
    client: Option<Box<(Endpoints, Vec<Tlv>)>>,
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
            client: None,
        }
    }

    /// The same, with these application protocols.
    pub(crate) fn offering(self, alpn: Option<Rc<[String]>>) -> Self {
        Self { alpn, ..self }
    }

    /// Which connections requests can share that ask for this.
    pub(crate) fn key(&self, versions: HttpVersions) -> PoolKey {
        PoolKey::http(versions, self)
    }

    /// What the connection asks of its transport socket.
    pub(crate) fn handshake(&self, versions: HttpVersions) -> HandshakeOptions<'_> {
        HandshakeOptions {
            server_name: self.name.as_deref(),
            verify_server_name: self.verify,
            http: Some(versions),
            alpn: self.alpn.as_deref().unwrap_or_default(),
            announcement: self.client.as_ref().map(|client| Announcement {
                endpoints: client.0,
                tlvs: &client.1,
            }),
        }
    }

    /// The same for one host: nothing, where no handshake is done with it, and it is told of nobody.
    pub(crate) fn for_host(&self, host: &Host, downstream: &ConnectionInfo) -> Self {
        let (secure, announces) =
            host.with_spec(|spec| (spec.transport.is_secure(), spec.transport.announces()));
        if !announces && (!secure || *self == Self::default()) {
            return Self::default();
        }
        let tlvs = || {
            downstream
                .proxy_protocol
                .as_ref()
                .map_or_else(Vec::new, |p| p.tlvs.clone())
        };
        let client = downstream.endpoints().filter(|_| announces);
        Self {
            client: client.map(|endpoints| Box::new((endpoints, tlvs()))),
            ..if secure { self.clone() } else { Self::default() }
        }
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
    /// No connection could be made; who shared the wait for it shares the reason.
    Connect(Rc<ConnectError>),
}

impl From<Overflow> for CheckoutError {
    fn from(_: Overflow) -> Self {
        CheckoutError::Overflow
    }
}

/// The versions that a cluster wants its requests in; `downstream` is the client's.
pub(crate) fn versions(cluster: &Cluster, downstream: Version) -> HttpVersions {
    match cluster.config().http.protocol {
        HttpProtocol::Http1 => HttpVersions::Http1,
        HttpProtocol::Http2 => HttpVersions::Http2,
        HttpProtocol::Auto => HttpVersions::Either,
        HttpProtocol::UseDownstream if downstream == Version::Http2 => HttpVersions::Http2,
        HttpProtocol::UseDownstream => HttpVersions::Http1,
    }
}

/// What a request asks of its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) priority: RequestPriority,
    pub(crate) versions: HttpVersions,
    pub(crate) server_name: &'a ServerName,
}

/// A connection to the host that is there and takes the request, if there is one.
pub(crate) fn take_ready(
    cluster: &Cluster,
    host: &Host,
    wanted: Wanted<'_>,
    now: Instant,
    pool: &BufferPool,
) -> Option<Uplink> {
    if wanted.versions != HttpVersions::Http1 {
        let fits = |connection: &Http2Connection| connection.fits(wanted.server_name);
        if let Some(connection) = host.shared_pool(wanted.priority).find(fits) {
            return Some(Uplink::Http2(Http2Uplink::new(&connection)));
        }
    }
    if wanted.versions == HttpVersions::Http2 {
        return None;
    }
    let idle = host
        .pool::<Box<UpstreamConnection>>(wanted.priority)
        .take_fitting(
            now.into_std(),
            cluster.config().http.idle_timeout,
            |connection| connection.server_name == *wanted.server_name,
            |connection| connection.is_usable(pool),
        );
    idle.map(Uplink::Http1)
}

/// A connection to the host: one that is there, a new one, or the first that becomes free. Who stops to wait for it drops
/// the future, and is counted.
pub(crate) async fn checkout(
    who: (&Local, &Rc<HttpLocal>),
    cluster: &Rc<Cluster>,
    host: &Rc<Host>,
    wanted: Wanted<'_>,
) -> Result<Uplink, CheckoutError> {
    let mut waiting = Waiting { cluster, over: false };
    let result = match wanted.versions {
        HttpVersions::Http2 => http2::share(who, (cluster, host, wanted.priority), wanted.server_name).await,
        HttpVersions::Http1 | HttpVersions::Either => connection_for(who, cluster, host, wanted).await,
    };
    waiting.over = true;
    result
}

async fn connection_for(
    (worker, local): (&Local, &Rc<HttpLocal>),
    cluster: &Rc<Cluster>,
    host: &Rc<Host>,
    wanted: Wanted<'_>,
) -> Result<Uplink, CheckoutError> {
    let server_name = wanted.server_name;
    let acquired = proxy_upstream::acquire(
        (cluster, host, wanted.priority),
        server_name.key(wanted.versions),
        || take_ready(cluster, host, wanted, Instant::now(), &local.buffers),
        |mut connection: Box<UpstreamConnection>| {
            let fits = connection.server_name == *server_name && connection.is_usable(&local.buffers);
            fits.then(|| Uplink::Http1(connection))
        },
    );
    let permit = match acquired.await? {
        Acquired::Ready(connection) => return Ok(connection),
        Acquired::Connect(permit) => permit,
    };
    let dialer = worker.dialer();
    let transport = host.with_spec(|spec| spec.transport.clone());
    let options = server_name.handshake(wanted.versions);
    let failed = |error| CheckoutError::Connect(Rc::new(error));
    let stream = proxy_upstream::connect_with(&permit, dialer.as_deref(), options)
        .await
        .map_err(failed)?;
    let alpn = stream.tls().and_then(|tls| tls.alpn.as_deref());
    if wanted.versions == HttpVersions::Either && alpn == Some(ALPN_HTTP_2) {
        let agreed = (server_name.clone(), transport);
        let connection = http2::connect((worker, local), stream, permit, agreed)
            .await
            .map_err(failed)?;
        host.share(wanted.priority, &connection);
        return Ok(Uplink::Http2(Http2Uplink::new(&connection)));
    }
    cluster
        .shard()
        .inc(cluster.config().stats.upstream_cx_http1_total);
    let mut connection = Box::new(UpstreamConnection::new(stream, permit, local));
    connection.server_name = server_name.clone();
    connection.transport = transport;
    Ok(Uplink::Http1(connection))
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
    pub(crate) fn new(stream: Stream, permit: ConnectionPermit, local: &HttpLocal) -> Self {
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
            chunked: false,
            enable_trailers: http.enable_trailers,
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

    /// Reads until the final head of a response is there.
    pub(crate) fn poll_head(
        &mut self,
        reception: &mut Reception<'_>,
        mut interim: impl FnMut(&ResponseHead),
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Reset>> {
        loop {
            if !self.read.is_empty() {
                let Ok(parsed) = self.parser.response(self.read.unread(), reception.head) else {
                    return Poll::Ready(Err(Reset::Protocol));
                };
                self.read.consume(parsed.consumed);
                if parsed.complete {
                    reception.field_bytes = parsed.field_bytes;
                    // What follows belongs to the tunnel, whatever the fields say (RFC 9110, section 9.3.6).
                    let framing = match reception.opens_tunnel() {
                        true => Ok(BodyFraming::None),
                        false => response_framing(reception.head, reception.to_head),
                    };
                    let Ok(framing) = framing else {
                        return Poll::Ready(Err(Reset::Protocol));
                    };
                    match reception.take(framing, &mut interim) {
                        Ok(true) => return Poll::Ready(Ok(())),
                        Ok(false) => continue,
                        Err(reset) => return Poll::Ready(Err(reset)),
                    }
                }
            } else {
                self.read.release(pool);
                if self.stream.poll_readable(context).is_pending() {
                    return Poll::Pending;
                }
            }
            match self.read.poll_fill(&mut self.stream, context, pool) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Reset::Terminated)),
                Poll::Ready(Err(error)) => {
                    self.note_failure(&error);
                    return Poll::Ready(Err(Reset::Terminated));
                }
                Poll::Ready(Ok(count)) => {
                    self.received += count as u64;
                    reception.is_active = true;
                }
                Poll::Pending => {
                    self.read.release(pool);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Moves a piece of the response body on.
    pub(crate) fn pull(
        &mut self,
        download: &mut Download,
        sink: &mut impl BodySink,
        pool: &BufferPool,
        context: &mut Context<'_>,
    ) -> Result<Pulled, Reset> {
        let (consumed, advanced) = download.advance(self.read.unread(), self.enable_trailers, sink, pool)?;
        self.read.consume(consumed);
        if advanced {
            return Ok(Pulled::Moved);
        }
        match self.read.poll_fill(&mut self.stream, context, pool) {
            Poll::Ready(Ok(0)) => {
                download.end_of_stream(sink, pool)?;
                Ok(Pulled::Moved)
            }
            Poll::Ready(Err(_)) => Err(Reset::Terminated),
            Poll::Ready(Ok(count)) => {
                self.received += count as u64;
                Ok(Pulled::Read)
            }
            Poll::Pending => {
                self.read.release(pool);
                Ok(Pulled::Starved)
            }
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

    /// Begins a request; `chunked` says that its body goes out in chunks.
    pub(crate) fn begin_request(&mut self, chunked: bool) {
        self.requests += 1;
        self.chunked = chunked;
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

    /// Whether nothing of an exchange is left over: what was not sent would be lost, and what was not read would be
    /// taken for the next answer.
    pub(crate) fn is_clean(&self) -> bool {
        self.read.is_empty() && self.write.is_empty()
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
            host.pool::<Box<UpstreamConnection>>(self.permit.priority())
                .give_back(self, now.into_std());
        }
    }
}

impl BodySink for UpstreamConnection {
    fn data(&mut self, piece: Piece<'_>, end: bool, pool: &BufferPool) {
        write_piece(self.write.bytes(pool), &piece, self.chunked, end);
    }

    fn finish(&mut self, trailers: Option<&Headers>, pool: &BufferPool) {
        if self.chunked {
            let trailers = trailers.filter(|_| self.enable_trailers);
            write_last_chunk(self.write.bytes(pool), trailers);
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
