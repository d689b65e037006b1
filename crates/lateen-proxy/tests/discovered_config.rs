//! A proxy that gets everything from a discovery service.

mod harness;

use api_envoy::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};
use harness::discovery::Discovery;
use harness::{Client, Proxy, cluster, eventually, get, http_filters, listener, socket};

/// An HTTP listener with routes over RDS.
fn rds_listener(name: &str, routes: &str) -> String {
    let filters = http_filters("unused");
    let begin = filters.find("route_config: {").unwrap();
    let end = filters.find(", http_filters").unwrap();
    let rds = format!(
        "rds: {{ route_config_name: {routes}, config_source: {{ ads: {{}}, resource_api_version: V3 }} }}"
    );
    listener(name, &format!("{}{rds}{}", &filters[..begin], &filters[end..]))
}

fn eds_cluster(name: &str) -> String {
    format!(
        "{{ name: {name}, connect_timeout: 1s, type: EDS, eds_cluster_config: {{ service_name: {name}-eds, \
         eds_config: {{ ads: {{}}, resource_api_version: V3 }} }} }}"
    )
}

fn endpoints(cluster: &str, addresses: &[std::net::SocketAddr]) -> String {
    let hosts: Vec<_> = addresses
        .iter()
        .map(|a| format!("{{ endpoint: {{ address: {} }} }}", socket(*a)))
        .collect();
    format!(
        "{{ cluster_name: {cluster}-eds, endpoints: [{{ lb_endpoints: [{}] }}] }}",
        hosts.join(",")
    )
}

fn routes(name: &str, cluster: &str) -> String {
    format!(
        "{{ name: {name}, virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, \
         route: {{ cluster: {cluster} }} }}] }}] }}"
    )
}

fn check_answer(proxy: &Proxy, listener: &str, expected: &str) {
    let address = proxy.listener(listener);
    eventually(&format!("{listener} answers {expected}"), || {
        get(address, "GET", "any", "/")?
            .1
            .starts_with(expected)
            .then_some(())
    });
}

#[test]
fn clusters_endpoints_listeners_and_routes_are_discovered_and_warmed() {
    let discovery = Discovery::start();
    discovery.put(CLUSTER, &eds_cluster("app"));
    discovery.put(LISTENER, &rds_listener("web", "r"));
    let proxy = Proxy::start(&discovery.bootstrap(), &[]);
    assert_eq!(
        proxy.admin("GET", "/ready"),
        "PRE_INITIALIZING\n",
        "endpoints are missing"
    );
    discovery.put(ENDPOINT, &endpoints("app", &[harness::http_upstream("one")]));
    eventually("routes are awaited", || {
        (proxy.admin("GET", "/ready") == "INITIALIZING\n").then_some(())
    });
    discovery.put(ROUTE, &routes("r", "app"));
    proxy.wait_live();
    check_answer(&proxy, "web", "one /");
    assert_eq!(proxy.stat("control_plane.connected_state"), 1);
}

#[test]
fn traffic_follows_changes_of_endpoints_routes_and_clusters() {
    let discovery = Discovery::start();
    discovery.put(CLUSTER, &eds_cluster("app"));
    discovery.put(ENDPOINT, &endpoints("app", &[harness::http_upstream("one")]));
    discovery.put(LISTENER, &rds_listener("web", "r"));
    discovery.put(ROUTE, &routes("r", "app"));
    let proxy = Proxy::start(&discovery.bootstrap(), &[]);
    check_answer(&proxy, "web", "one /");
    discovery.put(ENDPOINT, &endpoints("app", &[harness::http_upstream("two")]));
    check_answer(&proxy, "web", "two /");
    discovery.put(CLUSTER, &cluster("other", harness::http_upstream("three")));
    discovery.put(ROUTE, &routes("r", "other"));
    check_answer(&proxy, "web", "three /");
    discovery.remove(CLUSTER, "app");
    eventually("the cluster is gone", || {
        (!proxy.admin("GET", "/clusters").contains("app::")).then_some(())
    });
    assert!(discovery.nacks().is_empty(), "{:?}", discovery.nacks());
}

#[test]
fn state_of_the_world_streams_bring_and_take_resources_too() {
    let discovery = Discovery::start();
    discovery.put(CLUSTER, &eds_cluster("app"));
    discovery.put(ENDPOINT, &endpoints("app", &[harness::http_upstream("one")]));
    discovery.put(LISTENER, &rds_listener("web", "r"));
    discovery.put(ROUTE, &routes("r", "app"));
    let proxy = Proxy::start(&discovery.bootstrap().replace("DELTA_GRPC", "GRPC"), &[]);
    check_answer(&proxy, "web", "one /");
    discovery.put(ENDPOINT, &endpoints("app", &[harness::http_upstream("two")]));
    check_answer(&proxy, "web", "two /");
    let address = proxy.listener("web");
    discovery.remove(LISTENER, "web");
    eventually("nobody listens", || {
        harness::connect(address).is_err().then_some(())
    });
    assert!(discovery.nacks().is_empty(), "{:?}", discovery.nacks());
}

#[test]
fn a_refused_resource_is_nacked_by_field_and_the_last_good_one_stays() {
    let discovery = Discovery::start();
    discovery.put(CLUSTER, &cluster("app", harness::http_upstream("app")));
    discovery.put(LISTENER, &listener("web", &http_filters("app")));
    let proxy = Proxy::start(&discovery.bootstrap(), &[]);
    check_answer(&proxy, "web", "app /");
    let bad =
        listener("web", &http_filters("app")).replacen("name: web,", "name: web, enable_mptcp: true,", 1);
    discovery.put(LISTENER, &bad);
    let nack = eventually("a NACK", || discovery.nacks().first().cloned());
    assert!(nack.contains("web") && nack.contains("enable_mptcp"), "{nack}");
    check_answer(&proxy, "web", "app /");
    assert_eq!(proxy.stat("listener_manager.lds.update_rejected"), 1);
}

/// Waits until a part of the dump has `wanted` in it.
fn check_dump(proxy: &Proxy, part: &str, wanted: &[&str]) -> String {
    let path = format!("/config_dump?include_eds&resource={part}");
    eventually(&format!("{wanted:?} in {part}"), || {
        let dump = proxy.admin("GET", &path);
        wanted.iter().all(|word| dump.contains(word)).then_some(dump)
    })
}

#[test]
fn refusals_are_shown_until_an_update_is_taken() {
    let discovery = Discovery::start();
    let web = listener("web", &http_filters("app"));
    let bad = |listener: &str| listener.replacen("name: ", "enable_mptcp: true, name: ", 1);
    let bad_routes =
        "{ name: r, virtual_hosts: [{ name: v, domains: [\"*\"] }, { name: w, domains: [\"*\"] }] }";
    discovery.put(CLUSTER, &eds_cluster("app"));
    discovery.put(ENDPOINT, &endpoints("app", &[harness::http_upstream("one")]));
    discovery.put(LISTENER, &rds_listener("rds", "r"));
    discovery.put(ROUTE, &routes("r", "app"));
    discovery.put(LISTENER, &bad(&web));
    let proxy = Proxy::start(&discovery.bootstrap(), &[]);
    check_answer(&proxy, "rds", "one /");
    let refusal = [
        "error_state",
        "failed_configuration",
        "last_update_attempt",
        "details",
    ];
    let dump = check_dump(&proxy, "dynamic_listeners&name_regex=web", &refusal);
    assert!(
        dump.contains("enable_mptcp") && !dump.contains("active_state"),
        "{dump}"
    );
    discovery.put(LISTENER, &web);
    eventually("the listener is taken", || {
        let dump = proxy.admin("GET", "/config_dump?resource=dynamic_listeners&name_regex=web");
        (dump.contains("active_state") && !dump.contains("error_state")).then_some(())
    });
    discovery.put(LISTENER, &bad(&web));
    discovery.put(CLUSTER, &eds_cluster("app").replace("timeout: 1s", "timeout: 0s"));
    discovery.put(ROUTE, bad_routes);
    discovery.put(
        ENDPOINT,
        "{ cluster_name: app-eds, endpoints: [{ priority: 1000 }] }",
    );
    for part in [
        "dynamic_listeners&name_regex=web",
        "dynamic_active_clusters",
        "dynamic_route_configs",
        "dynamic_endpoint_configs",
    ] {
        check_dump(&proxy, part, &refusal);
    }
    check_answer(&proxy, "rds", "one /");
    check_answer(&proxy, "web", "one /");
}

#[test]
fn a_whole_set_without_a_refused_listener_ends_its_refusal() {
    let discovery = Discovery::start();
    let web = listener("web", &http_filters("app"));
    discovery.put(LISTENER, &web.replacen("name: ", "enable_mptcp: true, name: ", 1));
    let proxy = Proxy::start(&discovery.bootstrap().replace("DELTA_GRPC", "GRPC"), &[]);
    check_dump(&proxy, "dynamic_listeners", &["error_state"]);
    discovery.remove(LISTENER, "web");
    discovery.put(LISTENER, &listener("other", &http_filters("app")));
    let dump = check_dump(&proxy, "dynamic_listeners", &["other"]);
    assert!(!dump.contains("error_state"), "{dump}");
}

#[test]
fn an_updated_listener_keeps_its_socket_and_its_connections() {
    let discovery = Discovery::start();
    discovery.put(CLUSTER, &cluster("one", harness::http_upstream("one")));
    discovery.put(CLUSTER, &cluster("two", harness::http_upstream("two")));
    discovery.put(LISTENER, &listener("web", &http_filters("one")));
    let proxy = Proxy::start(&discovery.bootstrap(), &[]);
    let address = proxy.listener("web");
    let mut open = Client::connect(address).unwrap();
    assert_eq!(open.request("GET", "any", "/").unwrap().1, "one /");
    discovery.put(LISTENER, &listener("web", &http_filters("two")));
    check_answer(&proxy, "web", "two /");
    assert_eq!(proxy.listener("web"), address, "port 0 was not bound again");
    assert_eq!(
        open.request("GET", "any", "/").unwrap().1,
        "one /",
        "an open connection keeps its filter chain"
    );
    assert_eq!(proxy.stat("listener_manager.listener_modified"), 1);
}

/// Waits until a gauge has a value.
fn check_gauge(proxy: &Proxy, name: &str, value: u64) {
    eventually(&format!("{name} is {value}"), || {
        (proxy.stat(name) == value).then_some(())
    });
}

/// As in Envoy, which says nothing of it to the control plane either.
#[test]
fn listeners_that_come_after_all_were_stopped_are_not_put_in_force() {
    let discovery = Discovery::start();
    discovery.put(CLUSTER, &cluster("app", harness::http_upstream("app")));
    discovery.put(LISTENER, &listener("web", &http_filters("app")));
    let proxy = Proxy::start(&discovery.bootstrap(), &["--concurrency", "1"]);
    check_answer(&proxy, "web", "app /");
    let inbound = |name: &str| {
        let plain = listener(name, &http_filters("app"));
        format!(
            "{}, traffic_direction: INBOUND }}",
            plain.strip_suffix('}').unwrap()
        )
    };
    proxy.admin("POST", "/drain_listeners?inboundonly");
    discovery.put(LISTENER, &inbound("in"));
    discovery.put(LISTENER, &listener("out", &http_filters("app")));
    check_answer(&proxy, "out", "app /");
    proxy.admin("POST", "/drain_listeners");
    let updates = proxy.stat("listener_manager.lds.update_success");
    discovery.put(LISTENER, &listener("later", &http_filters("app")));
    check_gauge(&proxy, "listener_manager.lds.update_success", updates + 1);
    let listeners = proxy.admin("GET", "/listeners");
    assert!(
        !listeners.contains("in::") && !listeners.contains("later::"),
        "{listeners}"
    );
    assert_eq!(proxy.stat("listener_manager.listener_added"), 2);
    assert!(discovery.nacks().is_empty());
}

#[test]
fn replaced_and_removed_listeners_are_told_of_while_they_drain() {
    const LISTENERS: &str = "listener_manager.total_listeners_draining";
    const CHAINS: &str = "listener_manager.total_filter_chains_draining";
    let discovery = Discovery::start();
    let web = listener("web", &http_filters("app"));
    discovery.put(CLUSTER, &cluster("app", harness::http_upstream("app")));
    discovery.put(LISTENER, &web);
    let proxy = Proxy::start(
        &discovery.bootstrap(),
        &["--drain-time-s", "3", "--concurrency", "2"],
    );
    check_answer(&proxy, "web", "app /");
    assert_eq!(
        proxy.stat("listener_manager.listener_create_success"),
        2,
        "one for each worker"
    );
    // Another chain in the place of the one before: the listener goes on, the chain drains.
    let in_place = listener("web", &http_filters("other"));
    discovery.put(LISTENER, &in_place);
    check_gauge(&proxy, CHAINS, 1);
    assert_eq!(proxy.stat("listener_manager.listener_in_place_updated"), 1);
    assert_eq!(proxy.stat(LISTENERS), 0);
    // Another setting of the listener: the version before drains as a whole.
    let whole = in_place.replacen(
        "name: web,",
        "name: web, continue_on_listener_filters_timeout: true,",
        1,
    );
    discovery.put(LISTENER, &whole);
    check_gauge(&proxy, LISTENERS, 1);
    let dump = proxy.admin("GET", "/config_dump?resource=dynamic_listeners");
    assert!(
        dump.contains("active_state") && dump.contains("draining_state"),
        "{dump}"
    );
    assert_eq!(dump.matches("DynamicListener\"").count(), 1, "{dump}");
    check_gauge(&proxy, LISTENERS, 0);
    check_gauge(&proxy, CHAINS, 0);
    let dump = proxy.admin("GET", "/config_dump?resource=dynamic_listeners");
    assert!(!dump.contains("draining_state"), "{dump}");
    discovery.remove(LISTENER, "web");
    check_gauge(&proxy, LISTENERS, 1);
    assert_eq!(proxy.stat("listener_manager.listener_in_place_updated"), 1);
    assert_eq!(proxy.stat("listener_manager.listener_stopped"), 0);
}

#[test]
fn the_discovery_service_s_connection_is_counted_in_its_cluster() {
    let mut discovery = Discovery::start();
    discovery.put(CLUSTER, &cluster("app", harness::http_upstream("app")));
    let proxy = Proxy::start(&discovery.bootstrap(), &[]);
    proxy.wait_live();
    let stat = |leaf: &str| proxy.stat(&format!("cluster.xds-grpc.{leaf}"));
    let check = |expected: &[(&str, u64)]| {
        for (leaf, value) in expected {
            assert_eq!(stat(leaf), *value, "{leaf}");
        }
    };
    check(&[
        ("upstream_cx_total", 1),
        ("upstream_cx_http2_total", 1),
        ("upstream_cx_active", 1),
        ("upstream_rq_total", 1),
        ("upstream_rq_active", 1),
        ("upstream_rq_200", 1),
        ("upstream_cx_connect_fail", 0),
    ]);
    assert!(stat("upstream_cx_rx_bytes_total") > 100 && stat("upstream_cx_tx_bytes_total") > 100);
    discovery.stop();
    eventually("a connection that fails", || {
        (stat("upstream_cx_connect_fail") > 0).then_some(())
    });
    check(&[("upstream_cx_active", 0), ("upstream_rq_active", 0)]);
    assert!(stat("upstream_cx_destroy") > 1 && stat("upstream_rq_503") > 0);
}

#[test]
fn a_removed_listener_stops_listening() {
    let discovery = Discovery::start();
    discovery.put(CLUSTER, &cluster("app", harness::http_upstream("app")));
    discovery.put(LISTENER, &listener("web", &http_filters("app")));
    let proxy = Proxy::start(&discovery.bootstrap(), &[]);
    let address = proxy.listener("web");
    discovery.remove(LISTENER, "web");
    eventually("nobody listens", || {
        harness::connect(address).is_err().then_some(())
    });
    proxy.wait_live();
}

#[test]
fn traffic_goes_on_without_the_discovery_service_which_is_told_what_is_held() {
    let mut discovery = Discovery::start();
    discovery.put(CLUSTER, &cluster("app", harness::http_upstream("app")));
    discovery.put(LISTENER, &listener("web", &http_filters("app")));
    let proxy = Proxy::start(&discovery.bootstrap(), &[]);
    check_answer(&proxy, "web", "app /");
    discovery.stop();
    eventually("the stream is lost", || {
        (proxy.stat("control_plane.connected_state") == 0).then_some(())
    });
    check_answer(&proxy, "web", "app /");
    discovery.restart();
    eventually("a new stream", || (discovery.streams() == 2).then_some(()));
    eventually("what is held", || {
        (discovery.initial_versions(CLUSTER) == ["app"]).then_some(())
    });
    discovery.put(CLUSTER, &cluster("app", harness::http_upstream("new")));
    check_answer(&proxy, "web", "new /");
}
