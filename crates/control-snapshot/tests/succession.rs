//! A world that comes after another: what it keeps of it, and what it says has changed.

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::wkt;
use control_snapshot::{EndpointChanges, Kind, Objects, Proxy, Settings, Snapshot};
use serde_json::json;

fn apply_service(objects: &mut Objects, name: &str, cluster_ip: &str) {
    let service = json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "selector": {"app": name},
            "ports": [{"name": "tcp", "port": 80, "targetPort": 80}],
        },
    });
    assert_eq!(objects.apply(Kind::Service, service), None);
}

fn apply_endpoints(objects: &mut Objects, name: &str, addresses: &[&str]) {
    let endpoint = |address: &&str| json!({"addresses": [address], "conditions": {"ready": true}});
    let slice = json!({
        "metadata": {
            "name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "tcp", "port": 80, "protocol": "TCP"}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    });
    assert_eq!(objects.apply(Kind::EndpointSlice, slice), None);
}

/// Two services, the second without an address of its own.
fn world() -> Objects {
    let mut objects = Objects::new(Settings::default());
    let namespace = json!({"metadata": {"name": "shop"}});
    assert_eq!(objects.apply(Kind::Namespace, namespace), None);
    apply_service(&mut objects, "plain", "10.96.0.1");
    apply_service(&mut objects, "headless", "None");
    apply_endpoints(&mut objects, "plain", &["10.0.0.1"]);
    apply_endpoints(&mut objects, "headless", &["10.0.0.2", "10.0.0.3"]);
    objects
}

fn proxy(address: &str, labels: &serde_json::Value) -> Proxy {
    let metadata = json!({"NAMESPACE": "shop", "LABELS": labels, "INSTANCE_IPS": address});
    let node = Node {
        id: format!("sidecar~{address}~p.shop~shop.svc.cluster.local"),
        metadata: Some(wkt::structure(&metadata)),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a node")
}

fn rule(selector: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {
            "host": "plain.shop.svc.cluster.local", "workloadSelector": {"matchLabels": selector},
            "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 7}}},
        },
    })
}

const PLAIN: &str = "outbound|80||plain.shop.svc.cluster.local";
const HEADLESS: &str = "outbound|80||headless.shop.svc.cluster.local";

#[test]
fn a_change_of_endpoints_names_the_service_alone() {
    let mut objects = world();
    let before = Snapshot::build(&objects);
    apply_endpoints(&mut objects, "plain", &["10.0.0.1", "10.0.0.9"]);
    let after = Snapshot::build_after(Some(&before), &objects);
    let changes = EndpointChanges::between(&before, &after).expect("only endpoints differ");
    let client = proxy("10.0.0.8", &json!({}));
    for (cluster, differs) in [(PLAIN, true), (HEADLESS, false)] {
        assert_eq!(changes.concern(cluster), differs, "{cluster}");
        assert_eq!(
            after.same_endpoints(&before, &client, cluster),
            !differs,
            "{cluster}"
        );
    }
}

#[test]
fn endpoints_that_come_and_go_have_changed() {
    let mut objects = world();
    let before = Snapshot::build(&objects);
    objects.delete(Kind::EndpointSlice, "shop", "plain");
    let without = Snapshot::build_after(Some(&before), &objects);
    let went = EndpointChanges::between(&before, &without).expect("only endpoints differ");
    let came = EndpointChanges::between(&without, &before).expect("only endpoints differ");
    assert!(went.concern(PLAIN) && came.concern(PLAIN));
}

#[test]
fn another_rule_or_service_may_concern_every_cluster() {
    let mut objects = world();
    let before = Snapshot::build(&objects);
    assert_eq!(objects.apply(Kind::DestinationRule, rule(&json!({}))), None);
    let ruled = Snapshot::build_after(Some(&before), &objects);
    assert_eq!(EndpointChanges::between(&before, &ruled), None);
    apply_service(&mut objects, "third", "10.96.0.3");
    let larger = Snapshot::build_after(Some(&ruled), &objects);
    assert_eq!(EndpointChanges::between(&ruled, &larger), None);
}

#[test]
fn every_client_sees_the_same_as_in_a_world_without_a_past() {
    let mut objects = world();
    let clients = [
        proxy("10.0.0.8", &json!({"app": "client"})),
        proxy("10.0.0.2", &json!({"app": "headless"})),
        proxy("10.0.0.1", &json!({"app": "plain"})),
    ];
    let mut before = Snapshot::build(&objects);
    let mut check = |objects: &Objects| {
        let after = Snapshot::build_after(Some(&before), objects);
        for client in &clients {
            // A client of a world of its own shares nothing with the others.
            assert_eq!(
                after.proxy_view(client),
                Snapshot::build(objects).proxy_view(client)
            );
        }
        before = after;
    };
    check(&objects);
    apply_endpoints(&mut objects, "headless", &["10.0.0.2", "10.0.0.4"]);
    check(&objects);
    assert_eq!(
        objects.apply(Kind::DestinationRule, rule(&json!({"app": "client"}))),
        None
    );
    check(&objects);
    objects.delete(Kind::DestinationRule, "shop", "r");
    check(&objects);
}
