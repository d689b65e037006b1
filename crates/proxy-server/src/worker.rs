//! One worker: a thread with a single-threaded runtime, its listeners, and what its connections may touch ([`Local`]).
//!
//! State is `Rc` and `Cell`; nothing here is shared with another thread but the connection counts, which are read to
//! find the least loaded worker. Configuration arrives compiled, as commands from the main thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use proxy_core::Random;
use proxy_upstream::metadata_exchange::Told;
use proxy_upstream::{ClusterManager, Dialer};
use telemetry::stats::Registry;
use tokio::sync::mpsc;

use crate::acceptor;
use crate::balancer::{Balancer, Load};
use crate::command::{Command, PutListener};
use crate::handler::ConnectionHandler;
use crate::limits;
use crate::listeners::Listeners;
use crate::local::Local;

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    handler: ConnectionHandler,
}

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) registry: Registry,
    pub(crate) seed: u64,
    pub(crate) load: Load,
    /// Where the workers take commands, this one included.
    pub(crate) peers: Vec<mpsc::Sender<Command>>,
    /// `%HOSTNAME%`.
    pub(crate) hostname: Arc<str>,
    /// What peers are told of this node.
    pub(crate) told: Arc<Told>,
}

impl Worker {
    pub(crate) fn new(parts: Parts, dialer: Option<Rc<dyn Dialer>>) -> Self {
        let shard = parts.registry.shard();
        let mut clusters = ClusterManager::new(shard.clone(), parts.seed, dialer);
        // The gauges of a cluster's hosts are the same on every worker.
        if parts.index == 0 {
            clusters.report_membership();
        }
        let local = Local::new(
            shard,
            Random::new(parts.seed),
            clusters,
            (&parts.hostname, parts.told),
        );
        let handler = ConnectionHandler {
            listeners: Rc::new(Listeners::new(parts.index, local.clone())),
            balancer: Rc::new(Balancer::new(parts.index, parts.load, parts.peers)),
            local,
        };
        Self { handler }
    }

    /// Carries out commands until there are no more senders or a stop comes.
    pub(crate) async fn run(self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(limits::TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => return self.end_connections().await,
                    Some(command) => self.carry_out(command),
                },
                _ = tick.tick() => self.handler.local.clusters().borrow().tick(Instant::now()),
            }
        }
    }

    /// Ends all connections, as far as that does not take long, so that requests on them are recorded.
    async fn end_connections(&self) {
        self.handler.listeners.end_all();
        let ended = async {
            while self.handler.balancer.connections() > 0 {
                tokio::time::sleep(limits::STOP_POLL).await;
            }
            // Streams of connections that are over have heard of it only.
            tokio::time::sleep(limits::STOP_POLL).await;
        };
        if tokio::time::timeout(limits::CONNECTIONS_STOP_PATIENCE, ended)
            .await
            .is_err()
        {
            tracing::debug!("connections are left when the worker ends");
        }
    }

    fn carry_out(&self, command: Command) {
        let ConnectionHandler { local, listeners, .. } = &self.handler;
        match command {
            Command::Cluster(update) => {
                local.clusters().borrow_mut().apply(update, Instant::now());
            }
            Command::Routes { slot, table } => local.set_routes(slot, table),
            Command::PutListener(put) => self.put_listener(*put),
            Command::RemoveListener { name, drain } => listeners.remove(&name, drain),
            Command::DrainListeners {
                drain,
                inbound_only,
                stop_accepting,
            } => listeners.drain_all(drain, inbound_only, stop_accepting),
            Command::Connection(connection) => acceptor::take_over(&self.handler, connection),
            Command::Inspect(inspect) => inspect(local),
            Command::Stop => {}
        }
    }

    /// Puts a listener in force, and accepts from its sockets when they are new.
    fn put_listener(&self, put: PutListener) {
        let slot = self.handler.listeners.put(put.config, put.drain);
        if let Some(sockets) = put.sockets {
            let accept = |socket| acceptor::start(&self.handler, &slot, socket);
            slot.accept_from(sockets.into_iter().filter_map(accept));
        }
    }
}
