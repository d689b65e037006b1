//! The discovery server over a real socket: what a client gets when the world changes, and what the debug pages say.

use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api_envoy::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use api_envoy::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api_envoy::{type_url, wkt};
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use control_discovery::debug::{Caller, Pages, router};
use control_discovery::limits::CONCURRENT_PUSHES;
use control_discovery::{Discovery, World};
use control_snapshot::{Kind, Settings};
use control_sources::registration::{Belonging, Registrar, StreamEvent};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tower::ServiceExt as _;
use xds::Variant;
use xds::client::{Client, Rejection, Update};
use xds::grpc::client::{Command, Event, Target, commands, run};
use xds::limits::SERVER_RESPONSE_QUEUE;

struct Server {
    world: Arc<World>,
    discovery: Discovery,
    target: Target,
    events: mpsc::Receiver<StreamEvent>,
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "selector": {"app": name},
            "ports": [{"name": "http", "port": 9080, "targetPort": 9080}],
        },
    })
}

fn entry(healthy: &str) -> Value {
    json!({
        "metadata": {"name": "reviews-1", "namespace": "default", "labels": {"app": "reviews"}},
        "spec": {"address": "127.66.0.4", "ports": {"http": 9080}},
        "status": {"conditions": [{"type": "Healthy", "status": healthy}]},
    })
}

async fn start() -> Server {
    start_until(std::future::pending()).await.0
}

/// One that stops, and its end.
async fn start_until(shutdown: impl Future<Output = ()> + Send + 'static) -> (Server, JoinHandle<()>) {
    let world = World::new(Settings::default(), "test");
    world.apply(Kind::Service, service("reviews"));
    world.apply(Kind::WorkloadEntry, entry("True"));
    world.ready();
    tokio::spawn(Arc::clone(&world).run());
    let (registrar, events) = Registrar::queue();
    let discovery = Discovery::new(Arc::clone(&world), "test", Some(registrar));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let target = Target::Tcp(listener.local_addr().expect("an address").to_string());
    let server = discovery.clone();
    let serving = tokio::spawn(async move { server.serve(listener, shutdown).await.expect("a server") });
    let server = Server {
        world,
        discovery,
        target,
        events,
    };
    (server, serving)
}

fn node() -> Node {
    let metadata = wkt::structure(&json!({
        "NAMESPACE": "default", "CLUSTER_ID": "Kubernetes", "AUTO_REGISTER_GROUP": "callers",
        "PROXY_CONFIG": {"readinessProbe": {"tcpSocket": {"port": 9080}}},
    }));
    Node {
        id: "sidecar~127.66.0.9~caller.default~default.svc.cluster.local".into(),
        metadata: Some(metadata),
        ..Node::default()
    }
}

const CLUSTER: &str = "outbound|9080||reviews.default.svc.cluster.local";

/// A client of clusters, of one cluster's endpoints and of listeners; it refuses listeners when told.
fn connect(
    server: &Server,
    variant: Variant,
    refuse: bool,
) -> (mpsc::Sender<Command>, mpsc::Receiver<Update>) {
    let mut client = Client::new(variant, node());
    client.watch_all(type_url::CLUSTER);
    client.subscribe(type_url::ENDPOINT, [CLUSTER]);
    client.watch_all(type_url::LISTENER);
    let (sender, receiver) = commands();
    let (updates, seen) = mpsc::channel(64);
    let handler = move |event: Event, client: &mut Client| {
        if let Event::Update(update) = event {
            if refuse && update.type_url == type_url::LISTENER {
                let reason = "filter: not here".to_owned();
                client.reject(
                    &update,
                    &[Rejection {
                        name: "virtualOutbound".into(),
                        reason,
                    }],
                );
            } else {
                client.accept(&update);
            }
            // The test may have seen enough.
            let _ = updates.try_send(update);
        }
    };
    tokio::spawn(run(server.target.clone(), client, handler, receiver, || 0));
    (sender, seen)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("in time")
}

async fn next(updates: &mut mpsc::Receiver<Update>, type_url: &str) -> Update {
    loop {
        let update = within(updates.recv()).await.expect("updates go on");
        if update.type_url == type_url {
            return update;
        }
    }
}

async fn page(server: &Server, path: &str) -> Value {
    let pages = Pages {
        discovery: server.discovery.clone(),
        version: "test",
        started: std::time::Instant::now(),
    };
    let request = Request::get(path).extension(ConnectInfo(Caller::ThisHost));
    let request = request.body(Body::empty()).expect("a request");
    let response = router(pages).oneshot(request).await.expect("an answer");
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    serde_json::from_slice(&bytes).unwrap_or_else(|_| text())
}

#[tokio::test]
async fn a_change_reaches_clients_of_both_variants() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let server = start().await;
        let (_commands, mut updates) = connect(&server, variant, false);
        let clusters = next(&mut updates, type_url::CLUSTER).await;
        assert!(
            clusters.resources.iter().any(|r| r.name == CLUSTER),
            "{variant:?}"
        );
        next(&mut updates, type_url::LISTENER).await;
        server.world.apply(Kind::Service, service("ratings"));
        let clusters = next(&mut updates, type_url::CLUSTER).await;
        let added =
            |r: &&xds::Resource| r.name.ends_with("ratings.default.svc.cluster.local") && !r.unchanged;
        assert_eq!(clusters.resources.iter().filter(added).count(), 1, "{variant:?}");
        server.world.delete(Kind::Service, "default", "ratings");
        let clusters = next(&mut updates, type_url::CLUSTER).await;
        assert_eq!(
            clusters.removed,
            ["outbound|9080||ratings.default.svc.cluster.local"],
            "{variant:?}"
        );
    }
}

/// How many endpoints of the first resource may get traffic.
fn healthy_endpoints(update: &Update) -> usize {
    let body = api_envoy::any::unpack::<ClusterLoadAssignment>(&update.resources[0].body).expect("endpoints");
    let all = body.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    // `HealthStatus`: 2 is UNHEALTHY.
    all.filter(|endpoint| endpoint.health_status != 2).count()
}

#[tokio::test]
async fn endpoint_changes_send_endpoints_only_and_an_unhealthy_workload_leaves() {
    let server = start().await;
    let (_commands, mut updates) = connect(&server, Variant::Delta, false);
    next(&mut updates, type_url::LISTENER).await;
    for (healthy, expected) in [("False", 0), ("True", 1)] {
        server.world.apply(Kind::WorkloadEntry, entry(healthy));
        let update = within(updates.recv()).await.expect("updates go on");
        assert_eq!(update.type_url, type_url::ENDPOINT);
        assert_eq!(healthy_endpoints(&update), expected);
    }
}

#[tokio::test]
async fn a_refusal_is_shown_on_the_debug_pages() {
    let server = start().await;
    let (_commands, mut updates) = connect(&server, Variant::Delta, true);
    next(&mut updates, type_url::LISTENER).await;
    let refused = within(async {
        loop {
            let clients = page(&server, "/debug/adsz").await;
            let reason = clients["clients"][0]["rejected"][type_url::LISTENER]["message"].clone();
            if reason.is_string() {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(refused, "virtualOutbound: filter: not here");
    let synced = page(&server, "/debug/syncz").await;
    assert_eq!(synced[0]["proxy"], "caller.default");
    assert_eq!(synced[0]["cluster_sent"], synced[0]["cluster_acked"]);
    assert_eq!(synced[0]["listener_error"], refused);
    let metrics = page(&server, "/metrics").await;
    for sample in [
        "pilot_xds_lds_reject 1\n",
        "pilot_xds_push_time_count{type=\"lds\"} 1\n",
        "pilot_push_triggers{type=\"service\"} 1\n",
        "pilot_push_triggers{type=\"endpoint\"} 1\n",
        "pilot_debounce_time_count 1\n",
        "pilot_pushcontext_init_seconds_count 1\n",
    ] {
        let found = metrics.as_str().is_some_and(|text| text.contains(sample));
        assert!(found, "{sample} is missing in {metrics}");
    }
}

#[tokio::test]
async fn health_reports_and_the_life_of_streams_are_heard() {
    let mut server = start().await;
    let (commands, mut updates) = connect(&server, Variant::Delta, false);
    let connected = within(server.events.recv()).await;
    let Some(StreamEvent::Connected {
        stream: 1,
        announcement,
    }) = connected
    else {
        panic!("{connected:?}")
    };
    assert_eq!(announcement.belonging, Belonging::Group("callers".into()));
    assert_eq!(announcement.address, "127.66.0.9");
    assert!(announcement.health_checked);
    next(&mut updates, type_url::CLUSTER).await;
    let error = api_envoy::google::rpc::Status {
        code: 500,
        message: "dead".into(),
        ..Default::default()
    };
    let report: Command = Box::new(move |client| client.report(type_url::HEALTH_INFORMATION, Some(error)));
    assert!(commands.send(report).await.is_ok(), "the client runs");
    let health = within(server.events.recv()).await;
    let Some(StreamEvent::Health {
        healthy: false,
        message,
        ..
    }) = health
    else {
        panic!("{health:?}")
    };
    assert_eq!(message, "dead");
    drop(commands);
    let gone = within(server.events.recv()).await;
    assert!(
        matches!(gone, Some(StreamEvent::Disconnected { stream: 1 })),
        "{gone:?}"
    );
}

#[tokio::test]
async fn a_stream_that_only_reports_is_translated_for_no_more_than_it_asks() {
    let mut server = start().await;
    let (commands, receiver) = commands();
    let client = Client::new(Variant::Delta, node());
    let ignore = |_: Event, _: &mut Client| {};
    tokio::spawn(run(server.target.clone(), client, ignore, receiver, || 0));
    let report: Command = Box::new(|client| client.report(type_url::HEALTH_INFORMATION, None));
    assert!(commands.send(report).await.is_ok(), "the client runs");
    loop {
        let event = within(server.events.recv()).await.expect("events go on");
        if matches!(event, StreamEvent::Health { healthy: true, .. }) {
            break;
        }
    }
    server.world.apply(Kind::Service, service("ratings"));
    let mut published = server.world.subscribe();
    let later = published.wait_for(|p| p.as_ref().is_some_and(|p| p.sequence > 1));
    assert!(within(later).await.is_ok());
    assert!(server.discovery.cache().live().is_empty());
    let (_commands, mut updates) = connect(&server, Variant::Delta, false);
    next(&mut updates, type_url::CLUSTER).await;
    assert_eq!(server.discovery.cache().live().len(), 1);
}

#[tokio::test]
async fn debug_pages_show_the_world_and_a_proxys_configuration() {
    let server = start().await;
    let (_commands, mut updates) = connect(&server, Variant::Delta, false);
    next(&mut updates, type_url::LISTENER).await;
    let registry = page(&server, "/debug/registryz").await;
    assert_eq!(registry[0]["hostname"], "reviews.default.svc.cluster.local");
    let endpoints = page(&server, "/debug/endpointz").await;
    assert_eq!(endpoints[0]["ep"][0]["endpoint"]["Address"], "127.66.0.4");
    let configs = page(&server, "/debug/configz").await;
    assert_eq!(configs[0]["kind"], "WorkloadEntry");
    let dump = page(&server, "/debug/config_dump?proxyID=caller.default").await;
    let clusters = dump["configs"][0]["dynamicActiveClusters"]
        .as_array()
        .expect("clusters");
    assert!(clusters.iter().any(|c| c["cluster"]["name"] == CLUSTER));
    let unknown = page(&server, "/debug/config_dump?proxyID=nobody.default").await;
    assert_eq!(unknown, "Proxy not connected to this control plane instance");
}

#[tokio::test]
async fn debug_pages_are_for_this_host_and_metrics_for_everybody() {
    let server = start().await;
    let pages = Pages {
        discovery: server.discovery.clone(),
        version: "test",
        started: std::time::Instant::now(),
    };
    let status = |path: &'static str, caller: Option<Caller>| {
        let mut request = Request::get(path).body(Body::empty()).expect("a request");
        if let Some(caller) = caller {
            request.extensions_mut().insert(ConnectInfo(caller));
        }
        let answer = router(pages.clone()).oneshot(request);
        async move { answer.await.expect("an answer").status().as_u16() }
    };
    for path in ["/debug", "/debug/configz", "/debug/config_dump", "/debug/syncz"] {
        assert_eq!(status(path, Some(Caller::Elsewhere)).await, 403, "{path}");
        assert_eq!(status(path, None).await, 403, "{path}");
        assert_ne!(status(path, Some(Caller::ThisHost)).await, 403, "{path}");
    }
    for path in ["/metrics", "/version"] {
        assert_eq!(status(path, Some(Caller::Elsewhere)).await, 200, "{path}");
    }
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_neither_pushes_nor_the_end() {
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move {
        let _ = stopped.await;
    };
    let (server, serving) = start_until(stopped).await;
    let Target::Tcp(address) = &server.target else {
        panic!("over TCP")
    };
    // Nothing may be sent to these streams, and each gets more than waits for the wire.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(0);
    let channel = within(endpoint.connect()).await.expect("a connection");
    let mut deaf = Vec::new();
    for _ in 0..CONCURRENT_PUSHES {
        let (requests, queue) = mpsc::channel(4);
        for type_url in [type_url::CLUSTER, type_url::LISTENER] {
            let request = DeltaDiscoveryRequest {
                node: Some(node()),
                type_url: type_url.to_owned(),
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(request).await.expect("room");
        }
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
        let answers = within(client.delta_aggregated_resources(ReceiverStream::new(queue))).await;
        deaf.push((requests, answers.expect("a stream")));
    }
    let (_commands, mut updates) = connect(&server, Variant::Delta, false);
    next(&mut updates, type_url::LISTENER).await;
    for number in 0..2 * SERVER_RESPONSE_QUEUE {
        let name = format!("late-{number}");
        server.world.apply(Kind::Service, service(&name));
        let update = next(&mut updates, type_url::CLUSTER).await;
        assert!(
            update
                .resources
                .iter()
                .any(|cluster| cluster.name.contains(&name))
        );
    }
    drop(stop);
    within(serving).await.expect("it ends");
}
