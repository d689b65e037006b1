//! What a sidecar's client side does in Istio's mesh: TLS where the endpoint speaks it, and the application protocols
//! by which the server's sidecar knows it; and the discovery service behind TLS.

use std::net::SocketAddr;

use api_envoy::type_url;

use crate::certificates::{Authority, downstream, upstream};
use crate::harness::discovery::Discovery;
use crate::harness::secrets::Secrets;
use crate::harness::{Proxy, cluster, eventually, get, http_filters, listener, socket, tcp_filters};
use crate::secrets::{agent, certificate_secret, from_agent, roots_secret};
use crate::world::{
    Program, access_log, http_with, lines, reflecting_upstream, secure_cluster, secure_listener,
};

/// The filters of a client's sidecar, as istiod sends them.
fn filters_with_alpn() -> String {
    let alpn = "{ name: istio.alpn, typed_config: { \"@type\": \
                type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig, alpn_override: [ \
                { alpn_override: [istio-http/1.0, istio, http/1.0] }, \
                { upstream_protocol: HTTP11, alpn_override: [istio-http/1.1, istio, http/1.1] }, \
                { upstream_protocol: HTTP2, alpn_override: [istio-h2, istio, h2] }] } }";
    let log = access_log("log", "%RESPONSE_CODE% %UPSTREAM_TLS_VERSION%");
    http_with(&log).replacen("http_filters: [", &format!("http_filters: [{alpn}, "), 1)
}

/// A server that tells clients of the mesh from others by their application protocols, and takes plaintext.
fn permissive_server(root: &Authority) -> Proxy {
    let identity = root.leaf("server", &["spiffe://td/server"]);
    let common = format!("{}, {}", identity.certificates(), root.validation(""));
    let tls = |alpn: &str| {
        let common = format!("{common}, alpn_protocols: [{alpn}]");
        downstream(&common, ", require_client_certificate: true")
    };
    let log = access_log("log", "%FILTER_CHAIN_NAME% %DOWNSTREAM_PEER_URI_SAN%");
    let chain = |name: &str, matched: &str, transport: &str| {
        format!(
            "{{ name: {name}, filter_chain_match: {{ {matched} }}, {transport} filters: {} }}",
            http_with(&log)
        )
    };
    let chains = [
        chain(
            "mesh",
            "transport_protocol: tls, application_protocols: [istio-http/1.0, istio-http/1.1]",
            &format!("{},", tls("h2, http/1.1, istio-http/1.1")),
        ),
        chain(
            "mesh-h2",
            "transport_protocol: tls, application_protocols: [istio-h2]",
            &format!("{},", tls("h2, http/1.1")),
        ),
        chain(
            "other",
            "transport_protocol: tls",
            &format!("{},", tls("http/1.1")),
        ),
        chain("plain", "transport_protocol: raw_buffer", ""),
    ];
    let inspector = "listener_filters: [{ name: envoy.filters.listener.tls_inspector, typed_config: { \"@type\": \
                     type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector } }]";
    let listener = format!(
        "{{ name: web, address: {}, {inspector}, filter_chains: [{}] }}",
        socket("127.0.0.1:0".parse().unwrap()),
        chains.join(", ")
    );
    Program::Lateen.start(listener, cluster("app", reflecting_upstream()))
}

/// A cluster as istiod makes it where mutual TLS is automatic: by the endpoint's metadata.
fn automatic(root: &Authority, address: SocketAddr, tls_mode: &str, more: &str) -> String {
    let identity = root.leaf("client", &["spiffe://td/client"]);
    let names =
        ", match_typed_subject_alt_names: [{ san_type: URI, matcher: { exact: \"spiffe://td/server\" } }]";
    let common = format!(
        "{}, {}, alpn_protocols: [istio-peer-exchange, istio]",
        identity.certificates(),
        root.validation(names)
    );
    let tls = upstream(&common, ", sni: outbound_.80_._.app");
    let metadata = format!("{{ filter_metadata: {{ envoy.transport_socket_match: {{ {tls_mode} }} }} }}");
    format!(
        "{{ name: app, connect_timeout: 1s, type: STATIC, load_assignment: {{ cluster_name: app, endpoints: \
         [{{ lb_endpoints: [{{ endpoint: {{ address: {} }}, metadata: {metadata} }}] }}] }}, transport_socket_matches: [ \
         {{ name: tlsMode-istio, match: {{ tlsMode: istio }}, {tls} }}, \
         {{ name: tlsMode-disabled, match: {{}}, transport_socket: {{ name: envoy.transport_sockets.raw_buffer, \
         typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer }} }} }} \
         ] {more} }}",
        socket(address)
    )
}

/// A cluster whose hosts are spoken to in HTTP/2.
const HTTP_2: &str = ", typed_extension_protocol_options: { \
                      envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \"@type\": \
                      type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
                      explicit_http_config: { http2_protocol_options: {} } } }";

#[test]
fn an_endpoint_of_the_mesh_gets_mutual_tls_and_istios_protocols_and_another_one_plaintext() {
    let root = Authority::new();
    let server = permissive_server(&root);
    let left_alone = ", metadata: { filter_metadata: { istio: { alpn_override: \"false\" } } }";
    for (mode, more, seen, version) in [
        ("tlsMode: istio", "", "mesh spiffe://td/client", "TLSv1.3"),
        (
            "tlsMode: istio",
            left_alone,
            "other spiffe://td/client",
            "TLSv1.3",
        ),
        ("tlsMode: istio", HTTP_2, "mesh-h2 spiffe://td/client", "TLSv1.3"),
        ("", "", "plain -", "-"),
    ] {
        let before = std::fs::read_to_string(server.path("log"))
            .unwrap_or_default()
            .lines()
            .count();
        let client = Program::Lateen.start(
            listener("plain", &filters_with_alpn()),
            automatic(&root, server.listener("web"), mode, more),
        );
        for _ in 0..2 {
            assert_eq!(get(client.listener("plain"), "GET", "a", "/").unwrap().0, 200);
        }
        assert_eq!(lines(&server, "log", before + 2)[before..], [seen, seen]);
        assert_eq!(
            lines(&client, "log", 2),
            [format!("200 {version}"), format!("200 {version}")]
        );
        assert_eq!(
            client.stat("cluster.app.upstream_cx_total"),
            1,
            "both go over one connection"
        );
    }
}

#[test]
fn the_discovery_service_is_spoken_to_with_mutual_tls() {
    let root = Authority::new();
    let discovery = Discovery::start();
    discovery.put(type_url::CLUSTER, &cluster("app", reflecting_upstream()));
    discovery.put(type_url::LISTENER, &listener("plain", &http_filters("app")));
    let identity = root.leaf("istiod", &["istiod.test"]);
    let common = format!(
        "{}, {}, alpn_protocols: [h2]",
        identity.certificates(),
        root.validation("")
    );
    let log = access_log("log", "%DOWNSTREAM_PEER_URI_SAN% %REQUESTED_SERVER_NAME%");
    let filters = tcp_filters("app").replacen("stat_prefix: tcp", &format!("stat_prefix: tcp{log}"), 1);
    let chain = format!(
        "{}, filters: {filters}",
        downstream(&common, ", require_client_certificate: true")
    );
    let front = Program::Lateen.start(secure_listener(&chain, ""), cluster("app", discovery.address));

    let directory = tempfile::tempdir().unwrap();
    let identity = root.leaf("client", &["spiffe://td/client"]);
    identity.write(directory.path(), "client");
    let file = |name: &str| format!("{{ filename: {:?} }}", directory.path().join(name));
    let names = ", match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: istiod.test } }]";
    let common = format!(
        "tls_certificates: [{{ certificate_chain: {}, private_key: {} }}], {}",
        file("client.pem"),
        file("client.key"),
        root.validation(names)
    );
    let plain = discovery
        .bootstrap()
        .replace(&socket(discovery.address), &socket(front.listener("web")));
    let secured = |common: &str| {
        let transport = upstream(common, ", sni: istiod.test");
        plain.replacen("type: STATIC", &format!("type: STATIC, {transport}"), 1)
    };
    let stranger = Authority::new();
    let refusing = Proxy::start(
        &secured(&format!(
            "{}, {}",
            identity.certificates(),
            stranger.validation("")
        )),
        &["--concurrency", "1"],
    );
    eventually("the server is not believed", || {
        (refusing.stat("cluster.xds-grpc.upstream_cx_connect_fail") > 0).then_some(())
    });
    drop(refusing);
    let proxy = Proxy::start(&secured(&common), &["--concurrency", "1"]);
    proxy.wait_live();
    assert_eq!(get(proxy.listener("plain"), "GET", "a", "/").unwrap().0, 200);
    drop(proxy);
    let seen = eventually("the connection is logged", || {
        let seen = lines(&front, "log", 1);
        seen.into_iter().find(|line| line.starts_with("spiffe"))
    });
    assert_eq!(seen, "spiffe://td/client istiod.test");
}

#[test]
fn no_request_fails_while_identities_and_roots_rotate() {
    const ROTATIONS: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sds");
    let secrets = Secrets::start(&socket);
    let mut authority = Authority::new();
    let put_leaf = |authority: &Authority| {
        let leaf = authority.leaf("w", &["spiffe://td/w"]);
        secrets.put(&format!("{{ {} }}", certificate_secret("default", &leaf)));
    };
    let put_roots = |pem: String| secrets.put(&format!("{{ {} }}", roots_secret("ROOTCA", &pem)));
    put_leaf(&authority);
    put_roots(authority.pem());
    let common = format!(
        "tls_certificate_sds_secret_configs: [{}], validation_context_sds_secret_config: {}",
        from_agent("default", "GRPC"),
        from_agent("ROOTCA", "GRPC")
    );
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ", require_client_certificate: true"),
        http_with("")
    );
    let app = cluster("app", reflecting_upstream());
    let server = Program::Lateen.start(secure_listener(&chain, ""), format!("{app}, {}", agent(&socket)));
    // Every request is on a connection of its own.
    let one = ", typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \"@type\": \
               type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, common_http_protocol_options: { \
               max_requests_per_connection: 1 }, explicit_http_config: { http_protocol_options: {} } } }";
    let sds = agent(&socket);
    let secured = secure_cluster(server.listener("web"), &upstream(&common, ""), one);
    let client = Program::Lateen.start(listener("plain", &http_with("")), format!("{secured}, {sds}"));
    let ask = || {
        let (status, _) = get(client.listener("plain"), "GET", "a", "/").unwrap();
        assert_eq!(status, 200);
    };
    let taken = |name: &str, count: usize| {
        let stat = format!("sds.{name}.update_success");
        eventually("both have it", || {
            let has = |proxy: &Proxy| proxy.stat(&stat) >= count as u64;
            (0..5).for_each(|_| ask());
            (has(&server) && has(&client)).then_some(())
        });
    };
    // The order of a root's rotation: both are trusted before anybody uses the new one.
    for round in 0..ROTATIONS {
        let next = Authority::new();
        put_roots(format!("{}{}", authority.pem(), next.pem()));
        taken("ROOTCA", 2 * round + 2);
        put_leaf(&next);
        taken("default", round + 2);
        put_roots(next.pem());
        taken("ROOTCA", 2 * round + 3);
        authority = next;
    }
    for proxy in [&server, &client] {
        assert_eq!(proxy.stat("sds.default.update_rejected"), 0);
    }
    assert_eq!(client.stat("cluster.app.upstream_cx_connect_fail"), 0);
    assert!(client.stat("cluster.app.ssl.handshake") >= 3 * 5 * ROTATIONS as u64);
}
