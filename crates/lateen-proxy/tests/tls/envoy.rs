//! A real Envoy on either side, and as the judge of what is logged. `LATEEN_ENVOY` names its program; without it these
//! tests do not run and say so, and fail in CI, where nothing may be skipped in silence.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use crate::certificates::{Authority, downstream, upstream};
use crate::harness::program::envoy;
use crate::harness::{Proxy, cluster, connect, echo_upstream, get, http_filters, listener, tcp_filters};
use crate::world::{
    AUTO_SNI, PREFIX, Program, access_log, client, http_with, lines, mutual_server, reflecting_upstream,
    secure_cluster, secure_listener,
};

/// What a client with this identity presents and expects of the server.
fn common(root: &Authority, identity: &crate::certificates::Leaf, expected: &str) -> String {
    let names = format!(
        ", match_typed_subject_alt_names: [{{ san_type: URI, matcher: {{ exact: \"{expected}\" }} }}]"
    );
    format!("{}, {}", identity.certificates(), root.validation(&names))
}

/// Mutual TLS for some requests, on one connection.
fn check_mutual(server: &Program, client_program: &Program) {
    let root = Authority::new();
    let server = mutual_server(server, &root, "server.test");
    let identity = root.leaf("client", &["spiffe://td/client"]);
    let transport = upstream(
        &common(&root, &identity, "spiffe://td/server"),
        ", sni: server.test",
    );
    let client = client(client_program, &server, &transport, "");
    let address = client.listener("plain");
    for _ in 0..5 {
        let (status, head) = get(address, "GET", "any", "/x").unwrap();
        assert_eq!(status, 200);
        assert!(head.contains(";URI=spiffe://td/client\r\n"), "{head}");
        assert!(head.contains("By=spiffe://td/server;Hash="), "{head}");
    }
    assert_eq!(
        lines(&client, "log", 5)[4],
        "200 - TLSv1.3 spiffe://td/server - via_upstream"
    );
    assert_eq!(
        lines(&server, "log", 5)[4],
        "TLSv1.3 spiffe://td/client spiffe://td/server"
    );
    for (proxy, stat) in [
        (&client, "cluster.app.ssl.handshake"),
        (&client, "cluster.app.ssl.versions.TLSv1.3"),
        (&client, "cluster.app.upstream_cx_total"),
        (&server, &*format!("{PREFIX}.handshake")),
        (&server, &*format!("{PREFIX}.ciphers.TLS_AES_128_GCM_SHA256")),
    ] {
        assert_eq!(proxy.stat(stat), 1, "{stat}");
    }
}

#[test]
fn an_envoy_is_served_with_mutual_tls() {
    if let Some(envoy) = envoy("an_envoy_is_served_with_mutual_tls") {
        check_mutual(&Program::Lateen, &envoy);
    }
}

#[test]
fn an_envoy_serves_us_with_mutual_tls() {
    if let Some(envoy) = envoy("an_envoy_serves_us_with_mutual_tls") {
        check_mutual(&envoy, &Program::Lateen);
    }
}

/// The lines that a client and the server log when the client has this identity and expects that one.
fn failure(
    (server, client_program): (&Program, &Program),
    (root, identity): (&Authority, &crate::certificates::Leaf),
    expected: &str,
) -> (String, String) {
    let server = mutual_server(server, root, "server.test");
    let transport = upstream(&common(root, identity, expected), "");
    let client = client(client_program, &server, &transport, "");
    let (status, _) = get(client.listener("plain"), "GET", "any", "/x").unwrap();
    assert_eq!(status, 503);
    (
        lines(&client, "log", 1).remove(0),
        lines(&server, "failed", 1).remove(0),
    )
}

/// What a server says that does not know our authority.
const UNKNOWN_CA: &str =
    "TLS_error:|268436504:SSL_routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end";

#[test]
fn failures_are_logged_on_both_sides_as_an_envoy_logs_them() {
    let Some(envoy) = envoy("failures_are_logged_on_both_sides_as_an_envoy_logs_them") else {
        return;
    };
    let root = Authority::new();
    let good = root.leaf("client", &["spiffe://td/client"]);
    let forged = Authority::new().leaf("client", &["spiffe://td/client"]);
    for (identity, expected) in [(&good, "spiffe://td/other"), (&forged, "spiffe://td/server")] {
        let logged = |client: &Program| failure((&envoy, client), (&root, identity), expected);
        let ((ours, _), (envoys, _)) = (logged(&Program::Lateen), logged(&envoy));
        // A refusal after the handshake is silent in Envoy's log.
        let told = ours.replacen(UNKNOWN_CA, "-", 1);
        assert_eq!(told, envoys, "the client, expecting {expected}");
        let logged = |server: &Program| failure((server, &envoy), (&root, identity), expected);
        let ((_, ours), (_, envoys)) = (logged(&Program::Lateen), logged(&envoy));
        assert_eq!(ours, envoys, "the server, where the client expects {expected}");
    }
}

/// Bytes and ends through two TCP proxies with TLS between them.
fn check_tcp(server: &Program, client: &Program) {
    let root = Authority::new();
    let common = root.leaf("server", &["server.test"]).certificates();
    let chain = format!("{}, filters: {}", downstream(&common, ""), tcp_filters("app"));
    let server = server.start(secure_listener(&chain, ""), cluster("app", echo_upstream("app")));
    let transport = upstream(&root.validation(""), ", sni: server.test");
    let client: Proxy = client.start(
        listener("plain", &tcp_filters("app")),
        secure_cluster(server.listener("web"), &transport, ""),
    );
    let mut stream = connect(client.listener("plain")).unwrap();
    let sent: Vec<u8> = (0..2 << 20).map(|i: u32| (i % 251) as u8).collect();
    let (mut writing, copy) = (stream.try_clone().unwrap(), sent.clone());
    let writer = std::thread::spawn(move || {
        writing.write_all(&copy).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    writer.join().unwrap();
    assert!(answer.starts_with(b"app\n"));
    assert!(
        answer[4..] == sent,
        "{} bytes of {}",
        answer.len() - 4,
        sent.len()
    );
}

#[test]
fn the_ends_of_tcp_connections_pass_through_tls_to_and_from_an_envoy() {
    if let Some(envoy) = envoy("the_ends_of_tcp_connections_pass_through_tls_to_and_from_an_envoy") {
        check_tcp(&Program::Lateen, &envoy);
        check_tcp(&envoy, &Program::Lateen);
    }
}

/// The access log of a TCP proxy behind TLS, of a client that speaks no TLS and of one that says nothing.
fn failed_connections(program: &Program) -> Vec<String> {
    let log = access_log(
        "log",
        "%RESPONSE_FLAGS% %DOWNSTREAM_TRANSPORT_FAILURE_REASON% %CONNECTION_TERMINATION_DETAILS% %BYTES_RECEIVED%",
    );
    let chain = format!(
        "{}, transport_socket_connect_timeout: 0.2s, filters: {}",
        downstream(&Authority::new().leaf("web", &["a.test"]).certificates(), ""),
        tcp_filters("app").replacen("stat_prefix: tcp", &format!("stat_prefix: tcp {log}"), 1)
    );
    let proxy = program.start(secure_listener(&chain, ""), cluster("app", echo_upstream("app")));
    for (position, bytes) in [&b"nonsense, and more of it\n"[..], b""].iter().enumerate() {
        let mut stream = connect(proxy.listener("web")).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        lines(&proxy, "log", position + 1);
    }
    lines(&proxy, "log", 2)
}

#[test]
fn connections_without_a_handshake_are_logged_as_by_an_envoy() {
    if let Some(envoy) = envoy("connections_without_a_handshake_are_logged_as_by_an_envoy") {
        assert_eq!(failed_connections(&Program::Lateen), failed_connections(&envoy));
    }
}

/// The server name that is asked for when the route rewrites the request's host.
fn server_name_of_a_rewritten_host(program: &Program) -> String {
    let root = Authority::new();
    let common = root.leaf("server", &["*.wild.test"]).certificates();
    let log = access_log("log", "%REQUESTED_SERVER_NAME% %REQ(:AUTHORITY)%");
    let chain = format!("{}, filters: {}", downstream(&common, ""), http_with(&log));
    let server = Program::Lateen.start(secure_listener(&chain, ""), cluster("app", reflecting_upstream()));
    // Verification would hide the name that was asked for.
    let options = AUTO_SNI.replacen("auto_san_validation: true", "auto_san_validation: false", 1);
    let route = "cluster: app, host_rewrite_literal: rewritten.test";
    let client = program.start(
        listener("plain", &http_filters("app").replacen("cluster: app", route, 1)),
        secure_cluster(
            server.listener("web"),
            &upstream(&root.validation(""), ""),
            &options,
        ),
    );
    get(client.listener("plain"), "GET", "a.wild.test", "/x").unwrap();
    lines(&server, "log", 1).remove(0)
}

#[test]
fn a_rewritten_host_is_asked_for_as_by_an_envoy() {
    if let Some(envoy) = envoy("a_rewritten_host_is_asked_for_as_by_an_envoy") {
        let ours = server_name_of_a_rewritten_host(&Program::Lateen);
        assert_eq!(ours, server_name_of_a_rewritten_host(&envoy));
    }
}
