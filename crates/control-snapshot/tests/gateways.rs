//! Gateways of one proxy, and the Secrets that they refer to.

use std::collections::BTreeSet;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::wkt;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_snapshot::{Holder, Kind, Objects, Proxy, Settings, Snapshot};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// A certificate chain and its key, in PEM.
struct Pair {
    chain: String,
    key: String,
}

/// An authority, and a certificate that it signed.
fn signed() -> (String, Pair) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&authority_key).expect("an authority").pem();
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["shop.test".to_owned()]).expect("a name");
    let issuer = Issuer::from_params(&params, &authority_key);
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate").pem();
    let chain = format!("{leaf}{authority}");
    (
        authority,
        Pair {
            chain,
            key: key.serialize_pem(),
        },
    )
}

fn secret(name: &str, entries: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> = entries
        .iter()
        .map(|(entry, text)| ((*entry).to_owned(), STANDARD.encode(text).into()))
        .collect();
    json!({"metadata": {"name": name, "namespace": "istio-system"}, "type": "Opaque", "data": data})
}

fn gateway(name: &str, created: u32, servers: &Value) -> Value {
    let created = format!("2024-01-01T00:00:{created:02}Z");
    json!({
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
        "spec": {"selector": {"istio": "ingress"}, "servers": servers},
    })
}

fn server(number: u32, name: &str, protocol: &str, hosts: &[&str], tls: &Value) -> Value {
    json!({"port": {"number": number, "name": name, "protocol": protocol}, "hosts": hosts, "tls": tls})
}

fn apply(objects: &mut Objects, kind: Kind, object: Value) {
    assert_eq!(objects.apply(kind, object), None);
}

/// A world with the pod of a gateway.
fn world(settings: Settings) -> Objects {
    let mut objects = Objects::new(settings);
    let pod = json!({"metadata": {"name": "g", "namespace": "istio-system", "labels": {"istio": "ingress"}}});
    apply(&mut objects, Kind::Pod, pod);
    objects
}

fn proxy() -> Proxy {
    let metadata = json!({"NAMESPACE": "istio-system", "LABELS": {"istio": "ingress"}});
    let node = Node {
        id: "router~10.0.0.1~g.istio-system~istio-system.svc.cluster.local".to_owned(),
        metadata: Some(wkt::structure(&metadata)),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a node")
}

/// Code, object and field of each diagnostic of the world.
fn findings(objects: &Objects) -> Vec<String> {
    let snapshot = Snapshot::build(objects);
    let all = snapshot.diagnostics().iter();
    all.map(|d| format!("{} {} {}", d.code.id(), d.resource, d.field))
        .collect()
}

#[test]
fn of_two_servers_for_one_host_the_older_is_served() {
    let mut objects = world(Settings::default());
    let tls = json!({"mode": "SIMPLE", "credentialName": "a"});
    let first = server(443, "https", "HTTPS", &["a.test", "b.test"], &tls);
    let second = server(443, "https", "HTTPS", &["shop/B.test", "c.test"], &tls);
    let third = server(443, "https-2", "HTTPS", &["d.test"], &tls);
    apply(&mut objects, Kind::Gateway, gateway("old", 1, &json!([first])));
    apply(
        &mut objects,
        Kind::Gateway,
        gateway("new", 2, &json!([second, third])),
    );
    let view = Snapshot::build(&objects).proxy_view(&proxy());
    let served: Vec<_> = view.gateways[0]
        .servers
        .iter()
        .map(|s| s.route_name.to_string())
        .collect();
    assert_eq!(served, ["https.443.https.old.shop", "https.443.https-2.new.shop"]);
    let [conflict] = view.diagnostics.as_slice() else {
        panic!("{:?}", view.diagnostics)
    };
    assert_eq!(
        (conflict.code.id(), conflict.field.as_str()),
        ("IST0145", "spec.servers[0].hosts")
    );
    assert!(
        conflict.message.contains("b.test is served by Gateway shop/old"),
        "{conflict}"
    );
}

#[test]
fn servers_of_https_need_port_names_of_their_own() {
    let mut objects = world(Settings::default());
    let tls = json!({"mode": "SIMPLE", "credentialName": "a"});
    let servers = json!([
        server(443, "https", "HTTPS", &["a.test"], &tls),
        server(443, "https", "HTTPS", &["b.test"], &tls),
    ]);
    apply(&mut objects, Kind::Gateway, gateway("shop", 1, &servers));
    let view = Snapshot::build(&objects).proxy_view(&proxy());
    assert_eq!(view.gateways[0].servers.len(), 1);
    assert_eq!(view.diagnostics[0].field, "spec.servers[1].port.name");
}

#[test]
fn a_gateway_of_another_namespace_counts_unless_the_mesh_says_otherwise() {
    let servers = json!([server(80, "http", "HTTP", &["*"], &Value::Null)]);
    let ports = |gateways_of_own_namespace| {
        let mut objects = world(Settings {
            gateways_of_own_namespace,
            ..Settings::default()
        });
        apply(&mut objects, Kind::Gateway, gateway("shop", 1, &servers));
        Snapshot::build(&objects).proxy_view(&proxy()).gateways.len()
    };
    assert_eq!((ports(false), ports(true)), (1, 0));
}

#[test]
fn settings_that_cannot_work_leave_out_their_server_alone() {
    let mut objects = world(Settings::default());
    let servers = json!([
        server(443, "a", "HTTPS", &["a.test"], &json!({"mode": "SIMPLE"})),
        server(
            443,
            "b",
            "TLS",
            &["b.test"],
            &json!({"mode": "PASSTHROUGH", "minProtocolVersion": "TLSV1_3"})
        ),
    ]);
    apply(&mut objects, Kind::Gateway, gateway("shop", 1, &servers));
    let view = Snapshot::build(&objects).proxy_view(&proxy());
    assert_eq!(view.gateways[0].servers.len(), 1);
    assert_eq!(
        findings(&objects),
        [
            "IST0106 Gateway shop.shop spec.servers[0].tls.serverCertificate",
            "IST0133 Gateway shop.shop spec.servers[1].tls.minProtocolVersion",
        ]
    );
}

#[test]
fn secrets_that_a_gateway_needs_are_looked_for_beside_its_workload() {
    let (authority, pair) = signed();
    let mut objects = world(Settings::default());
    let mutual = json!({"mode": "MUTUAL", "credentialName": "shop"});
    apply(
        &mut objects,
        Kind::Gateway,
        gateway(
            "shop",
            1,
            &json!([server(443, "a", "HTTPS", &["a.test"], &mutual)]),
        ),
    );
    let field = "Gateway shop.shop spec.servers[0].tls.credentialName";
    assert_eq!(findings(&objects), [format!("IST0101 {field}")]);
    let entries = [
        ("tls.crt", pair.chain.as_str()),
        ("tls.key", &pair.key),
        ("ca.crt", &authority),
    ];
    apply(&mut objects, Kind::Secret, secret("shop", &entries[..2]));
    assert_eq!(findings(&objects), [format!("IST0161 {field}")]);
    apply(&mut objects, Kind::Secret, secret("shop-cacert", &entries[2..]));
    assert_eq!(findings(&objects), [""; 0]);
    objects.delete(Kind::Secret, "istio-system", "shop-cacert");
    apply(&mut objects, Kind::Secret, secret("shop", &entries));
    assert_eq!(findings(&objects), [""; 0]);
}

#[test]
fn authorities_of_clients_may_be_in_a_config_map_of_any_namespace() {
    let (authority, pair) = signed();
    let mut objects = world(Settings::default());
    let pair = [("tls.crt", pair.chain.as_str()), ("tls.key", &pair.key)];
    apply(&mut objects, Kind::Secret, secret("shop", &pair));
    let tls = json!({
        "mode": "MUTUAL", "credentialName": "shop", "caCertCredentialName": "configmap://partners/roots",
    });
    let servers = json!([server(443, "a", "HTTPS", &["a.test"], &tls)]);
    apply(&mut objects, Kind::Gateway, gateway("shop", 1, &servers));
    let field = "Gateway shop.shop spec.servers[0].tls.caCertCredentialName";
    let map = |data: Value| json!({"metadata": {"name": "roots", "namespace": "partners"}, "data": data});
    assert_eq!(findings(&objects), [format!("IST0101 {field}")]);
    apply(&mut objects, Kind::ConfigMap, map(json!({"other": authority})));
    assert_eq!(findings(&objects), [format!("IST0101 {field}")]);
    apply(&mut objects, Kind::ConfigMap, map(json!({"ca.crt": "damaged"})));
    assert_eq!(findings(&objects), ["IST0161 ConfigMap roots.partners data"]);
    apply(&mut objects, Kind::ConfigMap, map(json!({"ca.crt": authority})));
    assert_eq!(findings(&objects), [""; 0]);
    objects.delete(Kind::ConfigMap, "partners", "roots");
    assert_eq!(findings(&objects), [format!("IST0101 {field}")]);
    objects.delete(Kind::Gateway, "shop", "shop");
    let tls = json!({"mode": "SIMPLE", "credentialName": "configmap://shop/roots"});
    let spec = json!({"host": "bank.test", "subsets": [{"name": "a", "trafficPolicy": {"tls": tls}}]});
    let rule = json!({"metadata": {"name": "bank", "namespace": "shop"}, "spec": spec});
    apply(&mut objects, Kind::DestinationRule, rule);
    let missing = "IST0101 DestinationRule bank.shop spec.subsets[0].trafficPolicy.tls.credentialName";
    assert!(findings(&objects).contains(&missing.to_owned()));
}

#[test]
fn a_damaged_secret_is_refused_with_the_check_that_failed_and_the_old_one_stays() {
    let (authority, pair) = signed();
    let (foreign, other) = signed();
    let mut objects = world(Settings::default());
    let simple = json!({"mode": "SIMPLE", "credentialName": "shop"});
    apply(
        &mut objects,
        Kind::Gateway,
        gateway(
            "shop",
            1,
            &json!([server(443, "a", "HTTPS", &["a.test"], &simple)]),
        ),
    );
    let good = [
        ("tls.crt", pair.chain.as_str()),
        ("tls.key", &pair.key),
        ("ca.crt", &authority),
    ];
    apply(&mut objects, Kind::Secret, secret("shop", &good));
    let leaf = pair.chain.strip_suffix(authority.as_str()).expect("the leaf");
    let broken_chain = format!("{leaf}{foreign}");
    let truncated = &pair.chain[..pair.chain.len() / 2];
    for (entry, content, check) in [
        ("tls.key", other.key.as_str(), "the private key"),
        ("tls.key", "no key", "the private key"),
        ("tls.crt", truncated, "the certificate chain"),
        ("tls.crt", &broken_chain, "the order of the certificate chain"),
        ("tls.crt", "", "empty"),
        ("ca.crt", "no certificate", "the authorities"),
    ] {
        let damaged = good.map(|(name, text)| (name, if name == entry { content } else { text }));
        apply(&mut objects, Kind::Secret, secret("shop", &damaged));
        let snapshot = Snapshot::build(&objects);
        let [diagnostic] = snapshot.diagnostics() else {
            panic!("{entry}: {:?}", snapshot.diagnostics())
        };
        assert_eq!(diagnostic.resource.to_string(), "Secret shop.istio-system");
        assert!(diagnostic.message.contains(check), "{diagnostic}");
        let kept = snapshot
            .credential(Holder::Secret, "istio-system", "shop")
            .expect("the old one");
        assert_eq!(kept.key_pair().expect("a pair").key, pair.key.as_bytes());
    }
    apply(&mut objects, Kind::Secret, secret("shop", &good));
    assert_eq!(findings(&objects), [""; 0]);
}

#[test]
fn one_certificate_in_two_gateways_of_one_workload_is_reported_for_both() {
    let (_, pair) = signed();
    let mut objects = world(Settings::default());
    apply(
        &mut objects,
        Kind::Secret,
        secret("shop", &[("cert", &pair.chain), ("key", &pair.key)]),
    );
    for (name, host) in [("a", "a.test"), ("b", "b.test")] {
        let tls = json!({"mode": "SIMPLE", "credentialName": "shop"});
        apply(
            &mut objects,
            Kind::Gateway,
            gateway(name, 1, &json!([server(443, name, "HTTPS", &[host], &tls)])),
        );
    }
    let reported: BTreeSet<String> = findings(&objects).into_iter().collect();
    let expected =
        ["a", "b"].map(|name| format!("IST0138 Gateway {name}.shop spec.servers[0].tls.credentialName"));
    assert_eq!(reported, BTreeSet::from(expected));
}

#[test]
fn a_secret_of_another_namespace_needs_a_grant_of_that_namespace() {
    let (_, pair) = signed();
    let mut objects = world(Settings::default());
    let mut theirs = secret("shop", &[("tls.crt", &pair.chain), ("tls.key", &pair.key)]);
    theirs["metadata"]["namespace"] = json!("vault");
    apply(&mut objects, Kind::Secret, theirs);
    let resource = "kubernetes-gateway://vault/shop";
    let tls = json!({"mode": "SIMPLE", "credentialName": resource});
    let mut own = gateway("own", 1, &json!([server(443, "a", "HTTPS", &["a.test"], &tls)]));
    own["metadata"]["namespace"] = json!("istio-system");
    apply(&mut objects, Kind::Gateway, own);
    let lends = |objects: &Objects| Snapshot::build(objects).lends_credential("istio-system", resource);
    assert!(!lends(&objects));
    assert_eq!(
        findings(&objects),
        ["IST0161 Gateway own.istio-system spec.servers[0].tls.credentialName"]
    );
    let grant = |namespace: &str, name: &str| {
        let from = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": namespace}]);
        let to = json!([{"group": "", "kind": "Secret", "name": name}]);
        json!({"metadata": {"name": "g", "namespace": "vault"}, "spec": {"from": from, "to": to}})
    };
    for (namespace, name, lent) in [
        ("istio-system", "shop", true),
        ("istio-system", "", true),
        ("istio-system", "other", false),
        ("shop", "shop", false),
    ] {
        apply(&mut objects, Kind::ReferenceGrant, grant(namespace, name));
        assert_eq!(
            (lends(&objects), findings(&objects).is_empty()),
            (lent, lent),
            "{namespace}/{name}"
        );
    }
    // A grant is for Gateways: what none of them names is not lent.
    apply(&mut objects, Kind::ReferenceGrant, grant("istio-system", ""));
    let unnamed =
        Snapshot::build(&objects).lends_credential("istio-system", "kubernetes-gateway://vault/other");
    assert!(!unnamed);
}
