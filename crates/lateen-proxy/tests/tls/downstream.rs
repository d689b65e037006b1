//! TLS towards clients, against curl and OpenSSL.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::certificates::{Authority, downstream};
use crate::harness::{Proxy, bootstrap, cluster, connect, echo_upstream, eventually, socket, tcp_filters};
use crate::world::{PREFIX, access_log, http_with, lines, proxy, reflecting_upstream, secure_listener};

/// What curl gets; an empty answer when the connection fails.
fn curl(proxy: &Proxy, name: &str, arguments: &[&str]) -> String {
    let port = proxy.listener("web").port();
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "10", "--noproxy", "*"])
        .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
        .args(arguments)
        .arg(format!("https://{name}:{port}/path"))
        .current_dir(proxy.dir.path())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_is_served_over_tls_and_what_the_handshake_told_is_logged_and_counted() {
    let root = Authority::new();
    let log = "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %REQUESTED_SERVER_NAME% %DOWNSTREAM_LOCAL_DNS_SAN% \
               %DOWNSTREAM_LOCAL_SUBJECT% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%";
    let leaf = root.leaf("web", &["a.test"]);
    let common = format!("{}, alpn_protocols: [h2, http/1.1]", leaf.certificates());
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ""),
        http_with(&access_log("log", log))
    );
    let proxy = proxy(secure_listener(&chain, ""), cluster("app", reflecting_upstream()));
    std::fs::write(proxy.path("root.pem"), root.pem()).unwrap();
    let head = curl(&proxy, "a.test", &["--cacert", "root.pem", "--http2"]);
    assert!(head.starts_with("GET /path HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    curl(
        &proxy,
        "a.test",
        &["--cacert", "root.pem", "--tls-max", "1.2", "-o", "/dev/null"],
    );
    assert_eq!(
        lines(&proxy, "log", 2),
        [
            "TLSv1.3 TLS_AES_128_GCM_SHA256 a.test a.test CN=web - -",
            "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256 a.test a.test CN=web - -"
        ]
    );
    for (stat, value) in [
        ("handshake", 2),
        ("no_certificate", 2),
        ("versions.TLSv1.3", 1),
        ("ciphers.ECDHE-ECDSA-AES128-GCM-SHA256", 1),
        ("connection_error", 0),
    ] {
        assert_eq!(proxy.stat(&format!("{PREFIX}.{stat}")), value, "{stat}");
    }
    assert_eq!(proxy.stat("http.http.downstream_cx_ssl_total"), 2);
}

#[test]
fn a_clients_certificate_is_verified_forwarded_and_logged() {
    let root = Authority::new();
    let names = ", match_typed_subject_alt_names: [{ san_type: URI, matcher: { prefix: \"spiffe://td/\" } }]";
    let common = format!(
        "{}, {}",
        root.leaf("web", &["a.test", "spiffe://td/web"]).certificates(),
        root.validation(names)
    );
    let log = "%DOWNSTREAM_PEER_URI_SAN%|%DOWNSTREAM_PEER_SUBJECT%|%DOWNSTREAM_PEER_ISSUER%|%DOWNSTREAM_LOCAL_URI_SAN%";
    let fields = format!(
        ", forward_client_cert_details: APPEND_FORWARD, set_current_client_cert_details: {{ subject: true, uri: true }} {}",
        access_log("log", log)
    );
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ", require_client_certificate: true"),
        http_with(&fields)
    );
    let failed = access_log(
        "failed",
        "%FILTER_CHAIN_NAME% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    );
    let listener = secure_listener(&format!("name: chain, {chain}"), &failed);
    let proxy = proxy(listener, cluster("app", reflecting_upstream()));
    std::fs::write(proxy.path("root.pem"), root.pem()).unwrap();
    root.leaf("client", &["spiffe://td/client"])
        .write(proxy.dir.path(), "good");
    root.leaf("client", &["spiffe://other/client"])
        .write(proxy.dir.path(), "foreign");
    Authority::new()
        .leaf("client", &["spiffe://td/client"])
        .write(proxy.dir.path(), "forged");
    let with = |name: &str| {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        let forged = "x-forwarded-client-cert: By=x;Hash=y";
        let arguments = [
            "--cacert", "root.pem", "-H", forged, "--cert", &cert, "--key", &key,
        ];
        curl(&proxy, "a.test", &arguments)
    };
    let head = with("good");
    let field = head
        .lines()
        .find(|line| line.starts_with("x-forwarded-client-cert: "));
    let field = field.unwrap_or_else(|| panic!("{head}"));
    assert!(
        field.starts_with("x-forwarded-client-cert: By=x;Hash=y,By=spiffe://td/web;Hash="),
        "{field}"
    );
    assert!(
        field.ends_with(";Subject=\"CN=client\";URI=spiffe://td/client"),
        "{field}"
    );
    assert_eq!(
        lines(&proxy, "log", 1),
        ["spiffe://td/client|CN=client|CN=root|spiffe://td/web"]
    );
    assert_eq!(with("foreign"), "");
    assert_eq!(with("forged"), "");
    assert_eq!(curl(&proxy, "a.test", &["--cacert", "root.pem"]), "");
    for (stat, value) in [
        ("handshake", 1),
        ("fail_verify_san", 1),
        ("fail_verify_error", 1),
        ("fail_verify_no_cert", 1),
        ("connection_error", 0),
    ] {
        assert_eq!(proxy.stat(&format!("{PREFIX}.{stat}")), value, "{stat}");
    }
    let failed = lines(&proxy, "failed", 3);
    assert!(
        failed[0].contains("verify_cert_failed:_SAN_matcher,_certificate_SANs_are_[spiffe://other/client]"),
        "{failed:?}"
    );
    assert!(failed[1].contains("unable_to_get_local_issuer"), "{failed:?}");
    assert!(
        failed[2].starts_with("chain TLS_error:|268435648:SSL_routines:"),
        "{failed:?}"
    );
}

#[test]
fn a_forged_field_of_a_client_without_certificate_goes() {
    let root = Authority::new();
    let common = root.leaf("web", &["a.test"]).certificates();
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ""),
        http_with(", forward_client_cert_details: APPEND_FORWARD")
    );
    let proxy = proxy(secure_listener(&chain, ""), cluster("app", reflecting_upstream()));
    let head = curl(&proxy, "a.test", &["-k", "-H", "x-forwarded-client-cert: By=x"]);
    assert!(
        head.starts_with("GET ") && !head.contains("x-forwarded-client-cert"),
        "{head}"
    );
}

#[test]
fn what_is_not_tls_and_who_says_nothing_is_closed_and_counted() {
    let root = Authority::new();
    let chain = format!(
        "{}, transport_socket_connect_timeout: 0.2s, filters: {}",
        downstream(&root.leaf("web", &["a.test"]).certificates(), ""),
        tcp_filters("app").replacen(
            "stat_prefix: tcp",
            &format!(
                "stat_prefix: tcp {}",
                access_log(
                    "log",
                    "%DOWNSTREAM_TRANSPORT_FAILURE_REASON% %CONNECTION_TERMINATION_DETAILS%"
                )
            ),
            1
        )
    );
    let proxy = proxy(secure_listener(&chain, ""), cluster("app", echo_upstream("app")));
    let address = proxy.listener("web");
    let answer = |bytes: &[u8]| {
        let mut stream = connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    let plain = answer(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(!plain.starts_with(b"app"), "the upstream was reached");
    assert!(answer(b"").is_empty());
    let log = lines(&proxy, "log", 2);
    assert!(log[0].contains("WRONG_VERSION_NUMBER"), "{log:?}");
    assert_eq!(log[1], "- transport socket timeout was reached");
    assert_eq!(proxy.stat(&format!("{PREFIX}.connection_error")), 1);
    let timeouts = "listener.127.0.0.1_0.downstream_cx_transport_socket_connect_timeout";
    assert_eq!(proxy.stat(timeouts), 1);
    eventually("both connections are gone", || {
        (proxy.stat("listener.127.0.0.1_0.downstream_cx_active") == 0).then_some(())
    });
}

#[test]
fn the_bytes_that_an_inspector_has_read_come_first() {
    let root = Authority::new();
    let chains: Vec<String> = ["a", "b"]
        .iter()
        .map(|name| {
            let host = format!("{name}.test");
            let common = root.leaf(name, &[&host]).certificates();
            format!(
                "{{ filter_chain_match: {{ server_names: [{host}] }}, {}, filters: {} }}",
                downstream(&common, ""),
                tcp_filters(name)
            )
        })
        .collect();
    let listener = format!(
        "{{ name: web, address: {}, listener_filters: [{{ name: envoy.filters.listener.tls_inspector }}], \
         filter_chains: [{}] }}",
        socket("127.0.0.1:0".parse().unwrap()),
        chains.join(",")
    );
    let clusters = [cluster("a", echo_upstream("a")), cluster("b", echo_upstream("b"))];
    let proxy = Proxy::start(&bootstrap(&[listener], &clusters), &[]);
    proxy.wait_live();
    std::fs::write(proxy.path("root.pem"), root.pem()).unwrap();
    let address = proxy.listener("web").to_string();
    for name in ["a", "b"] {
        let host = format!("{name}.test");
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &address, "-servername", &host])
            .args([
                "-verify_hostname",
                &host,
                "-verify_return_error",
                "-CAfile",
                "root.pem",
            ])
            .current_dir(proxy.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"hello").unwrap();
        let mut answer = vec![0; 7];
        let read = child.stdout.take().unwrap().read_exact(&mut answer);
        drop(input);
        let _ = child.kill();
        let _ = child.wait();
        read.unwrap();
        assert_eq!(answer, format!("{name}\nhello").as_bytes());
    }
}

#[test]
fn a_closed_connection_ends_with_close_notify() {
    let root = Authority::new();
    let chain = format!(
        "{}, filters: {}",
        downstream(&root.leaf("web", &["a.test"]).certificates(), ""),
        http_with(", common_http_protocol_options: { idle_timeout: 0.1s }")
    );
    let proxy = proxy(secure_listener(&chain, ""), cluster("app", reflecting_upstream()));
    let address = proxy.listener("web").to_string();
    let output = Command::new("timeout")
        .args([
            "20", "openssl", "s_client", "-connect", &address, "-ign_eof", "-msg",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let notified = text
        .lines()
        .any(|line| line.starts_with("<<<") && line.contains("close_notify"));
    assert!(notified, "{text}");
    assert_eq!(proxy.stat("http.http.downstream_cx_idle_timeout"), 1);
    eventually("the connection is gone", || {
        (proxy.stat("http.http.downstream_cx_ssl_active") == 0).then_some(())
    });
}
