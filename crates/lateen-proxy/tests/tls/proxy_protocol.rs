//! The PROXY protocol around TLS: its header comes first and in the clear, and the handshake follows it.

use crate::certificates::{Authority, downstream, upstream};
use crate::harness::program::{Program, envoy};
use crate::harness::{access_log, cluster, connect, echo_upstream, lines, listener, socket, tcp_filters};
use crate::world::secure_cluster;

use std::io::{Read as _, Write as _};

/// A server that reads the header and then ends TLS.
const READS_HEADER: &str = "listener_filters: [{ name: proxy_protocol, typed_config: { \"@type\": \
                            type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol } }]";

fn check_tls_behind_a_header(client: &Program, server: &Program, version: &str) {
    let root = Authority::new();
    let certificate = root.leaf("server", &["server.test"]);
    let logs = |format: &str| {
        let fields = format!("stat_prefix: tcp {}", access_log("log", format));
        tcp_filters("app").replacen("stat_prefix: tcp", &fields, 1)
    };
    let server = server.start(
        format!(
            "{{ name: web, address: {}, {READS_HEADER}, filter_chains: [{{ {}, filters: {} }}] }}",
            socket("127.0.0.1:0".parse().unwrap()),
            downstream(&certificate.certificates(), ""),
            logs("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_TLS_VERSION%")
        ),
        cluster("app", echo_upstream("app")),
    );
    let tls = upstream(&root.validation(""), ", sni: server.test");
    let around = format!(
        "transport_socket: {{ name: proxy, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
         config: {{ version: {version} }}, {tls} }} }}"
    );
    let client = client.start(
        listener("plain", &logs("%UPSTREAM_TLS_VERSION% %RESPONSE_FLAGS%")),
        secure_cluster(server.listener("web"), &around, ""),
    );
    let mut stream = connect(client.listener("plain")).unwrap();
    let source = stream.local_addr().unwrap();
    stream.write_all(b"hello").unwrap();
    let mut echo = [0; 9];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"app\nhello");
    drop(stream);
    assert_eq!(lines(&client, "log", 1), ["TLSv1.3 -"]);
    assert_eq!(lines(&server, "log", 1), [format!("{source} TLSv1.3")]);
}

#[test]
fn tls_begins_behind_the_header_that_tells_of_the_client() {
    check_tls_behind_a_header(&Program::Lateen, &Program::Lateen, "V1");
    check_tls_behind_a_header(&Program::Lateen, &Program::Lateen, "V2");
    if let Some(envoy) = envoy("tls_begins_behind_the_header_that_tells_of_the_client with Envoy") {
        check_tls_behind_a_header(&Program::Lateen, &envoy, "V2");
        check_tls_behind_a_header(&envoy, &Program::Lateen, "V1");
    }
}
