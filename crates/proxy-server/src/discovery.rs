//! Discovery: one aggregated stream, its responses applied to the configuration, each accepted or refused.

use std::rc::Rc;
use std::time::Instant;

use api_envoy::type_url;
use proxy_config::bootstrap::{AdsConfig, AdsTarget};
use proxy_core::ConfigResult;
use proxy_core::random::{Random, seed};
use xds::Variant;
use xds::client::{Client, Rejection, Update};
use xds::grpc::client::{Event, Service, Target};

use crate::server::{Server, source};
use crate::subscriptions::subscribe;

/// Runs the stream for as long as the process lives. Without a connection the last good configuration stays in force.
pub(crate) fn start(server: &Rc<Server>, ads: &AdsConfig) {
    let variant = if ads.delta {
        Variant::Delta
    } else {
        Variant::StateOfTheWorld
    };
    let mut client = Client::new(variant, server.bootstrap.node());
    // Subscriptions are announced in this order after each connect: clusters before what refers to them.
    if ads.clusters.is_some() {
        client.watch_all(type_url::CLUSTER);
    }
    client.subscribe(type_url::ENDPOINT, std::iter::empty::<String>());
    if ads.listeners.is_some() {
        client.watch_all(type_url::LISTENER);
    }
    client.subscribe(type_url::ROUTE, std::iter::empty::<String>());
    client.subscribe(type_url::SECRET, std::iter::empty::<String>());
    subscribe(&mut client, server.subscriptions.take());
    let discovery = xds::grpc::client::Server {
        target: target(&ads.target),
        service: Service::Aggregated,
        security: server.security_towards(&ads.cluster, &ads.target),
    };
    server.count_discovery(&ads.cluster);
    let (commands, receiver) = xds::grpc::client::commands();
    server.subscriptions.set_client(commands);
    let random = Random::new(seed());
    let handler = {
        let server = Rc::clone(server);
        move |event: Event, client: &mut Client| on_event(&server, event, client)
    };
    tokio::task::spawn_local(async move {
        xds::grpc::client::run(discovery, client, handler, receiver, move || random.next()).await;
    });
}

/// Where a service listens, in the words of the client that connects to it.
pub(crate) fn target(target: &AdsTarget) -> Target {
    match target {
        AdsTarget::Tcp(host, port) => Target::Tcp(authority(host, *port)),
        AdsTarget::Unix(path) => Target::Unix(path.into()),
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn on_event(server: &Rc<Server>, event: Event, client: &mut Client) {
    match event {
        Event::Connected(link) => {
            tracing::info!("discovery stream opened");
            if let Some(stats) = server.ads_stats.get() {
                stats.connected(link, Instant::now());
            }
            server.shard.set_gauge(server.stats.connected_state, 1);
        }
        Event::Disconnected { reason, retry_in } => {
            tracing::warn!(%reason, retry_in_ms = retry_in.as_millis() as u64, "discovery stream closed");
            if let Some(stats) = server.ads_stats.get() {
                stats.disconnected(Instant::now());
            }
            server.shard.set_gauge(server.stats.connected_state, 0);
        }
        Event::Update(update) => {
            if let Some(stats) = server.ads_stats.get() {
                stats.answered();
            }
            on_update(server, &update, client);
        }
    }
}

fn on_update(server: &Rc<Server>, update: &Update, client: &mut Client) {
    let rejections = apply(server, update);
    let stats = match update.type_url.as_str() {
        type_url::CLUSTER => Some(server.stats.cds),
        type_url::LISTENER => Some(server.stats.lds),
        _ => None,
    };
    if let Some(stats) = stats {
        server.shard.inc(stats.attempt);
        server.shard.inc(if rejections.is_empty() {
            stats.success
        } else {
            stats.rejected
        });
    }
    if rejections.is_empty() {
        client.accept(update);
    } else {
        for rejection in &rejections {
            tracing::warn!(type_url = %update.type_url, name = %rejection.name, reason = %rejection.reason, "refused");
        }
        client.reject(update, &rejections);
    }
    server.state.borrow_mut().answered(&update.type_url);
    // The client is at hand here, so changes need not queue.
    server.pump_with(|changes| subscribe(client, changes));
}

/// Puts a response in force; what could not be is returned.
fn apply(server: &Rc<Server>, update: &Update) -> Vec<Rejection> {
    tracing::debug!(
        type_url = %update.type_url, version = %update.version,
        resources = update.resources.len(), removed = update.removed.len(), "discovery response"
    );
    // A listener that is gone may have had the address of one that is new; a cluster goes after what used it.
    let removed_first = update.type_url == type_url::LISTENER;
    if removed_first {
        // A delta response names what is gone; the other kind has all there is.
        if server.bootstrap.ads.as_ref().is_some_and(|ads| !ads.delta) {
            server.state.borrow_mut().forget_refused_listeners();
        }
        update
            .removed
            .iter()
            .for_each(|name| remove(server, &update.type_url, name));
    }
    let mut rejections = Vec::new();
    for resource in update.resources.iter() {
        let put = put(server, &update.type_url, resource, &update.version);
        if let Err(error) = put {
            rejections.push(Rejection {
                name: resource.name.clone(),
                reason: error.to_string(),
            });
        }
        server.pump_actions();
    }
    if !removed_first {
        update
            .removed
            .iter()
            .for_each(|name| remove(server, &update.type_url, name));
    }
    rejections
}

fn put(server: &Rc<Server>, kind: &str, resource: &xds::Resource, version: &str) -> ConfigResult<()> {
    // Delta responses of some servers version the response alone.
    let version = if resource.version.is_empty() {
        version
    } else {
        &resource.version
    };
    let source = source(resource.body.clone(), version);
    match kind {
        type_url::CLUSTER => {
            let known = server
                .state
                .borrow()
                .clusters()
                .contains_key(resource.name.as_str());
            let result = server.state.borrow_mut().update_cluster(source);
            let stats = server.stats.clusters;
            if result.is_ok() && !resource.unchanged {
                server.shard.inc(if known { stats.modified } else { stats.added });
            }
            result
        }
        type_url::ENDPOINT => server.state.borrow_mut().update_endpoints(source),
        type_url::LISTENER if !server.takes_listener(&source.resource) => {
            tracing::debug!(name = %resource.name, "listeners are stopped: this one is not put in force");
            Ok(())
        }
        type_url::LISTENER => {
            let known = server
                .state
                .borrow()
                .listeners()
                .contains_key(resource.name.as_str());
            let result = server.put_listener(source, false);
            let stats = server.stats.listeners;
            match &result {
                Ok(()) if resource.unchanged => {}
                Ok(()) => server.shard.inc(if known { stats.modified } else { stats.added }),
                Err(_) => server.shard.inc(server.stats.listener_create_failure),
            }
            result
        }
        type_url::ROUTE => server.state.borrow_mut().update_routes(source),
        type_url::SECRET => {
            let result = server.state.borrow_mut().update_ads_secret(&source);
            let stats = server.secret_stats.of(&resource.name);
            stats.asked(&server.shard);
            stats.updated(&server.shard, &source.version, result.is_ok());
            result
        }
        _ => Ok(()),
    }
}

fn remove(server: &Rc<Server>, kind: &str, name: &str) {
    let mut state = server.state.borrow_mut();
    match kind {
        type_url::CLUSTER => {
            server.shard.inc(server.stats.clusters.removed);
            state.remove_cluster(name);
        }
        type_url::LISTENER => {
            server.shard.inc(server.stats.listeners.removed);
            state.remove_listener(name);
        }
        type_url::ENDPOINT => state.remove_endpoints(name),
        type_url::ROUTE => state.remove_routes(name),
        // As in Envoy the last version stays in use: whoever names the secret goes with its listener or cluster.
        type_url::SECRET => tracing::warn!(name, "the discovery service has no such secret"),
        _ => {}
    }
}
