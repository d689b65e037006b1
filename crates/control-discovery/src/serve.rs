//! Sessions over gRPC.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::type_url;
use control_snapshot::Proxy;
use control_sources::registration::{Announcement, Registrar, StreamEvent};
use diagnostics::Diagnostic;
use identity::{ServiceAccount, SpiffeId};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::Status;
use xds::grpc::server::{Connection as Wire, DeltaConnection, SotwConnection, Streams};
use xds::server::Said;

use crate::connections::{Connection, Connections, Place};
use crate::generate::Cache;
use crate::identities::{Identities, ProvenStream, SecureListeners};
use crate::limits;
use crate::metrics::Metrics;
use crate::sending::{self, Outcome};
use crate::session::{Delta, Protocol, Session, StateOfTheWorld};
use crate::world::{Publication, World};

struct Inner {
    world: Arc<World>,
    cache: Cache,
    connections: Connections,
    registrar: Option<Registrar>,
    identities: OnceLock<Identities>,
    pushes: Semaphore,
    identifier: String,
    streams: AtomicU64,
    stopping: watch::Sender<bool>,
}

/// The ADS server. Cheap to clone.
#[derive(Clone)]
pub struct Discovery(Arc<Inner>);

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery")
            .field("connections", &self.0.connections.count())
            .finish_non_exhaustive()
    }
}

impl Discovery {
    /// A server of this world. `identifier` is what responses say about the server; `registrar` hears of workloads that
    /// come, go, and report their health.
    #[must_use]
    pub fn new(world: Arc<World>, identifier: &str, registrar: Option<Registrar>) -> Self {
        Self(Arc::new(Inner {
            world,
            cache: Cache::default(),
            connections: Connections::default(),
            registrar,
            identities: OnceLock::new(),
            pushes: Semaphore::new(limits::CONCURRENT_PUSHES),
            identifier: identifier.to_owned(),
            streams: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
        }))
    }

    /// Takes up who proves the identities of clients that come over TLS. Once; later calls change nothing.
    pub fn set_identities(&self, identities: Identities) {
        let _ = self.0.identities.set(identities);
    }

    /// Who proves the identities of clients that come over TLS, if anybody does.
    #[must_use]
    pub fn identities(&self) -> Option<&Identities> {
        self.0.identities.get()
    }

    /// The world it serves.
    #[must_use]
    pub fn world(&self) -> &Arc<World> {
        &self.0.world
    }

    /// The open streams.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// The translations in use.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.0.world.metrics()
    }

    /// What is wrong with the configuration: of the world, and of what connected proxies get.
    #[must_use]
    pub fn diagnostics(&self) -> BTreeSet<Diagnostic> {
        let mut all: BTreeSet<_> = self.0.world.notes().into_iter().collect();
        if let Some(publication) = self.0.world.current() {
            all.extend(publication.snapshot.diagnostics().iter().cloned());
        }
        for translated in self.0.cache.live() {
            all.extend(translated.diagnostics.iter().cloned());
        }
        all
    }

    /// Serves ADS in plaintext on a bound listener until `shutdown` resolves; then closes the open streams.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let server = Server {
            discovery: self.clone(),
            port: Port::Plaintext,
        };
        xds::grpc::server::serve(listener, server, self.stopped_by(shutdown)).await
    }

    /// Serves ADS, and certificates, over TLS and to processes of this host, as [`Discovery::serve`] does in plaintext.
    /// Without [`Discovery::set_identities`] there is nothing to serve with, and this returns.
    ///
    /// # Errors
    /// A listener fails.
    pub async fn serve_secure(
        &self,
        listeners: SecureListeners,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        match self.0.identities.get() {
            Some(identities) => {
                let server = Server {
                    discovery: self.clone(),
                    port: Port::Secure,
                };
                let stop = self.stopped_by(shutdown);
                identities.serve(server, listeners, stop).await
            }
            None => Ok(()),
        }
    }

    /// Closes the open streams, on whatever port, once `shutdown` resolves.
    async fn stopped_by(&self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.0.stopping.send_replace(true);
    }

    async fn report(&self, event: StreamEvent) {
        if let Some(registrar) = &self.0.registrar {
            registrar.report(event).await;
        }
    }

    /// Who has opened a stream; nobody on the plaintext port, where nothing is proven.
    async fn identify<P: Protocol>(
        &self,
        port: Port,
        wire: &Wire<P::Request, P::Response>,
    ) -> Result<Option<Vec<SpiffeId>>, Status> {
        if port == Port::Plaintext {
            return Ok(None);
        }
        let identities = self.0.identities.get();
        let identities = identities.ok_or_else(|| Status::unavailable("nobody is authenticated yet"))?;
        let proven = identities.identify(&wire.metadata, &wire.extensions).await?;
        Ok(Some(proven))
    }

    /// The proxy of a stream's first request, and its account where that is proven.
    fn admit(
        &self,
        node: &Node,
        proven: Option<&[SpiffeId]>,
    ) -> Result<(Proxy, Option<ServiceAccount>), Status> {
        let proxy = Proxy::from_node(node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let account = match (proven, self.0.identities.get()) {
            (None, _) => None,
            (Some(proven), Some(identities)) => Some(identities.check(proven, &proxy)?),
            (Some(_), None) => return Err(Status::unavailable("nobody is authenticated yet")),
        };
        Ok((proxy, account))
    }

    /// Room for one more stream of an account; whoever has proven none is on loopback.
    fn place(&self, account: Option<&ServiceAccount>) -> Result<Option<Place>, Status> {
        let Some(account) = account else {
            return Ok(None);
        };
        let place = self.0.connections.place(account);
        place.map(Some).ok_or_else(|| {
            let limit = limits::MAX_STREAMS_OF_ACCOUNT;
            let (namespace, name) = (&account.namespace, &account.name);
            tracing::warn!(namespace, name, limit, "an account has too many ADS streams");
            Status::resource_exhausted(format!("{limit} streams of {namespace}/{name} are open already"))
        })
    }

    async fn stream<P: Protocol>(&self, port: Port, mut wire: Wire<P::Request, P::Response>) {
        let proven = match self.identify::<P>(port, &wire).await {
            Ok(proven) => proven,
            Err(status) => return wire.refuse(status).await,
        };
        let first = match tokio::time::timeout(limits::FIRST_REQUEST_TIMEOUT, wire.receive()).await {
            Ok(Some(first)) => first,
            Ok(None) => return,
            Err(_) => return wire.refuse(late(wire.peer)).await,
        };
        let node = P::node(&first).cloned().unwrap_or_default();
        let (proxy, account) = match self.admit(&node, proven.as_deref()) {
            Ok(admitted) => admitted,
            Err(status) => return wire.refuse(status).await,
        };
        let _place = match self.place(account.as_ref()) {
            Ok(place) => place,
            Err(status) => return wire.refuse(status).await,
        };
        let mut publications = self.0.world.subscribe();
        let mut stopping = self.0.stopping.subscribe();
        let publication = tokio::select! {
            publication = first_publication(&mut publications) => publication,
            () = stopped(&mut stopping) => return,
        };
        let stream = self.0.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Session::open(
            &stream.to_string(),
            &self.0.identifier,
            proxy.clone(),
            publication,
        );
        let connection = Arc::new(Connection {
            stream,
            proxy_id: Arc::clone(&proxy.id),
            peer: wire.peer,
            account,
            connected_at: OffsetDateTime::now_utc(),
            variant: P::VARIANT,
            secret_reviews: Mutex::default(),
            session: Mutex::new(session),
        });
        self.0.connections.add(Arc::clone(&connection));
        tracing::info!(proxy = connection.proxy_name(), stream, "ADS stream opened");
        if let Some(announcement) = Announcement::of(&proxy) {
            self.report(StreamEvent::Connected { stream, announcement }).await;
        }
        let mut request = Some(first);
        loop {
            if let Some(request) = request.take()
                && !self.answer::<P>(&wire, &connection, &request).await
            {
                break;
            }
            if !self.send_owed_secrets::<P>(&wire, &connection).await {
                break;
            }
            tokio::select! {
                () = until(connection.proven().and_then(ProvenStream::next_review)) => {}
                received = wire.receive() => match received {
                    Some(received) => request = Some(received),
                    None => break,
                },
                changed = publications.changed() => {
                    let publication = publications.borrow_and_update().clone();
                    let Some(publication) = publication.filter(|_| changed.is_ok()) else { break };
                    if !self.push::<P>(&wire, &connection, publication).await {
                        break;
                    }
                }
                () = stopped(&mut stopping) => break,
            }
        }
        self.0.connections.remove(stream);
        tracing::info!(proxy = connection.proxy_name(), stream, "ADS stream closed");
        self.report(StreamEvent::Disconnected { stream }).await;
    }

    /// Answers a request; false when the stream is over.
    async fn answer<P: Protocol>(
        &self,
        wire: &Wire<P::Request, P::Response>,
        connection: &Connection,
        request: &P::Request,
    ) -> bool {
        let received_at = Instant::now();
        let type_url = P::type_url(request);
        if type_url == type_url::HEALTH_INFORMATION {
            let (healthy, message) = match P::error(request) {
                None => (true, String::new()),
                Some(error) => (false, error.message.clone()),
            };
            self.report(StreamEvent::Health {
                stream: connection.stream,
                healthy,
                message,
            })
            .await;
            return true;
        }
        if type_url == type_url::SECRET
            && let (Some(proven), Some(identities)) = (connection.proven(), self.0.identities.get())
        {
            identities.review_secrets(proven).await;
        }
        let reply = connection.session.lock().receive::<P>(request, &self.0.cache);
        let reply = match reply {
            Ok(reply) => reply,
            Err(refusal) => {
                let refused = wire.refuse(Status::invalid_argument(refusal.to_string()));
                sending::in_time(refused, &self.0.stopping).await;
                return false;
            }
        };
        if let Said::Nack(reason) = &reply.said {
            self.metrics().rejected(type_url);
            let kind = crate::metrics::short(type_url);
            tracing::warn!(proxy = connection.proxy_name(), kind, %reason, "configuration refused");
        }
        self.send::<P>(wire, connection, reply.responses, received_at)
            .await
    }

    /// Finds out, where that is not known, whether the proxy may have Secrets, and sends what follows from a change of
    /// that; false when the stream is over.
    async fn send_owed_secrets<P: Protocol>(
        &self,
        wire: &Wire<P::Request, P::Response>,
        connection: &Connection,
    ) -> bool {
        let (Some(proven), Some(identities)) = (connection.proven(), self.0.identities.get()) else {
            return true;
        };
        identities.review_again(proven).await;
        let began_at = Instant::now();
        let owed = connection.session.lock().owed_secrets::<P>();
        self.send::<P>(wire, connection, owed, began_at).await
    }

    /// Brings the proxy up to date; false when the stream is over.
    async fn push<P: Protocol>(
        &self,
        wire: &Wire<P::Request, P::Response>,
        connection: &Connection,
        publication: Arc<Publication>,
    ) -> bool {
        let changed_at = publication.changed_at;
        if let (Some(proven), Some(identities)) = (connection.proven(), self.0.identities.get()) {
            identities.recall_secrets(proven);
        }
        let (responses, began_at) = {
            // Given back before anything is sent: a client that does not read holds up nobody else.
            let Ok(_permit) = self.0.pushes.acquire().await else {
                return false;
            };
            let began_at = Instant::now();
            let responses = connection.session.lock().push::<P>(publication, &self.0.cache);
            (responses, began_at)
        };
        let any = !responses.is_empty();
        let alive = self.send::<P>(wire, connection, responses, began_at).await;
        if any {
            self.metrics().converged(changed_at.elapsed());
        }
        alive
    }

    /// Sends responses that were worked out since `began_at`; false when the stream is over.
    async fn send<P: Protocol>(
        &self,
        wire: &Wire<P::Request, P::Response>,
        connection: &Connection,
        responses: impl IntoIterator<Item = P::Response>,
        began_at: Instant,
    ) -> bool {
        for response in responses {
            let type_url = P::response_type(&response).to_owned();
            match sending::in_time(wire.send(response), &self.0.stopping).await {
                Outcome::Done(true) => {}
                Outcome::Done(false) | Outcome::Stopping => return false,
                Outcome::Late => {
                    let (proxy, limit) = (connection.proxy_name(), limits::SEND_TIMEOUT);
                    tracing::warn!(proxy, ?limit, "a proxy does not read; its ADS stream is closed");
                    return false;
                }
            }
            self.metrics().pushed(&type_url, began_at.elapsed());
        }
        true
    }
}

/// What a client is told that has opened a stream and says nothing.
fn late(peer: Option<SocketAddr>) -> Status {
    let limit = limits::FIRST_REQUEST_TIMEOUT;
    tracing::warn!(
        peer = peer.map(tracing::field::display),
        ?limit,
        "an ADS stream without a request is closed"
    );
    Status::deadline_exceeded(format!("no request has come within {limit:?}"))
}

/// Resolves when the server stops. The guard of the watched value must not live across an await.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await.is_ok();
}

async fn first_publication(publications: &mut watch::Receiver<Option<Arc<Publication>>>) -> Arc<Publication> {
    loop {
        if let Some(publication) = publications.borrow_and_update().clone() {
            return publication;
        }
        if publications.changed().await.is_err() {
            // The world is gone, and this server with it.
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for a moment, for ever where there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Where a stream comes from. What is not said to be without proof has to prove itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// Where nothing is proven.
    Plaintext,
    /// Where the caller proves itself, by a certificate, a token or as a user of this host.
    Secure,
}

/// The server on one port.
#[derive(Clone)]
struct Server {
    discovery: Discovery,
    port: Port,
}

impl Streams for Server {
    async fn delta(&self, connection: DeltaConnection) {
        self.discovery.stream::<Delta>(self.port, connection).await;
    }

    async fn sotw(&self, connection: SotwConnection) {
        self.discovery
            .stream::<StateOfTheWorld>(self.port, connection)
            .await;
    }
}
