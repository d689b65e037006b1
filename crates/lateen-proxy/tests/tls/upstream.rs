//! TLS towards hosts, against another proxy of ours.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use crate::certificates::{Authority, downstream, upstream};
use crate::harness::{cluster, connect, echo_upstream, get, listener, socket, tcp_filters};
use crate::world::{
    AUTO_SNI, PREFIX, Program, access_log, client, http_with, lines, mutual_server, proxy,
    reflecting_upstream, secure_cluster, secure_listener,
};

#[test]
fn mutual_tls_between_two_proxies_is_pooled_like_plaintext() {
    let root = Authority::new();
    let server = mutual_server(&Program::Lateen, &root, "server.test");
    let names =
        ", match_typed_subject_alt_names: [{ san_type: URI, matcher: { exact: \"spiffe://td/server\" } }]";
    let common = format!(
        "{}, {}",
        root.leaf("client", &["spiffe://td/client"]).certificates(),
        root.validation(names)
    );
    let client = client(
        &Program::Lateen,
        &server,
        &upstream(&common, ", sni: server.test"),
        "",
    );
    let address = client.listener("plain");
    for _ in 0..5 {
        let (status, head) = get(address, "GET", "any", "/x").unwrap();
        assert_eq!(status, 200);
        assert!(head.contains(";URI=spiffe://td/client\r\n"), "{head}");
        assert!(head.contains("By=spiffe://td/server;"), "{head}");
    }
    assert_eq!(
        lines(&client, "log", 5)[4],
        "200 - TLSv1.3 spiffe://td/server - via_upstream"
    );
    assert_eq!(
        lines(&server, "log", 5)[0],
        "TLSv1.3 spiffe://td/client spiffe://td/server"
    );
    assert_eq!(client.stat("cluster.app.ssl.handshake"), 1);
    assert_eq!(client.stat("cluster.app.upstream_cx_total"), 1);
    assert_eq!(server.stat(&format!("{PREFIX}.handshake")), 1);
}

#[test]
fn a_server_that_does_not_verify_gets_no_request() {
    let root = Authority::new();
    let server = mutual_server(&Program::Lateen, &root, "server.test");
    let names =
        ", match_typed_subject_alt_names: [{ san_type: URI, matcher: { exact: \"spiffe://td/other\" } }]";
    let common = format!(
        "{}, {}",
        root.leaf("client", &["spiffe://td/client"]).certificates(),
        root.validation(names)
    );
    let client = client(&Program::Lateen, &server, &upstream(&common, ""), "");
    let (status, body) = get(client.listener("plain"), "GET", "any", "/x").unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("remote connection failure"), "{body}");
    let line = &lines(&client, "log", 1)[0];
    assert!(
        line.starts_with("503 UF - - TLS_error:|268435581:SSL_routines:"),
        "{line}"
    );
    assert!(
        line.contains("SAN_matcher,_certificate_SANs_are_[server.test,_spiffe://td/server]"),
        "{line}"
    );
    assert_eq!(client.stat("cluster.app.ssl.fail_verify_san"), 1);
    assert_eq!(client.stat("cluster.app.upstream_cx_connect_fail"), 1);
    assert_eq!(server.stat("http.http.downstream_rq_total"), 0);
}

#[test]
fn a_server_that_refuses_our_certificate_says_why() {
    let root = Authority::new();
    let server = mutual_server(&Program::Lateen, &root, "server.test");
    let forged = Authority::new().leaf("client", &["spiffe://td/client"]);
    let common = format!("{}, {}", forged.certificates(), root.validation(""));
    let client = client(&Program::Lateen, &server, &upstream(&common, ""), "");
    let (status, _) = get(client.listener("plain"), "GET", "any", "/x").unwrap();
    assert_eq!(status, 503);
    let line = &lines(&client, "log", 1)[0];
    assert!(line.contains("TLSV1_ALERT_UNKNOWN_CA"), "{line}");
    assert_eq!(server.stat(&format!("{PREFIX}.fail_verify_error")), 1);
}

#[test]
fn the_requests_host_is_the_server_name_where_the_cluster_says_so() {
    let root = Authority::new();
    let common = root.leaf("server", &["*.wild.test"]).certificates();
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ""),
        http_with(&access_log("log", "%REQUESTED_SERVER_NAME%"))
    );
    let server = proxy(secure_listener(&chain, ""), cluster("app", reflecting_upstream()));
    let client = client(
        &Program::Lateen,
        &server,
        &upstream(&root.validation(""), ", sni: fixed.test"),
        AUTO_SNI,
    );
    let address = client.listener("plain");
    let status = |host: &str| get(address, "GET", host, "/x").unwrap().0;
    assert_eq!(status("a.wild.test:80"), 200);
    assert_eq!(status("b.wild.test"), 200);
    assert_eq!(status("elsewhere.test"), 503);
    let asked = lines(&server, "log", 2);
    assert_eq!(asked, ["a.wild.test", "b.wild.test"]);
    let line = &lines(&client, "log", 3)[2];
    assert!(line.contains("expected_SANs:_[elsewhere.test]"), "{line}");
}

#[test]
fn a_tcp_proxy_passes_ends_on_through_tls_on_both_sides() {
    let root = Authority::new();
    let common = root.leaf("server", &["server.test"]).certificates();
    let chain = format!("{}, filters: {}", downstream(&common, ""), tcp_filters("app"));
    let server = proxy(secure_listener(&chain, ""), cluster("app", echo_upstream("app")));
    let client = proxy(
        listener("plain", &tcp_filters("app")),
        secure_cluster(
            server.listener("web"),
            &upstream(
                &root.validation(""),
                ", sni: server.test, auto_sni_san_validation: true",
            ),
            "",
        ),
    );
    let mut stream = connect(client.listener("plain")).unwrap();
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"app\n");
    let sent: Vec<u8> = (0..4 << 20).map(|i: u32| (i % 251) as u8).collect();
    let mut writing = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(&copy).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    writer.join().unwrap();
    assert!(answer == sent, "{} bytes of {}", answer.len(), sent.len());
    assert_eq!(client.stat("cluster.app.ssl.handshake"), 1);
}

#[test]
fn each_host_gets_the_transport_that_its_metadata_names() {
    let root = Authority::new();
    let common = root.leaf("server", &["server.test"]).certificates();
    let chain = format!("{}, filters: {}", downstream(&common, ""), tcp_filters("app"));
    let server = proxy(
        secure_listener(&chain, ""),
        cluster("app", echo_upstream("secured")),
    );
    let endpoint = |address: SocketAddr, mode: &str| {
        format!(
            "{{ endpoint: {{ address: {} }}, metadata: {{ filter_metadata: {{ envoy.transport_socket_match: {{ mode: {mode} }} }} }} }}",
            socket(address)
        )
    };
    let matches = format!(
        "[{{ name: tls, match: {{ mode: tls }}, {} }}, {{ name: plain, match: {{}} }}]",
        upstream(&root.validation(""), "")
    );
    let cluster = format!(
        "{{ name: app, type: STATIC, transport_socket_matches: {matches}, load_assignment: {{ cluster_name: app, \
         endpoints: [{{ lb_endpoints: [{}, {}] }}] }} }}",
        endpoint(server.listener("web"), "tls"),
        endpoint(echo_upstream("plain"), "none")
    );
    let client = proxy(listener("plain", &tcp_filters("app")), cluster);
    let address = client.listener("plain");
    let mut greetings: Vec<String> = (0..16)
        .map(|_| {
            let mut stream = connect(address).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
        .collect();
    greetings.sort();
    greetings.dedup();
    assert_eq!(greetings, ["plain\n", "secured\n"]);
}
