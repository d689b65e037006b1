//! Runs a [`Client`] over gRPC: connect, send, receive, and connect again; in plaintext, or over TLS whose certificates
//! change while it runs.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use telemetry::logging::chain;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::call::{Wire, call};
use super::connect::connect;
pub use super::target::{Security, Server, Service, Target};
use super::traffic::Traffic;
use crate::client::{Backoff, Client, Update};
use crate::{Variant, limits};

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
    server: impl Into<Server>,
    mut client: Client,
    mut handler: impl Handler,
    mut commands: mpsc::Receiver<Command>,
    mut random: impl FnMut() -> u64,
) {
    let (server, mut backoff) = (server.into(), Backoff::default());
    loop {
        let end = match open(&server, client.variant()).await {
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
async fn open(server: &Server, variant: Variant) -> Result<(Wire, Link), String> {
    let (began, traffic) = (Instant::now(), Arc::new(Traffic::default()));
    let channel: Channel = connect(server, &traffic).await.map_err(|e| chain(&e))?;
    let link = Link {
        took: began.elapsed(),
        traffic,
    };
    Ok((call(channel, server.service, variant), link))
}
