//! TLS at gateways, seen from outside: Gateways and VirtualServices in, filter chains and clusters out.

use api_envoy::any;
use api_envoy::envoy::config::core::v3::{Node, transport_socket};
use api_envoy::envoy::config::listener::v3::{FilterChain, Listener, filter};
use api_envoy::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, certificate_validation_context::TrustChainVerification,
    common_tls_context::ValidationContextType, tls_parameters::TlsProtocol,
};
use api_envoy::wkt;
use control_snapshot::{Kind, Objects, Proxy, Settings, Snapshot};
use control_translate::{Resources, translate};
use diagnostics::Diagnostic;
use serde_json::{Value, json};

fn apply(objects: &mut Objects, kind: Kind, object: Value) {
    assert_eq!(objects.apply(kind, object), None);
}

/// A mesh with identities and the service `db`, whose rule has a subset.
fn world(mesh: &str) -> Objects {
    let mut objects = Objects::new(Settings {
        identity: true,
        ..Settings::default()
    });
    objects.set_mesh(mesh).expect("MeshConfig");
    let service = json!({
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.20", "ports": [{"name": "tcp", "port": 3306}]},
    });
    apply(&mut objects, Kind::Service, service);
    let rule = json!({
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"host": "db", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]},
    });
    apply(&mut objects, Kind::DestinationRule, rule);
    objects
}

fn server(number: u32, name: &str, protocol: &str, hosts: &[&str], tls: &Value) -> Value {
    json!({"port": {"number": number, "name": name, "protocol": protocol}, "hosts": hosts, "tls": tls})
}

fn gateway(objects: &mut Objects, servers: &Value) {
    let spec = json!({"selector": {"istio": "ingress"}, "servers": servers});
    let gateway = json!({"metadata": {"name": "front", "namespace": "default"}, "spec": spec});
    apply(objects, Kind::Gateway, gateway);
}

fn routes(objects: &mut Objects, name: &str, hosts: &[&str], routes: &Value) {
    let mut spec = routes.clone();
    spec["hosts"] = json!(hosts);
    spec["gateways"] = json!(["front"]);
    let rules = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    apply(objects, Kind::VirtualService, rules);
}

fn translated(objects: &Objects) -> (Resources, Vec<Diagnostic>) {
    let metadata = json!({"NAMESPACE": "default", "LABELS": {"istio": "ingress"}});
    let node = Node {
        id: "router~10.0.0.1~g.default~default.svc.cluster.local".to_owned(),
        metadata: Some(wkt::structure(&metadata)),
        ..Node::default()
    };
    let proxy = Proxy::from_node(&node).expect("a node");
    translate(&Snapshot::build(objects).proxy_view(&proxy))
}

fn server_names(chain: &FilterChain) -> Vec<&str> {
    let conditions = chain.filter_chain_match.iter();
    conditions
        .flat_map(|m| m.server_names.iter().map(String::as_str))
        .collect()
}

fn tls(chain: &FilterChain) -> Option<DownstreamTlsContext> {
    match chain.transport_socket.as_ref()?.config_type.as_ref()? {
        transport_socket::ConfigType::TypedConfig(config) => any::unpack(config).ok(),
    }
}

/// Where a chain sends its stream; nothing for several places, and for HTTP.
fn cluster(chain: &FilterChain) -> Option<String> {
    let last = chain.filters.last()?;
    let Some(filter::ConfigType::TypedConfig(config)) = &last.config_type else {
        return None;
    };
    match any::unpack::<TcpProxy>(config).ok()?.cluster_specifier? {
        ClusterSpecifier::Cluster(cluster) => Some(cluster),
        ClusterSpecifier::WeightedClusters(_) => None,
    }
}

fn inspects_tls(listener: &Listener) -> bool {
    listener
        .listener_filters
        .iter()
        .any(|f| f.name == "envoy.filters.listener.tls_inspector")
}

#[test]
fn each_server_of_https_has_a_chain_with_its_names_and_certificates() {
    let mut objects = world("");
    let shop = json!({"mode": "SIMPLE", "credentialNames": ["shop-rsa", "shop-ecdsa"], "minProtocolVersion": "TLSV1_3"});
    let partners = json!({"mode": "OPTIONAL_MUTUAL", "credentialName": "partners", "subjectAltNames": ["p.test"],
        "verifyCertificateHash": ["ab"], "caCrl": "/etc/crl.pem", "insecureSkipVerify": true});
    let servers = json!([
        server(443, "shop", "HTTPS", &["shop.test", "default/*.shop.test"], &shop),
        server(443, "partners", "HTTPS", &["partners.test"], &partners),
        server(
            8443,
            "any",
            "HTTPS",
            &["*"],
            &json!({"mode": "MUTUAL", "serverCertificate": "/c", "privateKey": "/k", "caCertificates": "/r"})
        ),
    ]);
    gateway(&mut objects, &servers);
    let (resources, diagnostics) = translated(&objects);
    assert_eq!(diagnostics, []);
    let [shop, any] = resources.listeners.as_slice() else {
        panic!("{:?}", resources.listeners)
    };
    assert!(inspects_tls(shop) && inspects_tls(any));
    let [shop, partners] = shop.filter_chains.as_slice() else {
        panic!("{shop:?}")
    };
    assert_eq!(server_names(shop), ["*.shop.test", "shop.test"]);
    let context = tls(shop).expect("TLS");
    assert_eq!(context.require_client_certificate, Some(false));
    let common = context.common_tls_context.expect("a context");
    let names: Vec<_> = common
        .tls_certificate_sds_secret_configs
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    assert_eq!(names, ["kubernetes://shop-rsa", "kubernetes://shop-ecdsa"]);
    let lowest = common.tls_params.map(|p| p.tls_minimum_protocol_version);
    assert_eq!(lowest, Some(TlsProtocol::TlSv13.into()));

    let common = tls(partners).and_then(|t| t.common_tls_context).expect("TLS");
    let Some(ValidationContextType::CombinedValidationContext(verification)) = common.validation_context_type
    else {
        panic!("clients are not verified")
    };
    let secret = verification
        .validation_context_sds_secret_config
        .expect("authorities");
    assert_eq!(secret.name, "kubernetes://partners-cacert");
    let written = verification.default_validation_context.expect("what is written");
    assert_eq!(written.verify_certificate_hash, ["ab"]);
    assert!(written.crl.is_some());
    assert_eq!(
        written.trust_chain_verification(),
        TrustChainVerification::AcceptUntrusted
    );

    assert_eq!(any.filter_chains[0].filter_chain_match, None);
    let common = tls(&any.filter_chains[0])
        .and_then(|t| t.common_tls_context)
        .expect("TLS");
    assert_eq!(
        common.tls_certificate_sds_secret_configs[0].name,
        "file-cert:/c~/k"
    );
}

#[test]
fn the_mesh_decides_about_versions_where_the_server_says_nothing() {
    let mut objects = world("tlsDefaults: {minProtocolVersion: TLSV1_3, cipherSuites: [AES128-SHA]}");
    let tls_of = |tls: Value| {
        server(
            443,
            tls["mode"].as_str().unwrap_or_default(),
            "HTTPS",
            &[tls["mode"].as_str().unwrap_or_default()],
            &tls,
        )
    };
    let own = json!({"mode": "MUTUAL", "credentialName": "a", "minProtocolVersion": "TLSV1_2", "maxProtocolVersion": "TLSV1_2"});
    gateway(
        &mut objects,
        &json!([
            tls_of(json!({"mode": "SIMPLE", "credentialName": "a"})),
            tls_of(own),
            tls_of(json!({"mode": "ISTIO_MUTUAL"}))
        ]),
    );
    let (resources, _) = translated(&objects);
    let versions: Vec<_> = resources.listeners[0]
        .filter_chains
        .iter()
        .map(|chain| tls(chain)?.common_tls_context?.tls_params)
        .map(|params| {
            params.map(|p| {
                (
                    p.tls_minimum_protocol_version,
                    p.tls_maximum_protocol_version,
                    p.cipher_suites.len(),
                )
            })
        })
        .collect();
    let (v12, v13) = (TlsProtocol::TlSv12.into(), TlsProtocol::TlSv13.into());
    assert_eq!(versions, [Some((v13, 0, 1)), Some((v12, v12, 1)), None]);
}

#[test]
fn a_name_that_is_served_or_routed_already_is_not_passed_on() {
    let mut objects = world("");
    let servers = json!([
        server(
            443,
            "through",
            "TLS",
            &["*.test"],
            &json!({"mode": "PASSTHROUGH"})
        ),
        server(
            443,
            "shop",
            "HTTPS",
            &["shop.test"],
            &json!({"mode": "SIMPLE", "credentialName": "shop"})
        ),
    ]);
    gateway(&mut objects, &servers);
    let to_db = json!([{"destination": {"host": "db", "port": {"number": 3306}}}]);
    let names = |names: &[&str]| json!({"match": [{"sniHosts": names}], "route": to_db});
    let rules = json!({"tls": [names(&["a.test"]), names(&["b.test", "a.test"]), names(&["shop.test"]), names(&["c.test"])]});
    routes(&mut objects, "db", &["*.test"], &rules);
    let (resources, diagnostics) = translated(&objects);
    let chains = &resources.listeners[0].filter_chains;
    let names: Vec<_> = chains.iter().map(server_names).collect();
    assert_eq!(names, [vec!["a.test"], vec!["c.test"], vec!["shop.test"]]);
    let fields: Vec<_> = diagnostics
        .iter()
        .map(|d| (d.code.id(), d.field.as_str()))
        .collect();
    assert_eq!(
        fields,
        [
            ("IST0130", "spec.tls[1].match[0].sniHosts"),
            ("IST0130", "spec.tls[2].match[0].sniHosts")
        ]
    );
}

#[test]
fn a_stream_whose_tls_ends_here_goes_where_the_tcp_route_says() {
    let mut objects = world("");
    let servers = json!([
        server(
            8445,
            "db",
            "TLS",
            &["db.test"],
            &json!({"mode": "SIMPLE", "credentialName": "db"})
        ),
        server(8446, "mesh", "TLS", &["*"], &json!({"mode": "ISTIO_MUTUAL"})),
    ]);
    gateway(&mut objects, &servers);
    let to_db = json!([{"destination": {"host": "db"}}]);
    routes(
        &mut objects,
        "db",
        &["*.test"],
        &json!({"tcp": [{"route": to_db}]}),
    );
    let (resources, _) = translated(&objects);
    let chains: Vec<_> = resources
        .listeners
        .iter()
        .flat_map(|l| &l.filter_chains)
        .collect();
    let cluster_of = chains.iter().map(|chain| cluster(chain)).collect::<Vec<_>>();
    assert_eq!(
        cluster_of,
        vec![Some("outbound|3306||db.default.svc.cluster.local".to_owned()); 2]
    );
    assert_eq!(server_names(chains[0]), ["db.test"]);
    let alpn = |chain: &FilterChain| {
        tls(chain)
            .and_then(|t| t.common_tls_context)
            .map(|c| c.alpn_protocols)
    };
    assert_eq!(alpn(chains[0]).expect("TLS"), ["h2", "http/1.1"]);
    assert_eq!(
        alpn(chains[1]).expect("TLS"),
        ["istio-peer-exchange", "h2", "http/1.1"]
    );
}

#[test]
fn mesh_clients_reach_every_covered_cluster_by_its_server_name() {
    let mut objects = world("");
    gateway(
        &mut objects,
        &json!([server(
            15443,
            "tls",
            "TLS",
            &["*.local"],
            &json!({"mode": "AUTO_PASSTHROUGH"})
        )]),
    );
    let (resources, _) = translated(&objects);
    let chains = &resources.listeners[0].filter_chains;
    let names: Vec<_> = chains.iter().flat_map(server_names).collect();
    let expected = [
        "outbound_.3306_._.db.default.svc.cluster.local",
        "outbound_.3306_.v1_.db.default.svc.cluster.local",
    ];
    assert_eq!(names, expected);
    assert!(
        chains.iter().all(|chain| tls(chain).is_none()),
        "what is passed on is not opened"
    );
    for (chain, name) in chains.iter().zip(expected) {
        assert_eq!(cluster(chain).as_deref(), Some(name));
        let made = resources
            .clusters
            .iter()
            .find(|c| c.name == name)
            .expect("the cluster");
        assert!(made.transport_socket.is_none() && made.transport_socket_matches.is_empty());
    }
}

#[test]
fn hosts_of_one_rule_share_a_virtual_host() {
    let mut objects = world("");
    gateway(
        &mut objects,
        &json!([server(80, "http", "HTTP", &["*"], &Value::Null)]),
    );
    let rules = json!({"http": [{"route": [{"destination": {"host": "db"}}]}]});
    routes(&mut objects, "one", &["b.test", "a.test", "longer.test"], &rules);
    routes(&mut objects, "two", &["c.test", "a.test"], &rules);
    let (resources, _) = translated(&objects);
    let mut hosts: Vec<_> = resources.routes[0]
        .virtual_hosts
        .iter()
        .map(|h| h.domains.clone())
        .collect();
    hosts.sort();
    assert_eq!(
        hosts,
        [vec!["a.test"], vec!["c.test"], vec!["longer.test", "b.test"]]
    );
}
