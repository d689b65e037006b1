//! Listeners are accepted whole, or refused naming the field.

use api_envoy::json::Schema;
use serde_json::{Value, json};
use telemetry::stats::Registry;

use super::*;
use crate::context::{LocalNode, NameTables};

fn compile(json: &Value) -> ConfigResult<ListenerConfig<String>> {
    let proto: v3::Listener = Schema::get().parse(json).unwrap();
    let (mut names, registry, node) = (NameTables::default(), Registry::new(), LocalNode::default());
    let files = proxy_observe::LogFiles::start(Duration::from_secs(1)).unwrap();
    let mut context = CompileContext::new(&mut names, &registry, &node, &files);
    ListenerConfig::compile(&proto, &mut context, &mut |http, _| Ok(http.stat_prefix.clone()))
}

fn tcp_filter() -> Value {
    json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp", "cluster": "app" } })
}

/// TLS with a certificate that comes as a secret.
fn tls_socket() -> Value {
    let secret = json!({ "name": "default", "sds_config": { "ads": {} } });
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": { "tls_certificate_sds_secret_configs": [secret] } } })
}

fn listener(changes: Value) -> Value {
    let mut listener = json!({
        "name": "test",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [tcp_filter()] }]
    });
    for (key, value) in changes.as_object().unwrap() {
        listener[key] = value.clone();
    }
    listener
}

fn check_refused(changes: Value, path: &str) {
    assert_eq!(compile(&listener(changes)).unwrap_err().path(), path);
}

#[test]
fn defaults_are_envoys() {
    let listener = compile(&listener(json!({}))).unwrap();
    assert!(listener.bind_to_port && listener.socket.reuse_port && !listener.use_original_dst);
    assert_eq!(listener.listener_filters_timeout, Some(Duration::from_secs(15)));
    assert_eq!(listener.buffer_limit_bytes, 1 << 20);
}

#[test]
fn use_original_dst_brings_its_listener_filter() {
    let listener = compile(&listener(
        json!({ "use_original_dst": true, "listener_filters_timeout": "0s" }),
    ))
    .unwrap();
    assert!(matches!(
        listener.listener_filters[..],
        [ListenerFilter {
            kind: ListenerFilterKind::OriginalDst,
            ..
        }]
    ));
    assert_eq!(listener.listener_filters_timeout, None);
}

#[test]
fn a_change_of_filter_chains_alone_is_told_from_others() {
    let chain =
        |port: u16| json!({ "filter_chain_match": { "destination_port": port }, "filters": [tcp_filter()] });
    let before = compile(&listener(json!({ "filter_chains": [chain(1), chain(2)] }))).unwrap();
    let chains =
        listener(json!({ "filter_chains": [chain(3), chain(1)], "default_filter_chain": { "filters": [] } }));
    let after = compile(&chains).unwrap();
    assert!(before.is_same_but_for_chains(&after));
    assert_eq!(
        (
            before.chains_missing_from(&after),
            after.chains_missing_from(&before)
        ),
        (1, 2)
    );
    let other = compile(&listener(json!({ "tcp_backlog_size": 5 }))).unwrap();
    assert!(!before.is_same_but_for_chains(&other));
}

#[test]
fn fields_that_would_change_traffic_are_refused_by_name() {
    check_refused(json!({ "enable_mptcp": true }), "enable_mptcp");
    check_refused(json!({ "filter_chain_matcher": {} }), "filter_chain_matcher");
    check_refused(json!({ "transparent": true }), "transparent");
    check_refused(json!({ "filter_chains": [] }), "filter_chains");
    check_refused(
        json!({ "filter_chains": [{ "filters": [tcp_filter(), tcp_filter()] }] }),
        "filter_chains[0].filters[0]",
    );
}

#[test]
fn an_unknown_network_filter_is_refused_where_it_stands() {
    let rbac = json!({ "name": "envoy.filters.network.rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "stat_prefix": "r" } });
    let error = compile(&listener(
        json!({ "filter_chains": [{ "filters": [rbac, tcp_filter()] }] }),
    ))
    .unwrap_err();
    assert_eq!(error.path(), "filter_chains[0].filters[0].typed_config");
    assert!(error.reason().contains("envoy.filters.network.rbac"));
}

#[test]
fn chains_that_need_secrets_are_refused_where_none_can_come() {
    let tls = json!({ "transport_socket": tls_socket(), "filters": [tcp_filter()] });
    check_refused(
        json!({ "filter_chains": [tls] }),
        "filter_chains[0].transport_socket.typed_config",
    );
}

#[test]
fn an_error_in_a_filter_says_where_it_is() {
    let mut filter = tcp_filter();
    filter["typed_config"]["max_connect_attempts"] = json!(0);
    check_refused(
        json!({ "filter_chains": [{ "filters": [filter] }] }),
        "filter_chains[0].filters[0].typed_config.max_connect_attempts",
    );
}

#[test]
fn filters_before_the_last_are_those_that_may_precede_it() {
    let exchange = json!({ "name": "istio.metadata_exchange", "typed_config": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
        "value": { "protocol": "istio-peer-exchange", "enable_discovery": true } } });
    let by_name = json!({ "name": "sni", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster" } });
    let chain = |filters: &[&Value]| listener(json!({ "filter_chains": [{ "filters": filters }] }));
    let both = compile(&chain(&[&exchange, &by_name, &tcp_filter()])).unwrap();
    let NetworkFilter::Tcp(tcp) = &both.chains[0].filter else {
        panic!("a TCP proxy")
    };
    assert!(tcp.by_server_name && tcp.metadata_exchange.is_some());
    let last = compile(&chain(&[&by_name])).unwrap_err();
    assert_eq!(last.path(), "filter_chains[0].filters[0]");
    let mut unknown = exchange.clone();
    unknown["typed_config"]["value"] = json!({ "speed": 1 });
    let error = compile(&chain(&[&unknown, &tcp_filter()])).unwrap_err();
    assert_eq!(
        error.path(),
        "filter_chains[0].filters[0].typed_config.value.speed"
    );
}
