//! Secrets (SDS): each one that configuration names is fetched by itself, from its discovery service or file, and
//! applied to the configuration, which takes it whole or not at all.
//!
//! As in Envoy every secret has a stream of its own, so that one that its server cannot make holds up no other. Those
//! that come over ADS are `discovery`'s; here they are only counted.

mod file;
mod watch;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use api_envoy::type_url;
use proxy_config::state::Source;
use proxy_core::random::{Random, seed};
use proxy_core::{ConfigError, ConfigResult};
use proxy_upstream::secrets::{SecretKey, SecretSource};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use xds::Variant;
use xds::client::{Client, Rejection, Update};
use xds::grpc::client::{Command, Event, Service};

use crate::ads_stats::AdsStats;
use crate::discovery;
use crate::secret_stats::SecretStats;
use crate::server::{SecretRequest, Server, source};

/// Fetches secrets, and looks after files, for as long as the process lives.
pub(crate) fn start(server: &Rc<Server>) {
    let files = Rc::new(RefCell::new(watch::Seen::default()));
    watch::start(server, &files);
    let server = Rc::clone(server);
    tokio::task::spawn_local(async move {
        let mut streams = HashMap::new();
        loop {
            for request in server.secret_requests.take() {
                match request {
                    SecretRequest::Fetch(key) => match &key.source {
                        SecretSource::File { .. } => {
                            files.borrow_mut().see(&key);
                            file::read(&server, &key);
                        }
                        SecretSource::Service { cluster, delta } => {
                            if let Some(stream) = stream(&server, &key, cluster, *delta) {
                                streams.insert(key, stream);
                            }
                        }
                        SecretSource::Ads | SecretSource::Static => {}
                    },
                    SecretRequest::Drop(key) => drop(streams.remove(&key)),
                }
            }
            server.secrets_requested.notified().await;
        }
    });
}

/// The stream of one secret; it ends with this value.
struct Stream {
    /// The stream goes on for as long as somebody could send commands.
    _commands: mpsc::Sender<Command>,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn stream(server: &Rc<Server>, key: &SecretKey, cluster: &str, delta: bool) -> Option<Stream> {
    let target = server.bootstrap.services.get(cluster)?;
    let service = xds::grpc::client::Server {
        target: discovery::target(target),
        service: Service::Secrets,
        security: server.security_towards(cluster, target),
    };
    let variant = match delta {
        true => Variant::Delta,
        false => Variant::StateOfTheWorld,
    };
    let mut client = Client::new(variant, server.bootstrap.node());
    client.subscribe(type_url::SECRET, [&*key.name]);
    let (commands, receiver) = xds::grpc::client::commands();
    let handler = {
        let fetched = Fetched {
            server: Rc::clone(server),
            key: key.clone(),
            stats: server.secret_stats.of(&key.name),
            connection: server.connection_stats(cluster),
        };
        move |event: Event, client: &mut Client| fetched.on_event(event, client)
    };
    let random = Random::new(seed());
    let task = tokio::task::spawn_local(async move {
        xds::grpc::client::run(service, client, handler, receiver, move || random.next()).await;
    });
    Some(Stream {
        _commands: commands,
        task: task.abort_handle(),
    })
}

/// A secret on its stream.
struct Fetched {
    server: Rc<Server>,
    key: SecretKey,
    stats: Rc<SecretStats>,
    connection: Option<AdsStats>,
}

impl Fetched {
    fn on_event(&self, event: Event, client: &mut Client) {
        let shard = &self.server.shard;
        match event {
            Event::Connected(link) => {
                tracing::debug!(name = %self.key.name, "stream of a secret opened");
                self.stats.asked(shard);
                if let Some(connection) = &self.connection {
                    connection.connected(link, Instant::now());
                }
            }
            Event::Disconnected { reason, retry_in } => {
                tracing::warn!(
                    name = %self.key.name, %reason, retry_in_ms = retry_in.as_millis() as u64, "stream of a secret closed"
                );
                self.stats.failed(shard);
                if let Some(connection) = &self.connection {
                    connection.disconnected(Instant::now());
                }
            }
            Event::Update(update) => {
                if let Some(connection) = &self.connection {
                    connection.answered();
                }
                self.on_update(&update, client);
                self.stats.asked(shard);
            }
        }
    }

    fn on_update(&self, update: &Update, client: &mut Client) {
        if let [name] = update.removed.as_slice() {
            tracing::warn!(%name, "the discovery service has no such secret");
            return client.accept(update);
        }
        let applied = only(&update.resources).and_then(|resource| {
            let version = match resource.version.is_empty() {
                true => &update.version,
                false => &resource.version,
            };
            apply(&self.server, &self.key, source(resource.body.clone(), version))
        });
        match applied {
            Ok(()) => client.accept(update),
            Err(error) => {
                let name = self.key.name.to_string();
                let reason = error.to_string();
                client.reject(update, &[Rejection { name, reason }]);
            }
        }
    }
}

/// A response about one secret holds one resource, whichever it is.
fn only<T>(resources: &[T]) -> ConfigResult<&T> {
    match resources {
        [one] => Ok(one),
        other => Err(ConfigError::new(format!(
            "{} secrets instead of one",
            other.len()
        ))),
    }
}

/// Puts a version of a secret in use, or says why not.
fn apply(server: &Rc<Server>, key: &SecretKey, source: Source) -> ConfigResult<()> {
    let version = Arc::clone(&source.version);
    let result = server.state.borrow_mut().update_secret(key, source);
    let stats = server.secret_stats.of(&key.name);
    stats.updated(&server.shard, &version, result.is_ok());
    match &result {
        Ok(true) => tracing::info!(name = %key.name, kind = %key.kind, "a secret is renewed"),
        Ok(false) => {}
        Err(error) => tracing::warn!(name = %key.name, kind = %key.kind, %error, "a secret is refused"),
    }
    server.pump();
    result.map(drop)
}
