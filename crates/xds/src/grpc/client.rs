//! Runs a [`Client`] over gRPC: connect, send, receive, and connect again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api_envoy::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

use super::traffic::{Counted, Traffic};
use crate::client::{Backoff, Client, Request, Response, Update};
use crate::{Variant, limits};

/// Where the ADS server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `host:port`, plaintext HTTP/2.
    Tcp(String),
    /// A Unix socket, plaintext HTTP/2 (the agent's `XDS` socket in Istio).
    Unix(PathBuf),
}

/// What happened on the stream.
#[derive(Debug)]
pub enum Event {
    /// A connection is open; a stream and the subscriptions on it are about to be sent.
    Connected(Link),
    /// The stream ended, or no connection could be made.
    Disconnected {
        /// Why, as one line.
        reason: String,
        /// When the next attempt starts.
        retry_in: Duration,
    },
    /// The server sent resources. The handler answers with [`Client::accept`] or [`Client::reject`], now or later.
    Update(Update),
}

/// A connection to the server.
#[derive(Clone, Debug)]
pub struct Link {
    /// How long it took to make.
    pub took: Duration,
    /// What it carries.
    pub traffic: Arc<Traffic>,
}

/// A change that somebody outside the handler wants made to the client.
pub type Command = Box<dyn FnOnce(&mut Client) + Send>;

/// Receives events, and may change subscriptions of the client it is given.
pub trait Handler {
    /// Called for each event in order. Blocking here delays the whole stream.
    fn on_event(&mut self, event: Event, client: &mut Client);
}

impl<F: FnMut(Event, &mut Client)> Handler for F {
    fn on_event(&mut self, event: Event, client: &mut Client) {
        self(event, client);
    }
}

/// A channel of commands for [`run`]. Dropping all senders ends the loop.
#[must_use]
pub fn commands() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(limits::COMMAND_QUEUE)
}

/// Serves `client` until every sender of `commands` is gone. `random` feeds the reconnect jitter.
///
/// The future is not `Send` unless the handler and `random` are, so a single-threaded runtime can run it with plain state.
pub async fn run(
    target: Target,
    mut client: Client,
    mut handler: impl Handler,
    mut commands: mpsc::Receiver<Command>,
    mut random: impl FnMut() -> u64,
) {
    let mut backoff = Backoff::default();
    loop {
        let end = match open(&target, client.variant()).await {
            Ok((wire, link)) => {
                client.connected();
                handler.on_event(Event::Connected(link), &mut client);
                let end = serve(wire, &mut client, &mut handler, &mut commands, &mut backoff).await;
                client.disconnected();
                end
            }
            Err(reason) => End::Lost(reason),
        };
        let End::Lost(reason) = end else { return };
        let retry_in = backoff.next(random());
        tracing::debug!(%reason, ?retry_in, "ADS stream ended");
        handler.on_event(Event::Disconnected { reason, retry_in }, &mut client);
        if !wait(retry_in, &mut client, &mut commands).await {
            return;
        }
    }
}

enum End {
    Lost(String),
    Closed,
}

struct Wire {
    requests: Sender,
    responses: BoxStream<'static, Result<Response, tonic::Status>>,
}

enum Sender {
    StateOfTheWorld(mpsc::Sender<DiscoveryRequest>),
    Delta(mpsc::Sender<DeltaDiscoveryRequest>),
}

impl Sender {
    /// Sends the pending request when there is room, and does nothing when the stream is gone: its end is reported
    /// by the responses. Can be dropped at any time without losing the request.
    async fn send(&self, pending: &mut Option<Request>) {
        match self {
            Self::StateOfTheWorld(wire) => {
                if let Ok(permit) = wire.reserve().await
                    && let Some(Request::StateOfTheWorld(request)) = pending.take()
                {
                    permit.send(request);
                }
            }
            Self::Delta(wire) => {
                if let Ok(permit) = wire.reserve().await
                    && let Some(Request::Delta(request)) = pending.take()
                {
                    permit.send(request);
                }
            }
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::StateOfTheWorld(wire) => wire.is_closed(),
            Self::Delta(wire) => wire.is_closed(),
        }
    }
}

async fn serve(
    mut wire: Wire,
    client: &mut Client,
    handler: &mut impl Handler,
    commands: &mut mpsc::Receiver<Command>,
    backoff: &mut Backoff,
) -> End {
    let mut pending = None;
    loop {
        pending = pending.or_else(|| client.poll_request());
        // Sending and receiving go on at the same time: a server that waits for us to read must not meet a client that
        // waits for it to read.
        tokio::select! {
            biased;
            () = wire.requests.send(&mut pending), if pending.is_some() && !wire.requests.is_closed() => {}
            response = wire.responses.next() => match response {
                Some(Ok(response)) => {
                    backoff.reset();
                    if let Some(update) = client.receive(response) {
                        handler.on_event(Event::Update(update), client);
                    }
                }
                Some(Err(status)) => return End::Lost(reason_of(&status)),
                None => return End::Lost("the server closed the stream".to_owned()),
            },
            command = commands.recv() => match command {
                Some(command) => command(client),
                None => return End::Closed,
            },
        }
    }
}

fn reason_of(status: &tonic::Status) -> String {
    if status.message().is_empty() {
        status.code().to_string()
    } else {
        status.message().to_owned()
    }
}

/// Waits, still obeying commands; false when the loop is to end.
async fn wait(time: Duration, client: &mut Client, commands: &mut mpsc::Receiver<Command>) -> bool {
    let sleep = tokio::time::sleep(time);
    tokio::pin!(sleep);
    loop {
        tokio::select! {
            () = &mut sleep => return true,
            command = commands.recv() => match command {
                Some(command) => command(client),
                None => return false,
            },
        }
    }
}

/// Connects and prepares the call. The call itself starts with the first poll of the responses, because servers send
/// their response headers only once they have seen a request.
async fn open(target: &Target, variant: Variant) -> Result<(Wire, Link), String> {
    let (began, traffic) = (Instant::now(), Arc::new(Traffic::default()));
    let channel = connect(target, &traffic).await.map_err(|e| chain(&e))?;
    let link = Link {
        took: began.elapsed(),
        traffic,
    };
    Ok((call(channel, variant), link))
}

fn call(channel: Channel, variant: Variant) -> Wire {
    let mut service =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(limits::MAX_RESPONSE_BYTES);
    match variant {
        Variant::Delta => {
            let (sender, receiver) = mpsc::channel(limits::CLIENT_REQUEST_QUEUE);
            let call = async move {
                service
                    .delta_aggregated_resources(ReceiverStream::new(receiver))
                    .await
                    .map(tonic::Response::into_inner)
            };
            let responses = call.try_flatten_stream().map_ok(Response::Delta).boxed();
            Wire {
                requests: Sender::Delta(sender),
                responses,
            }
        }
        Variant::StateOfTheWorld => {
            let (sender, receiver) = mpsc::channel(limits::CLIENT_REQUEST_QUEUE);
            let call = async move {
                service
                    .stream_aggregated_resources(ReceiverStream::new(receiver))
                    .await
                    .map(tonic::Response::into_inner)
            };
            let responses = call
                .try_flatten_stream()
                .map_ok(Response::StateOfTheWorld)
                .boxed();
            Wire {
                requests: Sender::StateOfTheWorld(sender),
                responses,
            }
        }
    }
}

async fn connect(target: &Target, traffic: &Arc<Traffic>) -> Result<Channel, tonic::transport::Error> {
    let traffic = Arc::clone(traffic);
    match target {
        Target::Tcp(address) => {
            let mut http = HttpConnector::new();
            http.set_nodelay(true);
            http.set_connect_timeout(Some(limits::CONNECT_TIMEOUT));
            let connector = tower::service_fn(move |uri| {
                let (connecting, traffic) = (http.call(uri), Arc::clone(&traffic));
                async move {
                    let stream = connecting.await.map_err(std::io::Error::other)?.into_inner();
                    std::io::Result::Ok(TokioIo::new(Counted::new(stream, traffic)))
                }
            });
            let endpoint = endpoint(format!("http://{address}"))?;
            endpoint.connect_with_connector(connector).await
        }
        Target::Unix(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_| {
                let (path, traffic) = (path.clone(), Arc::clone(&traffic));
                async move {
                    let stream = UnixStream::connect(path).await?;
                    std::io::Result::Ok(TokioIo::new(Counted::new(stream, traffic)))
                }
            });
            // The authority is never looked up; HTTP/2 only wants one.
            let endpoint = endpoint("http://xds".to_owned())?;
            endpoint.connect_with_connector(connector).await
        }
    }
}

fn endpoint(uri: String) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
