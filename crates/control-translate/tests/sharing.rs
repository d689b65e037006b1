//! What proxies have in common is made once, and what tells them apart is not shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_envoy::envoy::config::core::v3::{Extension, Node};
use api_envoy::wkt;
use control_snapshot::{Kind, Objects, Proxy, ProxyView, Settings, Snapshot};
use control_translate::{Packed, Parts, Translation, translate_with};
use serde_json::{Value, json};

/// Services of two namespaces, of which one has workloads that are called directly.
fn world() -> Objects {
    let mut objects = Objects::new(Settings::default());
    for (index, (name, namespace)) in [("a", "left"), ("b", "left"), ("c", "right"), ("d", "right")]
        .into_iter()
        .enumerate()
    {
        let ports = json!([
            {"name": "http", "port": 80}, {"name": "tcp", "port": 3306}, {"name": "unknown", "port": 7000},
        ]);
        let address = format!("10.96.0.{index}");
        let service = json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": address, "selector": {"app": name}, "ports": ports},
        });
        apply(&mut objects, Kind::Service, service);
    }
    objects
}

fn apply(objects: &mut Objects, kind: Kind, object: Value) {
    assert_eq!(objects.apply(kind, object), None);
}

fn proxy(app: &str, namespace: &str, extensions: &[&str]) -> Proxy {
    let extension = |name: &&str| Extension {
        name: (*name).to_owned(),
        ..Extension::default()
    };
    let metadata = json!({"NAMESPACE": namespace, "LABELS": {"app": app}});
    let node = Node {
        id: format!("sidecar~10.0.0.1~{app}.{namespace}~{namespace}.svc.cluster.local"),
        metadata: Some(wkt::structure(&metadata)),
        extensions: extensions.iter().map(extension).collect(),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a node")
}

/// A rule that limits connections to `a`, for clients of one namespace.
fn rule(namespace: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "r", "namespace": namespace},
        "spec": {
            "host": "a.left.svc.cluster.local",
            "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 7}}},
        },
    })
}

/// A VirtualService for `a`, with another timeout each time.
fn virtual_service(seconds: u32) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "v", "namespace": "left"},
        "spec": {
            "hosts": ["a.left.svc.cluster.local"],
            "http": [{
                "timeout": format!("{seconds}s"), "route": [{"destination": {"host": "a.left.svc.cluster.local"}}],
            }],
        },
    })
}

fn by_name(list: &[Packed]) -> BTreeMap<&str, &Packed> {
    list.iter().map(|packed| (&*packed.name, packed)).collect()
}

/// The names of outbound clusters that both have, one and the same; and of those that differ in what they say.
fn compare(one: &Translation, other: &Translation) -> (Vec<String>, Vec<String>) {
    let (one, other) = (by_name(&one.clusters), by_name(&other.clusters));
    let both = one
        .iter()
        .filter_map(|(name, packed)| Some((name, packed, other.get(name)?)));
    let (mut same, mut different) = (Vec::new(), Vec::new());
    for (name, a, b) in both.filter(|(name, ..)| name.starts_with("outbound")) {
        if Arc::ptr_eq(&a.body, &b.body) {
            same.push((*name).to_owned());
        } else if a != b {
            different.push((*name).to_owned());
        }
    }
    (same, different)
}

fn view(snapshot: &Snapshot, app: &str, namespace: &str) -> ProxyView {
    snapshot.proxy_view(&proxy(app, namespace, &[]))
}

#[test]
fn workloads_of_one_kind_share_the_clusters_of_every_service() {
    let (snapshot, parts) = (Snapshot::build(&world()), Parts::default());
    let (one, _) = translate_with(&view(&snapshot, "a", "left"), &parts);
    let (other, _) = translate_with(&view(&snapshot, "c", "right"), &parts);
    let (same, different) = compare(&one, &other);
    assert_eq!(same.len(), 4 * 3, "{same:?}");
    assert_eq!(different, Vec::<String>::new());
}

#[test]
fn a_rule_for_one_namespace_is_not_shared_with_another() {
    let mut objects = world();
    apply(&mut objects, Kind::DestinationRule, rule("right"));
    let (snapshot, parts) = (Snapshot::build(&objects), Parts::default());
    let (left, _) = translate_with(&view(&snapshot, "a", "left"), &parts);
    let (right, _) = translate_with(&view(&snapshot, "c", "right"), &parts);
    let (same, different) = compare(&left, &right);
    let of_a = [3306, 7000, 80].map(|port| format!("outbound|{port}||a.left.svc.cluster.local"));
    assert_eq!(different, of_a);
    assert_eq!(same.len(), 3 * 3);
}

#[test]
fn clients_that_are_able_to_do_different_things_share_nothing_that_shows_it() {
    let (snapshot, parts) = (Snapshot::build(&world()), Parts::default());
    let (istios, _) = translate_with(&view(&snapshot, "a", "left"), &parts);
    let plain = snapshot.proxy_view(&proxy("a", "left", &["envoy.filters.http.router"]));
    let (plain, _) = translate_with(&plain, &parts);
    let (same, different) = compare(&istios, &plain);
    assert_eq!(same, Vec::<String>::new());
    assert!(different.contains(&"outbound|80||a.left.svc.cluster.local".to_owned()));
}

#[test]
fn a_later_world_shares_what_did_not_change() {
    let (mut objects, parts) = (world(), Parts::default());
    let before = Snapshot::build(&objects);
    let (earlier, _) = translate_with(&view(&before, "a", "left"), &parts);
    apply(&mut objects, Kind::DestinationRule, rule("left"));
    let after = Snapshot::build_after(Some(&before), &objects);
    let (later, _) = translate_with(&view(&after, "a", "left"), &parts);
    let (same, different) = compare(&earlier, &later);
    assert_eq!((same.len(), different.len()), (3 * 3, 3), "{different:?}");
}

/// Whatever others have asked for before: byte for byte what comes of the view alone.
#[test]
fn parts_that_others_have_made_change_nothing() {
    let mut objects = world();
    let shared = Parts::default();
    let mut before = Snapshot::build(&objects);
    let mut held = Vec::new();
    let changes = [
        (Kind::DestinationRule, rule("right")),
        (Kind::VirtualService, virtual_service(1)),
        (Kind::DestinationRule, rule("left")),
        (Kind::VirtualService, virtual_service(2)),
    ];
    for (kind, change) in changes {
        apply(&mut objects, kind, change);
        let snapshot = Snapshot::build_after(Some(&before), &objects);
        for (app, namespace) in [
            ("a", "left"),
            ("b", "left"),
            ("c", "right"),
            ("client", "elsewhere"),
        ] {
            for extensions in [&[][..], &["istio.alpn"]] {
                let view = snapshot.proxy_view(&proxy(app, namespace, extensions));
                let (with, reported) = translate_with(&view, &shared);
                let (alone, reported_alone) = translate_with(&view, &Parts::default());
                assert_eq!(with.clusters, alone.clusters);
                assert_eq!(with.listeners, alone.listeners);
                assert_eq!(with.routes, alone.routes);
                assert_eq!(reported, reported_alone);
                held.push(with);
            }
        }
        before = snapshot;
    }
}
