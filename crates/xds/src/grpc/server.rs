//! The ADS service over gRPC: each stream becomes a [`Connection`] that a [`Streams`] handler serves.

use std::net::SocketAddr;
use std::pin::Pin;

use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Extensions, Status, Streaming};

use crate::limits;

/// Both ends of a delta stream.
pub type DeltaConnection = Connection<ads::DeltaDiscoveryRequest, ads::DeltaDiscoveryResponse>;
/// Both ends of a state-of-the-world stream.
pub type SotwConnection = Connection<ads::DiscoveryRequest, ads::DiscoveryResponse>;

/// One open stream.
#[derive(Debug)]
pub struct Connection<Request, Response> {
    /// The client's address, when the transport has one.
    pub peer: Option<SocketAddr>,
    /// The headers of the call, in which a client may have put a token.
    pub metadata: MetadataMap,
    /// What the transport says about the connection: the proof of who the client is, where it asks for one.
    pub extensions: Extensions,
    requests: Streaming<Request>,
    responses: mpsc::Sender<Result<Response, Status>>,
}

impl<Request, Response> Connection<Request, Response> {
    /// The next request; `None` at the end of the stream, whatever ended it. Can be dropped without losing a request.
    pub async fn receive(&mut self) -> Option<Request> {
        match self.requests.next().await? {
            Ok(request) => Some(request),
            Err(status) => {
                tracing::debug!(%status, "ADS stream broken off");
                None
            }
        }
    }

    /// Sends a response, waiting for room; false when the stream is gone.
    pub async fn send(&self, response: Response) -> bool {
        self.responses.send(Ok(response)).await.is_ok()
    }

    /// Ends the stream with an error.
    pub async fn refuse(&self, status: Status) {
        // A client that has gone away does not need to hear it.
        let _ = self.responses.send(Err(status)).await;
    }
}

/// Serves streams. The returned future is the life of the stream: when it ends, the stream is closed.
pub trait Streams: Clone + Send + Sync + 'static {
    /// Serves a delta stream.
    fn delta(&self, connection: DeltaConnection) -> impl Future<Output = ()> + Send;
    /// Serves a state-of-the-world stream.
    fn sotw(&self, connection: SotwConnection) -> impl Future<Output = ()> + Send;
}

pub(super) struct Service<S>(pub(super) S);

pub(super) type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<S: Streams> AggregatedDiscoveryService for Service<S> {
    type StreamAggregatedResourcesStream = ResponseStream<ads::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = ResponseStream<ads::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<ads::DiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (connection, responses) = accept(request);
        let streams = self.0.clone();
        tokio::spawn(async move { streams.sotw(connection).await });
        Ok(tonic::Response::new(responses))
    }

    async fn delta_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<ads::DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (connection, responses) = accept(request);
        let streams = self.0.clone();
        tokio::spawn(async move { streams.delta(connection).await });
        Ok(tonic::Response::new(responses))
    }
}

pub(super) fn accept<Request, Response: Send + 'static>(
    request: tonic::Request<Streaming<Request>>,
) -> (Connection<Request, Response>, ResponseStream<Response>) {
    let (sender, receiver) = mpsc::channel(limits::SERVER_RESPONSE_QUEUE);
    let peer = request.remote_addr();
    let (metadata, extensions, requests) = request.into_parts();
    let connection = Connection {
        peer,
        metadata,
        extensions,
        requests,
        responses: sender,
    };
    (connection, Box::pin(ReceiverStream::new(receiver)))
}

/// The ADS service, for a server that has other services beside it.
pub fn routes(streams: impl Streams) -> Routes {
    let service = AggregatedDiscoveryServiceServer::new(Service(streams))
        .max_decoding_message_size(limits::MAX_REQUEST_BYTES);
    Routes::new(service)
}

/// A server with the limits of ADS, to which services are added.
pub fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(limits::MAX_CONCURRENT_STREAMS)
}

/// Runs a server, which is given when to end, until `shutdown` resolves and the open streams have ended. A client that
/// does not read what it was sent never ends its stream: such are waited for [`limits::DRAIN_TIMEOUT`].
///
/// # Errors
/// The server fails.
pub async fn drain<F>(
    shutdown: impl Future<Output = ()>,
    serve: impl FnOnce(BoxFuture<'static, ()>) -> F,
) -> Result<(), tonic::transport::Error>
where
    F: Future<Output = Result<(), tonic::transport::Error>>,
{
    let (stop, stopped) = oneshot::channel::<()>();
    let ends = async move {
        // That the other end is gone is what is waited for.
        let _ = stopped.await;
    };
    let mut serving = std::pin::pin!(serve(ends.boxed()));
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown => drop(stop),
    }
    match tokio::time::timeout(limits::DRAIN_TIMEOUT, serving).await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::warn!(limit = ?limits::DRAIN_TIMEOUT, "clients that do not read are not waited for");
            Ok(())
        }
    }
}

/// Serves ADS in plaintext on a bound listener until `shutdown` resolves and the open streams have ended.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    streams: impl Streams,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = builder().add_routes(routes(streams));
    drain(shutdown, |ends| {
        server.serve_with_incoming_shutdown(incoming, ends)
    })
    .await
}
