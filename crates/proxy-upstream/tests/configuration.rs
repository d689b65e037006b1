//! Which clusters are accepted, and how the refusal of others names the field.

mod support;

use support::{config, refusal};
use telemetry::stats::Registry;

#[test]
fn what_changes_traffic_and_is_not_enforced_is_refused_by_name() {
    for (yaml, path) in [
        ("type: EDS\nlb_policy: CLUSTER_PROVIDED", "lb_policy"),
        ("type: ORIGINAL_DST", "lb_policy"),
        ("type: EDS\nconnect_timeout: 0s", "connect_timeout"),
        (
            "type: EDS\nhealth_checks: [{ timeout: 1s, interval: 1s }]",
            "health_checks",
        ),
        (
            "type: EDS\ntransport_socket: { name: envoy.transport_sockets.tls }",
            "transport_socket",
        ),
        (
            "type: EDS\nlb_subset_config: { subset_selectors: [{ keys: [v] }] }",
            "lb_subset_config",
        ),
        (
            "type: EDS\ncommon_lb_config: { zone_aware_lb_config: {} }",
            "common_lb_config.zone_aware_lb_config",
        ),
        (
            "type: EDS\nlb_policy: MAGLEV\nmaglev_lb_config: { table_size: 10 }",
            "maglev_lb_config.table_size",
        ),
        ("type: EDS\nfilters: [{ name: acme }]", "filters[0].name"),
        ("type: STRICT_DNS", "load_assignment"),
        (
            "type: STATIC\nload_assignment: { endpoints: [{ lb_endpoints: [{ endpoint: { address: \
             { socket_address: { address: a.test, port_value: 80 } } } }] }] }",
            "load_assignment.endpoints",
        ),
        (
            "type: STATIC\nload_assignment: { endpoints: [{ lb_endpoints: [{ endpoint: { address: \
             { socket_address: { address: 127.0.0.1, port_value: 70000 } } } }] }] }",
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value",
        ),
        (
            "type: EDS\noutlier_detection: {}",
            "outlier_detection.enforcing_success_rate",
        ),
        ("cluster_type: { name: envoy.clusters.aggregate }", "cluster_type"),
    ] {
        let refusal = refusal(yaml);
        assert!(
            refusal.starts_with(&format!("{path}: ")),
            "{refusal}, expected {path}"
        );
    }
}

#[test]
fn defaults_are_those_of_the_original() {
    let cluster = config("type: EDS", &Registry::new()).unwrap();
    assert_eq!(cluster.connect_timeout.as_secs(), 5);
    assert_eq!(cluster.buffer_limit_bytes, 1 << 20);
    assert_eq!(cluster.http.idle_timeout.map(|d| d.as_secs()), Some(3600));
    assert_eq!(cluster.lb.panic_threshold_percent, 50.0);
    assert!(cluster.initial_endpoints().is_none(), "endpoints come by EDS");
}

#[test]
fn the_bind_address_is_that_of_the_destination_s_family() {
    let yaml = "type: EDS\nupstream_bind_config:\n  source_address: { address: 127.0.0.6, port_value: 0 }\n  \
                extra_source_addresses: [{ address: { address: '::6', port_value: 0 } }]";
    let bind = config(yaml, &Registry::new()).unwrap().bind.unwrap();
    let source = |destination: &str| {
        bind.for_destination(destination.parse().unwrap())
            .map(|a| a.to_string())
    };
    assert_eq!(source("10.0.0.1:80").as_deref(), Some("127.0.0.6:0"));
    assert_eq!(source("[::1]:80").as_deref(), Some("[::6]:0"));
}

#[test]
fn a_cluster_may_keep_its_application_protocols() {
    let marked = |value: &str| {
        let metadata = format!("metadata: {{ filter_metadata: {{ istio: {value} }} }}");
        let cluster = config(&format!("type: EDS\n{metadata}"), &Registry::new());
        cluster.unwrap().refuses_alpn_override
    };
    assert!(marked("{ alpn_override: \"false\" }"));
    assert!(!marked("{ alpn_override: \"true\" }"));
    assert!(!marked("{}"));
}
