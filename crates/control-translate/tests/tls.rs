//! TLS that proxies get, seen from outside: objects in, resources out.

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::core::v3::{Node, TransportSocket, transport_socket};
use api_envoy::envoy::config::listener::v3::{FilterChain, filter};
use api_envoy::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, UpstreamTlsContext, common_tls_context::ValidationContextType,
};
use api_envoy::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use api_envoy::{Message, Name, wkt};
use control_snapshot::{Kind, Objects, Proxy, Settings, Snapshot};
use control_translate::{Resources, translate};
use diagnostics::Diagnostic;
use serde_json::{Value, json};

/// The one service of the world, in the namespace `custom-ns`.
const SHOP: &str = "outbound|80||shop.custom-ns.svc.cluster.local";

/// A world where workloads have identities, or have none; the service `shop` has one workload.
fn world(identity: bool) -> Objects {
    let mut objects = Objects::new(Settings {
        identity,
        ..Settings::default()
    });
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let service = json!({"clusterIP": "10.96.0.10", "selector": {"app": "shop"}, "ports": ports});
    apply(&mut objects, Kind::Service, "shop", service);
    let entry = json!({"address": "10.244.0.1", "labels": {"app": "shop"}, "serviceAccount": "shop"});
    apply(&mut objects, Kind::WorkloadEntry, "shop-v1", entry);
    objects
}

/// Puts an object into the namespace `custom-ns`.
fn apply(objects: &mut Objects, kind: Kind, name: &str, spec: Value) {
    let meta = json!({"name": name, "namespace": "custom-ns"});
    assert_eq!(objects.apply(kind, json!({"metadata": meta, "spec": spec})), None);
}

/// A rule with this `trafficPolicy.tls` for every host of the namespace.
fn rule(objects: &mut Objects, tls: Value) {
    let spec = json!({"host": "*.custom-ns.svc.cluster.local", "trafficPolicy": {"tls": tls}});
    apply(objects, Kind::DestinationRule, "all", spec);
}

fn demand(objects: &mut Objects, mode: &str) {
    apply(
        objects,
        Kind::PeerAuthentication,
        "default",
        json!({"mtls": {"mode": mode}}),
    );
}

/// The proxy of `shop`, as a sidecar or as a gateway.
fn proxy(kind: &str) -> Proxy {
    let node = Node {
        id: format!("{kind}~10.244.0.1~shop-v1.custom-ns~custom-ns.svc.cluster.local"),
        metadata: Some(wkt::structure(
            &json!({"NAMESPACE": "custom-ns", "LABELS": {"app": "shop"}}),
        )),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a valid node")
}

fn of(objects: &Objects, kind: &str) -> (Resources, Vec<Diagnostic>) {
    translate(&Snapshot::build(objects).proxy_view(&proxy(kind)))
}

fn cluster(resources: &Resources, name: &str) -> Option<Cluster> {
    resources.clusters.iter().find(|c| c.name == name).cloned()
}

fn unpack<M: Message + Name + Default>(socket: Option<&TransportSocket>) -> M {
    match socket.and_then(|socket| socket.config_type.as_ref()) {
        Some(transport_socket::ConfigType::TypedConfig(config)) => {
            any::unpack(config).expect("the expected type")
        }
        None => panic!("no transport socket"),
    }
}

/// The names a peer may have: what is matched exactly, or by prefix.
#[allow(deprecated)]
fn names(context: &UpstreamTlsContext) -> Vec<String> {
    let common = context.common_tls_context.as_ref().expect("a common context");
    let validation = match &common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.default_validation_context.clone().unwrap_or_default()
        }
        Some(ValidationContextType::ValidationContext(validation)) => validation.clone(),
        _ => panic!("nothing is verified"),
    };
    let patterns = validation.match_subject_alt_names.into_iter();
    patterns
        .map(|matcher| match matcher.match_pattern {
            Some(api_envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern::Exact(name)) => name,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The names of SDS secrets: the certificate to show, and the authorities of the server.
fn secrets(context: &UpstreamTlsContext) -> (Vec<&str>, Option<&str>) {
    let common = context.common_tls_context.as_ref().expect("a common context");
    let shown = common.tls_certificate_sds_secret_configs.iter();
    let verified = match &common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => combined
            .validation_context_sds_secret_config
            .as_ref()
            .map(|secret| secret.name.as_str()),
        _ => None,
    };
    (shown.map(|secret| secret.name.as_str()).collect(), verified)
}

fn inbound_chains(objects: &Objects, port: u32) -> Vec<FilterChain> {
    let (resources, _) = of(objects, "sidecar");
    let listener = resources
        .listeners
        .into_iter()
        .find(|l| l.name == "virtualInbound");
    let chains = listener.expect("virtualInbound").filter_chains;
    let at = |chain: &FilterChain| {
        let conditions = chain.filter_chain_match.as_ref();
        conditions.and_then(|m| m.destination_port) == Some(port)
    };
    chains.into_iter().filter(at).collect()
}

#[test]
fn a_namespace_that_demands_mutual_tls_has_no_chain_without_it() {
    let mut objects = world(true);
    assert_eq!(
        inbound_chains(&objects, 8080).len(),
        2,
        "both are taken by default"
    );
    demand(&mut objects, "STRICT");
    let chains = inbound_chains(&objects, 8080);
    assert_eq!(chains.len(), 1);
    let context: DownstreamTlsContext = unpack(chains[0].transport_socket.as_ref());
    assert_eq!(context.require_client_certificate, Some(true));
    demand(&mut objects, "DISABLE");
    let chains = inbound_chains(&objects, 8080);
    assert_eq!(chains.len(), 1);
    assert_eq!(chains[0].transport_socket, None);
}

#[test]
fn what_demands_mutual_tls_and_cannot_have_it_refuses_everybody() {
    let mut objects = world(false);
    assert_eq!(inbound_chains(&objects, 8080).len(), 1);
    demand(&mut objects, "STRICT");
    let chains = inbound_chains(&objects, 8080);
    assert_eq!(chains.len(), 1);
    let filter = chains[0]
        .filters
        .last()
        .and_then(|filter| filter.config_type.as_ref());
    let Some(filter::ConfigType::TypedConfig(config)) = filter else {
        panic!("no filter");
    };
    let proxy: TcpProxy = any::unpack(config).expect("a TCP proxy");
    let nowhere = ClusterSpecifier::Cluster("BlackHoleCluster".to_owned());
    assert_eq!(proxy.cluster_specifier, Some(nowhere));
    let snapshot = Snapshot::build(&objects);
    let reported = snapshot
        .diagnostics()
        .iter()
        .any(|d| d.message.contains("no identities"));
    assert!(reported, "{:?}", snapshot.diagnostics());
}

#[test]
fn endpoints_that_disable_mutual_tls_are_not_offered_any() {
    let offered = |objects: &Objects| {
        let snapshot = Snapshot::build(objects);
        let view = snapshot.endpoint_view(&proxy("sidecar"), SHOP);
        let assignment = control_translate::endpoints(&view);
        let endpoint = &assignment.endpoints[0].lb_endpoints[0];
        let metadata = endpoint.metadata.as_ref().expect("metadata");
        metadata
            .filter_metadata
            .contains_key("envoy.transport_socket_match")
    };
    let mut objects = world(true);
    assert!(offered(&objects));
    let selector = json!({"matchLabels": {"app": "shop"}});
    let port = |number: &str| json!({"selector": selector, "portLevelMtls": {number: {"mode": "DISABLE"}}});
    apply(&mut objects, Kind::PeerAuthentication, "shop", port("8081"));
    assert!(offered(&objects), "another port");
    apply(&mut objects, Kind::PeerAuthentication, "shop", port("8080"));
    assert!(!offered(&objects));
}

#[test]
fn a_rule_for_a_whole_namespace_asks_every_server_for_its_identity() {
    let mut objects = world(true);
    rule(&mut objects, json!({"mode": "ISTIO_MUTUAL"}));
    let (resources, found) = of(&objects, "sidecar");
    assert_eq!(found, []);
    let found = cluster(&resources, SHOP).expect("the cluster");
    let context: UpstreamTlsContext = unpack(found.transport_socket.as_ref());
    assert_eq!(context.sni, "outbound_.80_._.shop.custom-ns.svc.cluster.local");
    assert_eq!(names(&context), ["spiffe://cluster.local/ns/custom-ns/sa/shop"]);
    assert_eq!(secrets(&context), (vec!["default"], Some("ROOTCA")));
    let named = json!({"mode": "ISTIO_MUTUAL", "sni": "a.test", "subjectAltNames": ["spiffe://x/y"]});
    rule(&mut objects, named);
    let found = cluster(&of(&objects, "sidecar").0, SHOP).expect("the cluster");
    let context: UpstreamTlsContext = unpack(found.transport_socket.as_ref());
    assert_eq!(
        (context.sni.as_str(), names(&context)),
        ("a.test", vec!["spiffe://x/y".to_owned()])
    );
}

#[test]
fn tls_that_cannot_be_had_leaves_the_cluster_out_and_says_why() {
    for (identity, tls, field) in [
        (
            false,
            json!({"mode": "ISTIO_MUTUAL"}),
            "spec.trafficPolicy.tls.mode",
        ),
        (
            true,
            json!({"mode": "MUTUAL"}),
            "spec.trafficPolicy.tls.clientCertificate",
        ),
        (
            true,
            json!({"mode": "SIMPLE", "credentialName": "partner"}),
            "spec.trafficPolicy.tls.credentialName",
        ),
    ] {
        let mut objects = world(identity);
        rule(&mut objects, tls.clone());
        let (resources, found) = of(&objects, "sidecar");
        assert_eq!(cluster(&resources, SHOP), None, "{tls}");
        let fields: Vec<_> = found.iter().map(|d| d.field.as_str()).collect();
        assert_eq!(fields, [field]);
    }
}

#[test]
fn a_sidecar_gets_the_files_of_a_rule_from_its_agent_and_reads_them_itself_without_one() {
    let files = json!({
        "mode": "MUTUAL", "clientCertificate": "/c.pem", "privateKey": "/k.pem", "caCertificates": "/ca.pem",
        "subjectAltNames": ["shop.test"], "sni": "shop.test", "caCrl": "/crl.pem",
    });
    let mut objects = world(true);
    rule(&mut objects, files.clone());
    let found = cluster(&of(&objects, "sidecar").0, SHOP).expect("the cluster");
    let context: UpstreamTlsContext = unpack(found.transport_socket.as_ref());
    let expected = (vec!["file-cert:/c.pem~/k.pem"], Some("file-root:/ca.pem"));
    assert_eq!(secrets(&context), expected);
    assert_eq!(names(&context), ["shop.test"]);
    let mut objects = world(false);
    rule(&mut objects, files);
    let found = cluster(&of(&objects, "sidecar").0, SHOP).expect("the cluster");
    let context: UpstreamTlsContext = unpack(found.transport_socket.as_ref());
    assert_eq!(secrets(&context), (vec![], None));
    let text = format!("{context:?}");
    for file in ["/c.pem", "/k.pem", "/ca.pem", "/crl.pem"] {
        assert!(text.contains(&format!("Filename({file:?})")), "{file}: {text}");
    }
}

#[test]
fn without_a_server_name_the_request_names_the_server_and_what_it_must_prove() {
    let options = |tls: Value| {
        let mut objects = world(true);
        rule(&mut objects, tls);
        let found = cluster(&of(&objects, "sidecar").0, SHOP).expect("the cluster");
        let packed = found.typed_extension_protocol_options.values().next().cloned();
        let options: Option<HttpProtocolOptions> = packed.and_then(|any| any::unpack(&any).ok());
        let names = options.and_then(|options| options.upstream_http_protocol_options);
        names.map(|names| (names.auto_sni, names.auto_san_validation))
    };
    assert_eq!(options(json!({"mode": "SIMPLE"})), Some((true, true)));
    let skipped = json!({"mode": "SIMPLE", "insecureSkipVerify": true});
    assert_eq!(options(skipped), Some((true, false)));
    let expected = json!({"mode": "SIMPLE", "subjectAltNames": ["a.test"]});
    assert_eq!(options(expected), Some((true, false)));
    assert_eq!(options(json!({"mode": "SIMPLE", "sni": "a.test"})), None);
}

#[test]
fn a_gateway_gets_the_secret_that_a_rule_names_and_the_meshs_default_parameters() {
    let mut objects = world(true);
    rule(
        &mut objects,
        json!({"mode": "MUTUAL", "credentialName": "partner"}),
    );
    let defaults = "tlsDefaults: {cipherSuites: [ECDHE-ECDSA-AES256-GCM-SHA384], ecdhCurves: [P-256]}";
    objects.set_mesh(defaults).expect("a valid MeshConfig");
    let found = cluster(&of(&objects, "router").0, SHOP).expect("the cluster");
    let context: UpstreamTlsContext = unpack(found.transport_socket.as_ref());
    let expected = (vec!["kubernetes://partner"], Some("kubernetes://partner-cacert"));
    assert_eq!(secrets(&context), expected);
    let common = context.common_tls_context.expect("a common context");
    let params = common.tls_params.expect("parameters");
    assert_eq!(params.cipher_suites, ["ECDHE-ECDSA-AES256-GCM-SHA384"]);
    assert_eq!(params.ecdh_curves, ["P-256"]);
}

#[test]
fn sidecars_get_the_authorities_in_a_config_map_of_the_rules_namespace() {
    let named = |credential: &str, mode: &str| {
        let mut objects = world(true);
        rule(&mut objects, json!({"mode": mode, "credentialName": credential}));
        let (resources, found) = of(&objects, "sidecar");
        let fields: Vec<String> = found.into_iter().map(|d| d.field).collect();
        let cluster = cluster(&resources, SHOP);
        let context = cluster.map(|c| unpack::<UpstreamTlsContext>(c.transport_socket.as_ref()));
        (context, fields)
    };
    let (context, fields) = named("configmap://custom-ns/partners", "SIMPLE");
    let expected = (vec![], Some("configmap://custom-ns/partners-cacert"));
    assert_eq!(secrets(&context.expect("the cluster")), expected);
    assert_eq!(fields, [""; 0]);
    // Istio's webhook refuses the first, and the last has no certificate.
    for (credential, mode) in [
        ("configmap://other/partners", "SIMPLE"),
        ("configmap://partners", "SIMPLE"),
        ("sds://vault", "SIMPLE"),
        ("configmap://custom-ns/partners", "MUTUAL"),
    ] {
        let (context, fields) = named(credential, mode);
        assert_eq!(context, None, "{credential}");
        assert_eq!(fields, ["spec.trafficPolicy.tls.credentialName"], "{credential}");
    }
}

#[test]
fn servers_of_the_mesh_take_the_cipher_suites_that_it_names() {
    let mut objects = world(true);
    let mesh = "meshMTLS: {cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256], minProtocolVersion: TLSV1_3}";
    objects.set_mesh(mesh).expect("a valid MeshConfig");
    let chains = inbound_chains(&objects, 8080);
    let mutual = chains.iter().find(|chain| chain.transport_socket.is_some());
    let context: DownstreamTlsContext = unpack(mutual.and_then(|chain| chain.transport_socket.as_ref()));
    let params = context.common_tls_context.and_then(|common| common.tls_params);
    assert_eq!(
        params.expect("parameters").cipher_suites,
        ["ECDHE-RSA-AES128-GCM-SHA256"]
    );
}
