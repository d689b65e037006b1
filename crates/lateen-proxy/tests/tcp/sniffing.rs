//! Listener filters in front of chains as Istio sets them up for PERMISSIVE workloads: what comes first decides, and who
//! waits for the server's first word gets it when the time is over.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::program::{Program, on_both};
use crate::harness::{Proxy, bootstrap, cluster, connect, echo_upstream, lines};
use crate::world::{chain, listener_with, tcp};

/// How long listener filters may wait.
const FILTERS_TIMEOUT: Duration = Duration::from_millis(300);
/// Time between two parts of what a client sends.
const GAP: Duration = Duration::from_millis(20);

/// The chains of a PERMISSIVE inbound listener, each to an upstream that greets with the chain's name.
fn chains() -> Vec<String> {
    let chain = |matched: &str, name: &str| chain(matched, &tcp(name, "", "%UPSTREAM_CLUSTER%"));
    vec![
        chain(
            "transport_protocol: tls, application_protocols: [istio-http/1.0, istio-http/1.1, istio-h2]",
            "mesh_http",
        ),
        chain(
            "transport_protocol: raw_buffer, application_protocols: [http/1.0, http/1.1, h2c]",
            "http",
        ),
        chain(
            "transport_protocol: tls, application_protocols: [istio-peer-exchange, istio]",
            "mesh_tcp",
        ),
        chain("transport_protocol: raw_buffer", "tcp"),
        chain("transport_protocol: tls", "tls"),
    ]
}

/// A proxy with these settings of the listener.
fn permissive(program: &Program, settings: &str) -> Proxy {
    let filters = "listener_filters: [{ name: tls, typed_config: { \"@type\": \
                   type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector, \
                   initial_read_buffer_size: 512 } }, { name: http, typed_config: { \"@type\": \
                   type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector } }]";
    let listener = listener_with("l", &chains(), &format!(", {filters}, {settings}"));
    let clusters = ["mesh_http", "http", "mesh_tcp", "tcp", "tls"];
    let clusters = clusters.map(|name| cluster(name, echo_upstream(name)));
    program.launch(&bootstrap(&[listener], &clusters))
}

/// Sends these parts; what greets, and after how long. Nothing when the connection is closed.
fn greeting(address: SocketAddr, parts: &[&[u8]]) -> Option<(String, Duration)> {
    let mut stream = connect(address).unwrap();
    let start = Instant::now();
    for part in parts {
        // Who is closed meanwhile is told by the read.
        let _ = stream.write_all(part);
        sleep(GAP);
    }
    let mut name = Vec::new();
    let mut byte = [0];
    while !name.ends_with(b"\n") {
        match stream.read(&mut byte) {
            Ok(1) => name.push(byte[0]),
            _ => return None,
        }
    }
    let took = start.elapsed();
    // Everything that was looked at is passed on.
    stream.shutdown(Shutdown::Write).unwrap();
    let mut echo = Vec::new();
    stream.read_to_end(&mut echo).unwrap();
    assert_eq!(echo, parts.concat());
    name.pop();
    Some((String::from_utf8(name).unwrap(), took))
}

/// Who greets at once: where there is no timeout nobody would, later.
fn at_once(address: SocketAddr, parts: &[&[u8]]) -> String {
    greeting(address, parts).expect("somebody greets").0
}

/// Who greets when the time is over, if anybody does.
fn in_time(address: SocketAddr, parts: &[&[u8]]) -> Option<String> {
    let (name, took) = greeting(address, parts)?;
    // Envoy's timers may be early by some of their ticks.
    assert!(took + GAP >= FILTERS_TIMEOUT, "{name} took {took:?}");
    Some(name)
}

/// A ClientHello with a server name, application protocols, and padding of so many bytes.
fn client_hello(alpn: &[&str], padding: usize) -> Vec<u8> {
    let vector = |width: usize, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[4 - width..], body].concat()
    };
    let extension = |kind: u8, body: &[u8]| [&[0, kind][..], &vector(2, body)].concat();
    let name = [&[0][..], &vector(2, b"a.test")].concat();
    let protocols: Vec<u8> = alpn.iter().flat_map(|name| vector(1, name.as_bytes())).collect();
    let mut extensions = extension(0, &vector(2, &name));
    if !alpn.is_empty() {
        extensions.extend(extension(16, &vector(2, &protocols)));
    }
    extensions.extend(extension(21, &vec![0; padding]));
    let start = [&[3, 3][..], &[1; 32], &[0], &vector(2, &[0x13, 1]), &[1, 0]].concat();
    let body = [start, vector(2, &extensions)].concat();
    let message = [&[1][..], &vector(3, &body)].concat();
    let record = |part: &[u8]| [&[22, 3, 1][..], &vector(2, part)].concat();
    message.chunks(16_000).flat_map(record).collect()
}

const HTTP: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const GARBAGE: &[u8] = b"\0\x01\x02hello";

fn what_can_be_told_at_once(address: SocketAddr) {
    let hello = client_hello(&[], 200);
    assert_eq!(at_once(address, &[&hello]), "tls");
    let split: Vec<&[u8]> = hello.chunks(60).collect();
    assert_eq!(at_once(address, &split), "tls");
    assert_eq!(at_once(address, &[&client_hello(&["istio"], 0)]), "mesh_tcp");
    assert_eq!(
        at_once(address, &[&client_hello(&["istio-peer-exchange", "istio"], 0)]),
        "mesh_tcp"
    );
    let of_requests = client_hello(&["istio-http/1.1", "istio", "http/1.1"], 0);
    assert_eq!(at_once(address, &[&of_requests]), "mesh_http");
    assert_eq!(at_once(address, &[HTTP]), "http");
    assert_eq!(at_once(address, &[&HTTP[..5], &HTTP[5..]]), "http");
    assert_eq!(at_once(address, &[GARBAGE]), "tcp");
    // Longer than BoringSSL takes: another protocol.
    assert_eq!(at_once(address, &[&client_hello(&[], 16_384)]), "tcp");
    assert_eq!(at_once(address, &[&client_hello(&[], 15_000)]), "tls");
    assert_eq!(at_once(address, &[b"\x16\x03\x01\0\x05hello"]), "tcp");
}

#[test]
fn what_can_be_told_at_once_does_not_wait() {
    on_both("what_can_be_told_at_once_does_not_wait", |program| {
        let proxy = permissive(program, "listener_filters_timeout: 0s");
        what_can_be_told_at_once(proxy.listener("l"));
        for (stat, times) in [
            ("tls_inspector.tls_found", 6),
            ("tls_inspector.tls_not_found", 5),
            ("tls_inspector.alpn_found", 3),
            ("tls_inspector.alpn_not_found", 3),
            ("tls_inspector.sni_found", 6),
            ("http_inspector.http11_found", 2),
            ("http_inspector.http_not_found", 3),
        ] {
            assert_eq!(proxy.stat(stat), times, "{stat}");
        }
    });
}

#[test]
fn what_looks_like_a_request_is_left_to_the_codec_to_judge() {
    on_both(
        "what_looks_like_a_request_is_left_to_the_codec_to_judge",
        |program| {
            let proxy = permissive(program, "listener_filters_timeout: 0s");
            for line in [
                "M-SEARCH * HTTP/1.1",
                "FOO-BAR_9 / HTTP/1.1",
                "get / HTTP/1.0",
                "GET / HTTP/2.0",
                "GET /",
                "GET  /\tHTTP/1.1",
                "GET http://a/ HTTP/1.1",
                "CONNECT a:1 HTTP/1.1",
            ] {
                let found = at_once(proxy.listener("l"), &[line.as_bytes(), b"\r\n"]);
                assert_eq!(found, "http", "{line}");
            }
            for line in [
                "FOO",
                "A{ / HTTP/1.1",
                "EHLO x",
                "GET x HTTP/1.1",
                "GET / x HTTP/1.1",
                "GET / http/1.1",
                "GET",
            ] {
                let found = at_once(proxy.listener("l"), &[line.as_bytes(), b"\r\n"]);
                assert_eq!(found, "tcp", "{line}");
            }
        },
    );
}

#[test]
fn who_waits_for_the_servers_first_word_gets_it_when_the_time_is_over() {
    on_both(
        "who_waits_for_the_servers_first_word_gets_it_when_the_time_is_over",
        |program| {
            let settings = "listener_filters_timeout: 0.3s, continue_on_listener_filters_timeout: true";
            let proxy = permissive(program, settings);
            let address = proxy.listener("l");
            let hello = client_hello(&["istio"], 0);
            for parts in [&[][..], &[&HTTP[..5]], &[&hello[..40]], &[b"\x16"]] {
                assert_eq!(in_time(address, parts).as_deref(), Some("tcp"), "{parts:?}");
            }
            assert_eq!(proxy.stat("listener.127.0.0.1_0.downstream_pre_cx_timeout"), 4);
        },
    );
}

#[test]
fn who_sends_too_little_in_time_is_closed_unless_the_listener_says_otherwise() {
    let test = "who_sends_too_little_in_time_is_closed_unless_the_listener_says_otherwise";
    on_both(test, |program| {
        let proxy = permissive(program, "listener_filters_timeout: 0.3s");
        let address = proxy.listener("l");
        for parts in [&[][..], &[&HTTP[..5]], &[b"\x16"]] {
            assert_eq!(in_time(address, parts), None, "{parts:?}");
        }
        assert_eq!(proxy.stat("listener.127.0.0.1_0.downstream_pre_cx_timeout"), 3);
    });
}

#[test]
fn without_a_timeout_nobody_speaks_first() {
    on_both("without_a_timeout_nobody_speaks_first", |program| {
        let proxy = permissive(program, "listener_filters_timeout: 0s");
        let mut silent = connect(proxy.listener("l")).unwrap();
        silent.set_read_timeout(Some(2 * FILTERS_TIMEOUT)).unwrap();
        let waited = silent.read(&mut [0]).unwrap_err();
        assert_eq!(waited.kind(), std::io::ErrorKind::WouldBlock);
        silent.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
        silent.write_all(GARBAGE).unwrap();
        let mut name = [0; 4];
        silent.read_exact(&mut name).unwrap();
        assert_eq!(&name, b"tcp\n");
    });
}

#[test]
fn a_hello_of_very_many_records_is_closed() {
    on_both("a_hello_of_very_many_records_is_closed", |program| {
        let proxy = permissive(program, "listener_filters_timeout: 0s");
        let hello = client_hello(&[], 4000);
        let drops: Vec<u8> = hello[5..]
            .iter()
            .flat_map(|byte| [22, 3, 1, 0, 1, *byte])
            .collect();
        assert_eq!(greeting(proxy.listener("l"), &[&drops]), None);
        assert_eq!(proxy.stat("tls_inspector.client_hello_too_large"), 1);
    });
}

#[test]
fn the_server_name_may_be_the_name_of_the_cluster() {
    on_both("the_server_name_may_be_the_name_of_the_cluster", |program| {
        let by_name = "[{ name: sni, typed_config: { \"@type\": \
                       type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster } }, ";
        let filters = tcp("other", "", "%UPSTREAM_CLUSTER% %RESPONSE_FLAGS%").replacen('[', by_name, 1);
        let inspector = "listener_filters: [{ name: tls, typed_config: { \"@type\": \
                         type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector } }]";
        let listener = listener_with("l", &[chain("", &filters)], &format!(", {inspector}"));
        let clusters = ["a.test", "other"].map(|name| cluster(name, echo_upstream(name)));
        let proxy = program.launch(&bootstrap(&[listener], &clusters));
        let address = proxy.listener("l");
        assert_eq!(at_once(address, &[&client_hello(&[], 0)]), "a.test");
        assert_eq!(at_once(address, &[GARBAGE]), "other");
        let unknown: Vec<u8> = client_hello(&[], 0)
            .iter()
            .map(|byte| if *byte == b'a' { b'b' } else { *byte })
            .collect();
        assert_eq!(greeting(address, &[&unknown]), None);
        assert_eq!(lines(&proxy, "log", 3)[2], "- NC");
    });
}
