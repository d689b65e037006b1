//! The SDS server over a workload's secrets, for Envoy and for our proxy.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api_envoy::type_url;
use tokio::net::UnixListener;
use tonic::Status;
use xds::Variant;
use xds::grpc::secrets as shell;
use xds::grpc::server::{Connection, DeltaConnection, SotwConnection, Streams};
use xds::server::{Content, Delta, Protocol, Refusal, Said, Scope, StateOfTheWorld, Stream};

use super::{Found, Secrets, Wanted};

/// What responses say about the server.
const SERVER: &str = "lateen-agent";

/// Listens at `path`, for processes of this user only.
///
/// # Errors
/// `InvalidInput` when the path is longer than the 107 bytes that a Unix address holds, and what `bind` reports.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    shell::bind(path)
}

/// Serves these secrets, and every change of them, until dropped.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: UnixListener, secrets: Secrets) -> Result<(), tonic::transport::Error> {
    let server = Server {
        secrets,
        streams: Arc::default(),
    };
    shell::serve(listener, server, std::future::pending()).await
}

#[derive(Clone)]
struct Server {
    secrets: Secrets,
    streams: Arc<AtomicU64>,
}

impl Streams for Server {
    async fn delta(&self, connection: DeltaConnection) {
        self.stream::<Delta>(connection).await;
    }

    async fn sotw(&self, connection: SotwConnection) {
        self.stream::<StateOfTheWorld>(connection).await;
    }
}

impl Server {
    async fn stream<P: Protocol>(&self, mut wire: Connection<P::Request, P::Response>) {
        let mut changes = self.secrets.0.generation.subscribe();
        let number = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let mut stream = Stream::new(number.to_string(), SERVER);
        let mut wanted = Wanted::new();
        loop {
            let response = tokio::select! {
                request = wire.receive() => {
                    let Some(request) = request else { return };
                    match self.answer::<P>(&mut stream, &mut wanted, &request) {
                        Ok(response) => response,
                        Err(status) => return wire.refuse(status).await,
                    }
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.push::<P>(&mut stream)
                }
            };
            if let Some(response) = response
                && !wire.send(response).await
            {
                return;
            }
        }
    }

    /// What answers a request, if anything does yet.
    fn answer<P: Protocol>(
        &self,
        stream: &mut Stream,
        wanted: &mut Wanted,
        request: &P::Request,
    ) -> Result<Option<P::Response>, Status> {
        let type_url = P::type_url(request);
        if type_url != type_url::SECRET {
            let reason = format!("only {} is served here, not {type_url:?}", type_url::SECRET);
            return Err(Status::invalid_argument(reason));
        }
        let refuse = |refusal: Refusal| Status::invalid_argument(refusal.to_string());
        let received = P::receive(stream, request).map_err(refuse)?;
        if let Said::Nack(reason) = &received.said {
            tracing::warn!(%reason, "the proxy refuses a secret");
        }
        let still = watched(stream);
        wanted.retain(|name, _| still.contains(name));
        let names = match received.answer {
            None => return Ok(None),
            Some(Scope::Names(names)) => names,
            Some(Scope::All) => still,
        };
        let mut content = Content::default();
        for name in names {
            match self.secrets.find(&name, wanted) {
                Found::Here(secret) => content.resources.push(secret),
                Found::Awaited => {}
                Found::Unknown => {
                    tracing::warn!(name, "the proxy asks for a secret that does not exist");
                    content.removed.push(name.into());
                }
            }
        }
        Ok(self.respond::<P>(stream, content))
    }

    /// What has changed since it was last sent.
    fn push<P: Protocol>(&self, stream: &mut Stream) -> Option<P::Response> {
        let watch = stream.watch(type_url::SECRET)?;
        let secrets = watch.names().iter().filter_map(|name| self.secrets.get(name));
        let content = Content {
            resources: secrets.filter(|secret| watch.differs(secret)).collect(),
            removed: Vec::new(),
        };
        self.respond::<P>(stream, content)
    }

    fn respond<P: Protocol>(&self, stream: &mut Stream, content: Content) -> Option<P::Response> {
        // State of the world has no words for what does not exist; an empty answer would be an error to Envoy.
        let told = P::VARIANT == Variant::Delta && !content.removed.is_empty();
        if content.resources.is_empty() && !told {
            return None;
        }
        let version = self.secrets.0.generation.borrow().to_string();
        P::respond(stream, type_url::SECRET, &version, content)
    }
}

fn watched(stream: &Stream) -> BTreeSet<String> {
    stream
        .watch(type_url::SECRET)
        .map(|watch| watch.names().clone())
        .unwrap_or_default()
}
