//! Whom a change reaches, and with what: sessions of several proxies, without I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::core::v3::{Locality, Node};
use api_envoy::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api_envoy::{type_url, wkt};
use control_discovery::session::Delta;
use control_discovery::{Cache, Publication, Session, World};
use control_snapshot::{Kind, Proxy, Settings};
use serde_json::{Value, json};

/// Longer than the quiet that a change waits for.
const PUBLISHED: Duration = Duration::from_millis(50);

/// The cluster of `a`.
const A: &str = "outbound|80||a.left.svc.cluster.local";

fn service(name: &str, namespace: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterIP": address, "selector": {"app": name}, "ports": [{"name": "http", "port": 80}],
        },
    })
}

fn entry(name: &str, address: &str, locality: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "left", "labels": {"app": "a"}},
        "spec": {"address": address, "locality": locality},
    })
}

/// `a`, which has a workload in each of two regions, and `c` of another namespace.
async fn world() -> Arc<World> {
    let world = World::new(Settings::default(), "test");
    tokio::spawn(Arc::clone(&world).run());
    world.apply(Kind::Service, service("a", "left", "10.96.0.1"));
    world.apply(Kind::Service, service("c", "right", "10.96.0.3"));
    world.apply(Kind::WorkloadEntry, entry("a-1", "10.0.0.1", "east/1"));
    world.apply(Kind::WorkloadEntry, entry("a-2", "10.0.0.2", "west/1"));
    world.ready();
    published(&world).await;
    world
}

async fn published(world: &World) -> Arc<Publication> {
    tokio::time::sleep(PUBLISHED).await;
    world.current().expect("published")
}

/// A proxy that has all clusters and listeners, the endpoints of `a` and `c`, and the routes of port 80.
struct Client(Session);

impl Client {
    fn connect(
        publication: &Arc<Publication>,
        cache: &Cache,
        app: &str,
        namespace: &str,
        region: &str,
    ) -> Self {
        let metadata = json!({"NAMESPACE": namespace, "LABELS": {"app": app}});
        let node = Node {
            id: format!("sidecar~10.1.0.1~{app}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(wkt::structure(&metadata)),
            locality: Some(Locality {
                region: region.to_owned(),
                ..Locality::default()
            }),
            ..Node::default()
        };
        let proxy = Proxy::from_node(&node).expect("a node");
        let mut client = Self(Session::open(app, "", proxy, Arc::clone(publication)));
        let endpoints = vec![A.to_owned(), A.replace("a.left", "c.right")];
        let wanted = [
            (type_url::CLUSTER, Vec::new()),
            (type_url::ENDPOINT, endpoints),
            (type_url::LISTENER, Vec::new()),
            (type_url::ROUTE, vec!["80".to_owned()]),
        ];
        for (type_url, names) in wanted {
            let request = DeltaDiscoveryRequest {
                node: Some(node.clone()),
                type_url: type_url.to_owned(),
                resource_names_subscribe: names,
                ..DeltaDiscoveryRequest::default()
            };
            let reply = client.0.receive::<Delta>(&request, cache).expect("a request");
            assert!(!reply.responses.is_empty(), "{type_url}");
        }
        client
    }

    /// What a push to it holds, by the last part of the type; clusters that belong to no service are left out.
    fn push(&mut self, publication: &Arc<Publication>, cache: &Cache) -> BTreeMap<String, Vec<String>> {
        let responses = self.0.push::<Delta>(Arc::clone(publication), cache);
        let named = |response: DeltaDiscoveryResponse| {
            let kind = response
                .type_url
                .rsplit('.')
                .next()
                .unwrap_or_default()
                .to_owned();
            let names = response.resources.into_iter().map(|resource| resource.name);
            let names = names.filter(|name| kind != "Cluster" || name.starts_with("outbound"));
            let names = names.collect();
            (kind, names)
        };
        responses.into_iter().map(named).collect()
    }
}

fn nothing() -> BTreeMap<String, Vec<String>> {
    BTreeMap::new()
}

/// Two workloads of one namespace and one of another.
fn clients(publication: &Arc<Publication>, cache: &Cache) -> [Client; 3] {
    [("a", "left"), ("b", "left"), ("c", "right")]
        .map(|(app, namespace)| Client::connect(publication, cache, app, namespace, "east"))
}

#[tokio::test(start_paused = true)]
async fn a_change_of_endpoints_reaches_everybody_with_one_assignment() {
    let (world, cache) = (world().await, Cache::default());
    let mut clients = clients(&world.current().expect("published"), &cache);
    world.apply(Kind::WorkloadEntry, entry("a-3", "10.0.0.3", "east/1"));
    let publication = published(&world).await;
    let expected = BTreeMap::from([("ClusterLoadAssignment".to_owned(), vec![A.to_owned()])]);
    for client in &mut clients {
        assert_eq!(client.push(&publication, &cache), expected);
    }
    // It was made once.
    let [one, _, other] = clients.map(|client| client.0.endpoints());
    assert!(Arc::ptr_eq(&one[0].body, &other[0].body));
    assert!(!Arc::ptr_eq(&one[0].body, &one[1].body));
}

#[tokio::test(start_paused = true)]
async fn a_rule_reaches_the_clients_that_it_is_for() {
    let (world, cache) = (world().await, Cache::default());
    let mut clients = clients(&world.current().expect("published"), &cache);
    world.apply(
        Kind::DestinationRule,
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": "r", "namespace": "right"},
            "spec": {
                "host": "a.left.svc.cluster.local",
                "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 7}}},
            },
        }),
    );
    let publication = published(&world).await;
    let [one, two, other] = &mut clients;
    assert_eq!(one.push(&publication, &cache), nothing());
    assert_eq!(two.push(&publication, &cache), nothing());
    let pushed = other.push(&publication, &cache);
    assert_eq!(pushed["Cluster"], [A]);
    // A cluster that differs waits for its endpoints.
    assert_eq!(pushed["ClusterLoadAssignment"], [A]);
}

#[tokio::test(start_paused = true)]
async fn a_virtual_service_reaches_the_namespace_that_it_is_exported_to_without_clusters() {
    let (world, cache) = (world().await, Cache::default());
    let mut clients = clients(&world.current().expect("published"), &cache);
    world.apply(
        Kind::VirtualService,
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "v", "namespace": "left"},
            "spec": {
                "hosts": ["a.left.svc.cluster.local"], "exportTo": ["."],
                "http": [{"timeout": "3s", "route": [{"destination": {"host": "a.left.svc.cluster.local"}}]}],
            },
        }),
    );
    let publication = published(&world).await;
    let [one, two, other] = &mut clients;
    for client in [one, two] {
        let pushed = client.push(&publication, &cache);
        assert_eq!(pushed["RouteConfiguration"], ["80"]);
        assert_eq!(pushed["Cluster"], Vec::<String>::new());
        assert!(!pushed.contains_key("ClusterLoadAssignment"));
    }
    assert_eq!(other.push(&publication, &cache), nothing());
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_are_near_to_one_and_far_from_another_are_not_shared() {
    let (world, cache) = (world().await, Cache::default());
    world.apply(
        Kind::DestinationRule,
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": "r", "namespace": "left"},
            "spec": {"host": "a.left.svc.cluster.local", "trafficPolicy": {"outlierDetection": {}}},
        }),
    );
    let publication = published(&world).await;
    let of = |app, region| {
        Client::connect(&publication, &cache, app, "left", region)
            .0
            .endpoints()
    };
    let (east, also_east, west) = (of("a", "east"), of("b", "east"), of("b", "west"));
    assert_eq!(&*east[0].name, A);
    assert!(Arc::ptr_eq(&east[0].body, &also_east[0].body));
    assert_ne!(east[0].body, west[0].body);
}
