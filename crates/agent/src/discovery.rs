//! The agent's own ADS stream: names of services down (NDS), health of the workload up (`HealthInformation`).
//!
//! The sidecar has a stream of its own; this one exists so that an application's death is reported at once, also when
//! the sidecar is busy, and so that names do not travel through the proxy.

use std::sync::{Arc, Mutex, PoisonError};

use api_envoy::google::rpc::Status;
use api_envoy::istio::networking::nds::v1::NameTable;
use api_envoy::{Message as _, type_url};
use tokio::sync::{mpsc, watch};
use xds::Variant;
use xds::client::{Client, Rejection, Update};
use xds::grpc::client::{Command, Event, Handler, Server, commands, run};

use crate::bootstrap::Identity;
use crate::hosts::HostsFile;

/// The code that Istio's agents send for an unhealthy workload.
const UNHEALTHY_CODE: i32 = 500;

/// What the agent tells about its workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet: the application has not answered.
    Unknown,
    /// It accepts connections.
    Healthy,
    /// It cannot serve, and why.
    Unhealthy(String),
}

/// What becomes of the names of services.
#[derive(Debug)]
pub enum Names {
    /// Nobody asks for them: a gateway's.
    Unwanted,
    /// They are written to a hosts file.
    Hosts(HostsFile),
    /// They are kept, see [`Discovery::names`].
    Kept,
}

/// A running stream. It ends when this value is dropped.
#[derive(Debug)]
pub struct Discovery {
    commands: mpsc::Sender<Command>,
    health: Arc<Mutex<Health>>,
    names: watch::Receiver<Option<Arc<NameTable>>>,
}

impl Discovery {
    /// Connects, and connects again, until dropped. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(identity: &Identity, control: impl Into<Server>, names: Names) -> Self {
        let (sender, receiver) = commands();
        let (names_seen, seen) = watch::channel(None);
        let health = Arc::new(Mutex::new(Health::Unknown));
        let mut client = Client::new(Variant::Delta, identity.node());
        if !matches!(names, Names::Unwanted) {
            client.watch_all(type_url::NAME_TABLE);
        }
        let stream = Stream {
            health: Arc::clone(&health),
            names,
            names_seen,
        };
        tokio::spawn(run(control.into(), client, stream, receiver, rand::random));
        Self {
            commands: sender,
            health,
            names: seen,
        }
    }

    /// Reports the workload's health now, and again after each reconnect.
    pub async fn report(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health.clone();
        let command: Command = Box::new(move |client| tell(client, &health));
        // The loop ends only with this value, so there is somebody to receive.
        let _ = self.commands.send(command).await;
    }

    /// Waits until the names of the mesh are there, in the hosts file or in [`Discovery::names`].
    pub async fn names_received(&self) {
        let mut names = self.names.clone();
        let _ = names.wait_for(Option::is_some).await;
    }

    /// The latest table of names, if they are [`Names::Kept`]; otherwise an empty one.
    #[must_use]
    pub fn names(&self) -> Arc<NameTable> {
        self.names.borrow().clone().unwrap_or_default()
    }
}

fn tell(client: &mut Client, health: &Health) {
    let error = match health {
        Health::Unknown => return,
        Health::Healthy => None,
        Health::Unhealthy(reason) => Some(Status {
            code: UNHEALTHY_CODE,
            message: reason.clone(),
            details: Vec::new(),
        }),
    };
    client.report(type_url::HEALTH_INFORMATION, error);
}

struct Stream {
    health: Arc<Mutex<Health>>,
    names: Names,
    names_seen: watch::Sender<Option<Arc<NameTable>>>,
}

impl Handler for Stream {
    fn on_event(&mut self, event: Event, client: &mut Client) {
        match event {
            Event::Connected(_) => {
                let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tell(client, &health);
            }
            Event::Disconnected { reason, retry_in } => {
                tracing::info!(reason, ?retry_in, "the control plane is away");
            }
            Event::Update(update) => match self.apply(&update) {
                Ok(()) => client.accept(&update),
                Err(reason) => client.reject(
                    &update,
                    &[Rejection {
                        name: String::new(),
                        reason,
                    }],
                ),
            },
        }
    }
}

impl Stream {
    fn apply(&self, update: &Update) -> Result<(), String> {
        // Istio sends one table, always whole.
        let mut all = NameTable::default();
        for resource in &update.resources {
            let table = NameTable::decode(&*resource.body.value).map_err(|error| error.to_string())?;
            all.table.extend(table.table);
        }
        let kept = match &self.names {
            Names::Unwanted => return Ok(()),
            Names::Hosts(hosts) => {
                let written = hosts.update(&all);
                written.map_err(|error| format!("hosts file: {error}"))?;
                NameTable::default()
            }
            Names::Kept => all,
        };
        self.names_seen.send_replace(Some(Arc::new(kept)));
        Ok(())
    }
}
