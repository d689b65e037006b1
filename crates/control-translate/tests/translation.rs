//! What proxies get, seen from outside: objects in, resources out.

use api_envoy::any;
use api_envoy::envoy::config::core::v3::{Extension, Node};
use api_envoy::envoy::config::listener::v3::{Filter, filter};
use api_envoy::envoy::config::route::v3::{VirtualHost, route::Action, route_action::ClusterSpecifier};
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use api_envoy::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy, tcp_proxy::ClusterSpecifier as TcpCluster,
};
use api_envoy::wkt;
use control_snapshot::{Kind, Objects, Proxy, ProxyView, Settings, Snapshot};
use control_translate::{Resources, translate};
use serde_json::{Value, json};

fn service(name: &str, address: &str, port: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": address, "selector": {"app": name}, "ports": [port]},
    })
}

fn entry(name: &str, app: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"address": address, "labels": {"app": app, "version": "v1"}, "serviceAccount": app},
    })
}

/// `reviews` (HTTP) and `db` (TCP), each with one workload.
fn world() -> Objects {
    let mut objects = Objects::new(Settings::default());
    let http = json!({"name": "http", "port": 9080, "targetPort": 9080});
    let tcp = json!({"name": "tcp", "port": 3306});
    apply(
        &mut objects,
        Kind::Service,
        service("reviews", "10.96.0.10", &http),
    );
    apply(&mut objects, Kind::Service, service("db", "10.96.0.20", &tcp));
    apply(
        &mut objects,
        Kind::WorkloadEntry,
        entry("reviews-v1", "reviews", "10.244.0.1"),
    );
    apply(
        &mut objects,
        Kind::WorkloadEntry,
        entry("db-v1", "db", "10.244.0.2"),
    );
    objects
}

fn apply(objects: &mut Objects, kind: Kind, object: Value) {
    assert_eq!(objects.apply(kind, object), None);
}

fn node(id: &str, extensions: &[&str]) -> Node {
    let extension = |name: &&str| Extension {
        name: (*name).to_owned(),
        ..Extension::default()
    };
    Node {
        id: id.to_owned(),
        metadata: Some(wkt::structure(
            &json!({"NAMESPACE": "default", "LABELS": {"app": "reviews"}}),
        )),
        extensions: extensions.iter().map(extension).collect(),
        ..Node::default()
    }
}

fn reviews() -> Proxy {
    let node = node(
        "sidecar~10.244.0.1~reviews-v1.default~default.svc.cluster.local",
        &[],
    );
    Proxy::from_node(&node).expect("a valid node")
}

fn view(objects: &Objects) -> ProxyView {
    Snapshot::build(objects).proxy_view(&reviews())
}

fn virtual_host(resources: &Resources, configuration: &str, host: &str) -> VirtualHost {
    let routes = resources
        .routes
        .iter()
        .find(|r| r.name == configuration)
        .expect("the route configuration");
    routes
        .virtual_hosts
        .iter()
        .find(|h| h.name == host)
        .expect("the virtual host")
        .clone()
}

fn cluster_of(host: &VirtualHost, route: usize) -> Option<&str> {
    match host.routes.get(route)?.action.as_ref()? {
        Action::Route(action) => match action.cluster_specifier.as_ref()? {
            ClusterSpecifier::Cluster(name) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

fn http_filters(filters: &[Filter]) -> Option<Vec<String>> {
    let manager = filters
        .iter()
        .find(|f| f.name == "envoy.filters.network.http_connection_manager")?;
    let Some(filter::ConfigType::TypedConfig(config)) = &manager.config_type else {
        return None;
    };
    let manager: HttpConnectionManager = any::unpack(config).ok()?;
    Some(manager.http_filters.into_iter().map(|f| f.name).collect())
}

#[test]
fn equal_views_have_equal_translations() {
    let (one, two) = (view(&world()), view(&world()));
    assert_eq!(one, two);
    assert_eq!(translate(&one), translate(&two));
}

#[test]
fn a_new_endpoint_changes_its_assignment_and_no_view() {
    let before = Snapshot::build(&world());
    let mut objects = world();
    apply(
        &mut objects,
        Kind::WorkloadEntry,
        entry("db-v2", "db", "10.244.0.3"),
    );
    let after = Snapshot::build(&objects);
    assert_eq!(before.proxy_view(&reviews()), after.proxy_view(&reviews()));
    let cluster = "outbound|3306||db.default.svc.cluster.local";
    let endpoints = |snapshot: &Snapshot| {
        let assignment = control_translate::endpoints(&snapshot.endpoint_view(&reviews(), cluster));
        assignment
            .endpoints
            .iter()
            .map(|l| l.lb_endpoints.len())
            .sum::<usize>()
    };
    assert_eq!((endpoints(&before), endpoints(&after)), (1, 2));
}

#[test]
fn a_route_to_a_missing_subset_is_kept_and_reported() {
    let mut objects = world();
    apply(
        &mut objects,
        Kind::VirtualService,
        json!({
            "metadata": {"name": "reviews", "namespace": "default"},
            "spec": {"hosts": ["reviews"], "http": [
                {"match": [{"uri": {"prefix": "/x"}}], "route": [{"destination": {"host": "reviews", "subset": "v9"}}]},
                {"route": [{"destination": {"host": "ghost"}}]},
            ]},
        }),
    );
    let snapshot = Snapshot::build(&objects);
    let found: Vec<_> = snapshot
        .diagnostics()
        .iter()
        .map(|d| (d.code.id(), d.field.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("IST0101", "spec.http[0].route[0].destination.subset"),
            ("IST0101", "spec.http[1].route[0].destination.host"),
        ]
    );
    let (resources, _) = translate(&snapshot.proxy_view(&reviews()));
    let host = virtual_host(&resources, "9080", "reviews.default.svc.cluster.local:9080");
    assert_eq!(
        cluster_of(&host, 0),
        Some("outbound|9080|v9|reviews.default.svc.cluster.local")
    );
    assert!(
        resources.clusters.iter().all(|c| !c.name.contains("|v9|")),
        "503 comes from the missing cluster"
    );
}

#[test]
fn one_broken_rule_changes_nothing_for_the_others() {
    let mut objects = world();
    let broken = json!({
        "metadata": {"name": "broken", "namespace": "default"},
        "spec": {"hosts": ["reviews"], "http": [
            {"match": [{"uri": {"regex": "("}}], "route": [{"destination": {"host": "db"}}]},
            {"route": [{"destination": {"host": "reviews"}}]},
        ]},
    });
    apply(&mut objects, Kind::VirtualService, broken);
    let (resources, diagnostics) = translate(&view(&objects));
    assert_eq!(diagnostics.len(), 1);
    assert!(
        diagnostics[0]
            .message
            .starts_with("invalid regular expression \"(\""),
        "{}",
        diagnostics[0]
    );
    assert_eq!(diagnostics[0].field, "spec.http[0].match");
    let host = virtual_host(&resources, "9080", "reviews.default.svc.cluster.local:9080");
    assert_eq!(host.routes.len(), 1);
    assert_eq!(
        cluster_of(&host, 0),
        Some("outbound|9080||reviews.default.svc.cluster.local")
    );
}

#[test]
fn a_plain_envoy_gets_none_of_istios_filters() {
    let plain = node(
        "sidecar~10.244.0.1~reviews-v1.default~default.svc.cluster.local",
        &["envoy.filters.http.router", "envoy.filters.network.tcp_proxy"],
    );
    let proxy = Proxy::from_node(&plain).expect("a valid node");
    let (resources, _) = translate(&Snapshot::build(&world()).proxy_view(&proxy));
    let chains = resources
        .listeners
        .iter()
        .flat_map(|l| l.filter_chains.iter().chain(&l.default_filter_chain));
    for chain in chains {
        let network = chain.filters.iter().map(|f| f.name.clone());
        let all: Vec<String> = network
            .chain(http_filters(&chain.filters).unwrap_or_default())
            .collect();
        assert!(all.iter().all(|name| !name.starts_with("istio.")), "{all:?}");
    }
    assert!(resources.clusters.iter().all(|c| c.filters.is_empty()));
}

#[test]
fn without_identities_nothing_offers_or_expects_mutual_tls() {
    let (resources, _) = translate(&view(&world()));
    let inbound = resources
        .listeners
        .iter()
        .find(|l| l.name == "virtualInbound")
        .expect("virtualInbound");
    assert!(inbound.filter_chains.iter().all(|c| c.transport_socket.is_none()));
    assert!(
        inbound
            .listener_filters
            .iter()
            .all(|f| f.name != "envoy.filters.listener.tls_inspector")
    );
    assert!(
        resources
            .clusters
            .iter()
            .all(|c| c.transport_socket_matches.is_empty())
    );
    let snapshot = Snapshot::build(&world());
    let view = snapshot.endpoint_view(&reviews(), "outbound|3306||db.default.svc.cluster.local");
    assert!(view.endpoints.iter().all(|e| !e.workload.mutual_tls));
}

#[test]
fn the_http_filters_come_in_the_order_of_the_one_list() {
    let (resources, _) = translate(&view(&world()));
    let listener = resources
        .listeners
        .iter()
        .find(|l| l.name == "0.0.0.0_9080")
        .expect("the listener of port 9080");
    assert_eq!(
        http_filters(&listener.filter_chains[0].filters).expect("a connection manager"),
        [
            "istio.metadata_exchange",
            "envoy.filters.http.grpc_stats",
            "istio.alpn",
            "envoy.filters.http.fault",
            "envoy.filters.http.cors",
            "istio.stats",
            "envoy.filters.http.router",
        ]
    );
}

#[test]
fn an_object_exported_to_nobody_is_seen_by_nobody() {
    let mut objects = world();
    let mut hidden = service("hidden", "10.96.0.30", &json!({"name": "http", "port": 8081}));
    hidden["metadata"]["annotations"] = json!({"networking.istio.io/exportTo": "~"});
    apply(&mut objects, Kind::Service, hidden);
    let (resources, _) = translate(&view(&objects));
    assert!(resources.clusters.iter().all(|c| !c.name.contains("hidden")));
    assert!(resources.listeners.iter().all(|l| l.name != "0.0.0.0_8081"));
}

#[test]
fn a_gateway_binds_the_port_behind_its_service_port() {
    let mut objects = world();
    let mut front = service(
        "front",
        "10.96.0.40",
        &json!({"name": "http2", "port": 80, "targetPort": 8080}),
    );
    front["spec"]["selector"] = json!({"app": "reviews"});
    apply(&mut objects, Kind::Service, front);
    apply(
        &mut objects,
        Kind::Gateway,
        json!({
            "metadata": {"name": "front", "namespace": "default"},
            "spec": {"selector": {"app": "reviews"}, "servers": [
                {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
                {"port": {"number": 31400, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]},
            ]},
        }),
    );
    apply(
        &mut objects,
        Kind::VirtualService,
        json!({
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {"hosts": ["*"], "gateways": ["front"], "tcp": [
                {"match": [{"port": 31400}], "route": [{"destination": {"host": "db"}}]},
            ]},
        }),
    );
    let gateway = node("router~10.244.0.9~front-0.default~default.svc.cluster.local", &[]);
    let proxy = Proxy::from_node(&gateway).expect("a valid node");
    let (resources, _) = translate(&Snapshot::build(&objects).proxy_view(&proxy));
    let names: Vec<_> = resources.listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["0.0.0.0_31400", "0.0.0.0_8080"]);
    assert_eq!(resources.routes[0].name, "http.8080");
    assert_eq!(resources.routes[0].virtual_hosts[0].name, "blackhole:80");
}

#[test]
fn a_gateway_server_that_cannot_be_served_is_left_out_and_reported() {
    let mut objects = world();
    let server = |number: u32, protocol: &str, mode: &str| {
        json!({
            "port": {"number": number, "name": "tls", "protocol": protocol},
            "hosts": ["*.local"], "tls": {"mode": mode},
        })
    };
    let plain = json!({"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]});
    let clash = json!({"port": {"number": 8080, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]});
    let servers = [
        server(15443, "TLS", "ISTIO_MUTUAL"),
        server(8443, "HTTPS", "SIMPLE"),
        plain,
        clash,
    ];
    let gateway = json!({
        "metadata": {"name": "east-west", "namespace": "default"},
        "spec": {"selector": {"app": "reviews"}, "servers": servers},
    });
    apply(&mut objects, Kind::Gateway, gateway);
    // Without a server name to tell it by, such a rule would open the port to everybody.
    let rule = json!({
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"hosts": ["*.local"], "gateways": ["east-west"], "tcp": [
            {"route": [{"destination": {"host": "db"}}]},
        ]},
    });
    apply(&mut objects, Kind::VirtualService, rule);
    let gateway = node("router~10.244.0.9~front-0.default~default.svc.cluster.local", &[]);
    let proxy = Proxy::from_node(&gateway).expect("a valid node");
    let snapshot = Snapshot::build(&objects);
    let (resources, mut diagnostics) = translate(&snapshot.proxy_view(&proxy));
    diagnostics.extend_from_slice(snapshot.diagnostics());
    let names: Vec<_> = resources.listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["0.0.0.0_8080"]);
    let says = |code: &str, text: &str| {
        let found = diagnostics
            .iter()
            .any(|d| d.code.id() == code && d.message.contains(text));
        assert!(found, "{code} {text}: {diagnostics:?}");
    };
    says("IST0133", "port 15443 is in mode ISTIO_MUTUAL");
    says("IST0106", "mode SIMPLE needs a certificate");
    says(
        "IST0145",
        "port 8080 is taken by HTTP of Gateway default/east-west",
    );
}

#[test]
fn a_gateway_route_to_a_host_of_the_mesh_needs_no_port() {
    let mut objects = world();
    apply(
        &mut objects,
        Kind::Gateway,
        json!({
            "metadata": {"name": "front", "namespace": "default"},
            "spec": {"selector": {"app": "reviews"}, "servers": [
                {"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["shop.test"]},
            ]},
        }),
    );
    apply(
        &mut objects,
        Kind::VirtualService,
        json!({
            "metadata": {"name": "shop", "namespace": "default"},
            "spec": {"hosts": ["shop.test"], "gateways": ["front"], "http": [
                {"route": [{"destination": {"host": "reviews"}}]},
            ]},
        }),
    );
    let gateway = node("router~10.244.0.9~front-0.default~default.svc.cluster.local", &[]);
    let proxy = Proxy::from_node(&gateway).expect("a valid node");
    let (resources, _) = translate(&Snapshot::build(&objects).proxy_view(&proxy));
    let host = virtual_host(&resources, "http.8080", "shop.test:8080");
    assert_eq!(
        cluster_of(&host, 0),
        Some("outbound|9080||reviews.default.svc.cluster.local")
    );
}

#[test]
fn a_thousand_services_give_a_cluster_and_a_virtual_host_each() {
    let mut objects = Objects::new(Settings::default());
    for index in 0..1000 {
        let address = format!("10.97.{}.{}", index / 250, index % 250);
        let http = json!({"name": "http", "port": 8080});
        apply(
            &mut objects,
            Kind::Service,
            service(&format!("s{index}"), &address, &http),
        );
    }
    let (resources, diagnostics) = translate(&view(&objects));
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    assert_eq!(
        resources
            .clusters
            .iter()
            .filter(|c| c.name.starts_with("outbound|"))
            .count(),
        1000
    );
    assert_eq!(resources.routes[0].virtual_hosts.len(), 1001);
}

#[test]
fn with_explicit_ports_each_service_port_has_a_bound_listener_of_its_own() {
    let mut node = node(
        "sidecar~10.244.0.1~reviews-v1.default~default.svc.cluster.local",
        &[],
    );
    node.metadata = Some(wkt::structure(&json!({
        "NAMESPACE": "default", "LABELS": {"app": "reviews"}, "INTERCEPTION_MODE": "PORTS",
    })));
    let mut objects = world();
    let http = json!({"name": "http", "port": 9080});
    apply(
        &mut objects,
        Kind::Service,
        service("ratings", "10.96.0.11", &http),
    );
    let proxy = Proxy::from_node(&node).expect("a valid node");
    let (resources, _) = translate(&Snapshot::build(&objects).proxy_view(&proxy));
    let names: Vec<_> = resources.listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "10.96.0.10_9080",
            "10.96.0.11_9080",
            "10.96.0.20_3306",
            "virtualInbound"
        ]
    );
    let bound = resources
        .listeners
        .iter()
        .take(3)
        .all(|l| l.bind_to_port == Some(true));
    assert!(bound);
    let host = virtual_host(
        &resources,
        "ratings.default.svc.cluster.local:9080",
        "ratings.default.svc.cluster.local:9080",
    );
    assert_eq!(
        host.domains,
        ["*"],
        "the listener tells the service, not the host"
    );
}

#[test]
fn what_a_proxy_has_no_filter_for_costs_that_route_the_part_alone() {
    let mut objects = world();
    let rule = json!({
        "metadata": {"name": "reviews", "namespace": "default"},
        "spec": {"hosts": ["reviews"], "http": [{
            "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 100}}},
            "corsPolicy": {"allowOrigins": [{"exact": "https://example.com"}]},
            "timeout": "3s",
            "route": [{"destination": {"host": "reviews"}}],
        }]},
    });
    apply(&mut objects, Kind::VirtualService, rule);
    let snapshot = Snapshot::build(&objects);
    let translated = |extensions: &[&str]| {
        let id = "sidecar~10.244.0.1~reviews-v1.default~default.svc.cluster.local";
        let proxy = Proxy::from_node(&node(id, extensions)).expect("a valid node");
        let (resources, diagnostics) = translate(&snapshot.proxy_view(&proxy));
        let host = virtual_host(&resources, "9080", "reviews.default.svc.cluster.local:9080");
        let filters: Vec<String> = host.routes[0].typed_per_filter_config.keys().cloned().collect();
        assert!(cluster_of(&host, 0).is_some(), "the route itself stays");
        let fields: Vec<String> = diagnostics.iter().map(|d| d.field.to_string()).collect();
        (filters, fields)
    };
    let (fault, cors) = ("envoy.filters.http.fault", "envoy.filters.http.cors");
    let all = (vec![cors.to_owned(), fault.to_owned()], vec![]);
    assert_eq!(translated(&[fault, cors]), all);
    assert_eq!(translated(&[]), all, "a proxy that lists nothing has everything");
    let (filters, fields) = translated(&["envoy.filters.http.router"]);
    assert_eq!(filters, Vec::<String>::new());
    assert_eq!(fields, ["spec.http[0].corsPolicy", "spec.http[0].fault"]);
}

#[test]
fn a_proxy_that_cannot_tunnel_sends_nothing_where_a_tunnel_is_wanted() {
    let mut objects = world();
    let entry = json!({
        "metadata": {"name": "proxy", "namespace": "default"},
        "spec": {
            "hosts": ["proxy.example.com"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
            "addresses": ["240.240.0.9"], "endpoints": [{"address": "203.0.113.9"}],
            "ports": [{"number": 3128, "name": "tcp", "protocol": "TCP"}],
        },
    });
    apply(&mut objects, Kind::ServiceEntry, entry);
    let rule = json!({
        "metadata": {"name": "proxy", "namespace": "default"},
        "spec": {
            "host": "proxy.example.com",
            "trafficPolicy": {"tunnel": {"protocol": "CONNECT", "targetHost": "depot.example.com", "targetPort": 443}},
        },
    });
    apply(&mut objects, Kind::DestinationRule, rule);
    let snapshot = Snapshot::build(&objects);
    let translated = |extensions: &[&str]| {
        let id = "sidecar~10.244.0.1~reviews-v1.default~default.svc.cluster.local";
        let proxy = Proxy::from_node(&node(id, extensions)).expect("a valid node");
        let (resources, diagnostics) = translate(&snapshot.proxy_view(&proxy));
        let listener = resources.listeners.iter().find(|l| l.name == "240.240.0.9_3128");
        let filters = &listener.expect("the listener").filter_chains[0].filters;
        let tcp = filters
            .iter()
            .find(|f| f.name == "envoy.filters.network.tcp_proxy")
            .expect("a TCP proxy");
        let Some(filter::ConfigType::TypedConfig(config)) = &tcp.config_type else {
            panic!("no configuration");
        };
        let tcp: TcpProxy = any::unpack(config).expect("a TCP proxy");
        let Some(TcpCluster::Cluster(cluster)) = tcp.cluster_specifier else {
            panic!("no cluster");
        };
        let fields: Vec<String> = diagnostics.iter().map(|d| d.field.clone()).collect();
        (
            tcp.tunneling_config.map(|tunnel| tunnel.hostname),
            cluster,
            fields,
        )
    };
    let tunnelled = (
        Some("depot.example.com:443".to_owned()),
        "outbound|3128||proxy.example.com".to_owned(),
        vec![],
    );
    assert_eq!(translated(&[]), tunnelled);
    assert_eq!(
        translated(&["envoy.filters.connection_pools.tcp.generic"]),
        tunnelled
    );
    let fields = vec!["spec.trafficPolicy.tunnel".to_owned()];
    assert_eq!(
        translated(&["envoy.filters.http.router"]),
        (None, "BlackHoleCluster".to_owned(), fields)
    );
}
