//! What inspectors find out decides the filter chain, and the bytes they read are not lost.

mod harness;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use harness::{Proxy, bootstrap, cluster, connect, get, http_filters, socket, tcp_filters};

fn inspector(name: &str) -> String {
    format!("{{ name: envoy.filters.listener.{name}_inspector }}")
}

/// A listener with these settings, listener filters and chains.
fn listener(settings: &str, filters: &[String], chains: &[String]) -> String {
    format!(
        "{{ name: l, address: {}, listener_filters: [{}], filter_chains: [{}] {settings} }}",
        socket("127.0.0.1:0".parse().unwrap()),
        filters.join(","),
        chains.join(",")
    )
}

fn chain(matched: &str, filters: &str) -> String {
    format!("{{ filter_chain_match: {{ {matched} }}, filters: {filters} }}")
}

/// Sends bytes and the end of the stream; what comes back until the other side has ended too.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    // A reset is an answer too: nothing.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A ClientHello with a server name and nothing else of interest.
fn client_hello(name: &str) -> Vec<u8> {
    let vector = |width: usize, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[4 - width..], body].concat()
    };
    let server_name = [&[0][..], &vector(2, name.as_bytes())].concat();
    let extension = [&[0, 0][..], &vector(2, &vector(2, &server_name))].concat();
    let body = [
        &[3, 3][..],
        &[1; 32],
        &[0],
        &vector(2, &[0x13, 1]),
        &[1, 0],
        &vector(2, &extension),
    ]
    .concat();
    let message = [&[1][..], &vector(3, &body)].concat();
    [&[22, 3, 1][..], &vector(2, &message)].concat()
}

#[test]
fn http_and_other_protocols_part_on_one_port() {
    let chains = [
        chain("application_protocols: [http/1.1, h2c]", &http_filters("web")),
        chain("", &tcp_filters("tcp")),
    ];
    let clusters = [
        cluster("web", harness::http_upstream("web")),
        cluster("tcp", harness::echo_upstream("tcp")),
    ];
    let listeners = [listener("", &[inspector("tls"), inspector("http")], &chains)];
    let proxy = Proxy::start(&bootstrap(&listeners, &clusters), &[]);
    let address = proxy.listener("l");
    assert_eq!(get(address, "GET", "any", "/x").unwrap().1, "web /x");
    assert_eq!(exchange(address, b"NOT HTTP\r\n"), b"tcp\nNOT HTTP\r\n");
}

#[test]
fn tls_is_passed_through_by_its_server_name() {
    let chains = [
        chain("server_names: [one.test]", &tcp_filters("one")),
        chain("server_names: [\"*.two.test\"]", &tcp_filters("two")),
    ];
    let clusters = [
        cluster("one", harness::echo_upstream("one")),
        cluster("two", harness::echo_upstream("two")),
    ];
    let proxy = Proxy::start(
        &bootstrap(&[listener("", &[inspector("tls")], &chains)], &clusters),
        &[],
    );
    let address = proxy.listener("l");
    let hello = client_hello("One.Test");
    assert_eq!(exchange(address, &hello), [b"one\n", &hello[..]].concat());
    let hello = client_hello("a.two.test");
    assert_eq!(exchange(address, &hello), [b"two\n", &hello[..]].concat());
    assert!(exchange(address, &client_hello("three.test")).is_empty());
    assert_eq!(proxy.stat("listener.127.0.0.1_0.no_filter_chain_match"), 1);
}

#[test]
fn a_chain_without_its_secrets_closes_its_connections_and_counts_them() {
    let tls = "transport_socket: { name: envoy.transport_sockets.tls, typed_config: { \"@type\": \
               type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, \
               common_tls_context: { tls_certificate_sds_secret_configs: [{ name: default, sds_config: { \
               initial_fetch_timeout: 0.1s, api_config_source: { api_type: GRPC, transport_api_version: V3, \
               grpc_services: [{ envoy_grpc: { cluster_name: sds-grpc } }] } } }] } } }";
    let needs_tls = format!(
        "{{ filter_chain_match: {{ transport_protocol: tls }}, {tls}, filters: {} }}",
        tcp_filters("app")
    );
    let chains = [
        needs_tls,
        chain("transport_protocol: raw_buffer", &tcp_filters("app")),
    ];
    let nobody = "127.0.0.1:1".parse().unwrap();
    let clusters = [
        cluster("app", harness::echo_upstream("app")),
        cluster("sds-grpc", nobody),
    ];
    let proxy = Proxy::start(
        &bootstrap(&[listener("", &[inspector("tls")], &chains)], &clusters),
        &[],
    );
    let address = proxy.listener("l");
    assert!(exchange(address, &client_hello("any")).is_empty());
    assert_eq!(exchange(address, b"plain"), b"app\nplain");
    let factory = "listener.127.0.0.1_0.server_ssl_socket_factory";
    assert_eq!(
        proxy.stat(&format!("{factory}.downstream_context_secrets_not_ready")),
        1
    );
}

/// Opens a connection to a server that speaks first, through an inspector that waits for the client.
fn check_silent_client(settings: &str, expected: &[u8]) {
    let clusters = [cluster("app", harness::echo_upstream("app"))];
    let settings = format!(", listener_filters_timeout: 0.05s {settings}");
    let listeners = [listener(
        &settings,
        &[inspector("http")],
        &[chain("", &tcp_filters("app"))],
    )];
    let proxy = Proxy::start(&bootstrap(&listeners, &clusters), &[]);
    let mut stream = connect(proxy.listener("l")).unwrap();
    let mut greeting = vec![0; expected.len().max(1)];
    let read = stream.read(&mut greeting).unwrap_or(0);
    assert_eq!(&greeting[..read], expected);
    assert_eq!(proxy.stat("listener.127.0.0.1_0.downstream_pre_cx_timeout"), 1);
}

#[test]
fn a_silent_client_is_closed_after_the_timeout() {
    check_silent_client("", b"");
}

#[test]
fn a_silent_client_goes_on_after_the_timeout_when_the_listener_says_so() {
    check_silent_client(", continue_on_listener_filters_timeout: true", b"app\n");
}
