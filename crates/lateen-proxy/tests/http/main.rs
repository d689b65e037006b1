//! The HTTP connection manager on the wire: raw bytes in, raw bytes out, against scripted upstreams.

mod framing;
#[path = "../harness/mod.rs"]
mod harness;
mod leaving;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use harness::{PATIENCE, Proxy, bootstrap, cluster, eventually, http_filters, listener};

/// Fields of a connection manager that believes what clients on this machine say about timeouts.
const FROM_INSIDE: &str = ", use_remote_address: true, internal_address_config: { cidr_ranges: [{ address_prefix: \
                           127.0.0.0, prefix_len: 8 }] }";

/// An upstream that plays `script` on each connection, with the connection's number; counts connections.
fn scripted(
    script: impl Fn(usize, &mut TcpStream) + Send + Sync + Clone + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            let script = script.clone();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || script(number, &mut stream));
        }
    });
    (address, count)
}

/// Reads until `end` has come, or the connection ended.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) && matches!(stream.read(&mut byte), Ok(1)) {
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn answer(stream: &mut TcpStream, body: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes());
}

/// A proxy whose route has these extra fields, and whose connection manager has those.
fn proxy(upstream: SocketAddr, route: &str, manager: &str) -> Proxy {
    let filters = http_filters("app")
        .replacen("cluster: app", &format!("cluster: app{route}"), 1)
        .replacen("stat_prefix: http", &format!("stat_prefix: http{manager}"), 1);
    let proxy = Proxy::start(
        &bootstrap(&[listener("web", &filters)], &[cluster("app", upstream)]),
        &[],
    );
    proxy.wait_live();
    proxy
}

fn connect(proxy: &Proxy) -> TcpStream {
    harness::connect(proxy.listener("web")).unwrap()
}

/// Sends bytes, closes the sending side and returns everything that comes back.
fn exchange(proxy: &Proxy, bytes: &str) -> String {
    let mut stream = connect(proxy);
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut response = String::new();
    let _ = stream.read_to_string(&mut response);
    response
}

#[test]
fn a_request_is_forwarded_with_envoys_header_manipulation() {
    let (upstream, _) = scripted(|_, stream| {
        let head = read_until(stream, "\r\n\r\n");
        answer(stream, &head);
    });
    let proxy = proxy(upstream, "", "");
    let response = exchange(
        &proxy,
        "GET /a?b HTTP/1.1\r\nHost: Shop\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nX-Hop: 2\r\nTE: gzip\r\n\
         x-envoy-internal: true\r\nX-Forwarded-Client-Cert: forged\r\nConnection: close, x-hop\r\n\r\n",
    );
    let (head, sent) = response.split_once("\r\n\r\n").unwrap();
    let sent: Vec<&str> = sent.lines().collect();
    assert_eq!(sent[..3], ["GET /a?b HTTP/1.1", "host: Shop", "x-mine: 1"]);
    assert!(
        sent.contains(&"x-forwarded-proto: http") && sent.contains(&"x-envoy-expected-rq-timeout-ms: 15000")
    );
    assert!(
        sent.iter()
            .any(|line| line.starts_with("x-request-id: ") && line.len() == 14 + 36),
        "{sent:?}"
    );
    for gone in [
        "keep-alive",
        "x-hop",
        "te:",
        "x-envoy-internal",
        "x-forwarded-client-cert",
        "connection",
    ] {
        assert!(
            !sent.iter().any(|line| line.starts_with(gone)),
            "{gone} went on: {sent:?}"
        );
    }
    assert!(
        head.contains("server: envoy") && head.contains("x-envoy-upstream-service-time: "),
        "{head}"
    );
    assert!(head.contains("connection: close"), "{head}");
}

#[test]
fn ambiguous_framing_is_refused_and_never_reaches_the_upstream() {
    let (upstream, connections) = scripted(|_, stream| answer(stream, "smuggled"));
    let proxy = proxy(upstream, "", "");
    for (fields, status) in [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "400"),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", "400"),
        ("Transfer-Encoding: gzip, chunked\r\n", "501"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "501",
        ),
        ("Content-Length: +3\r\n", "400"),
        ("X: a\rb\r\n", "400"),
        ("X: a\nContent-Length: 3\r\n", "400"),
        ("X : a\r\n", "400"),
        ("X: a\r\n b\r\n", "400"),
        ("Host: other\r\n", "400"),
    ] {
        let response = exchange(&proxy, &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nabc"));
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{fields:?}: {response}"
        );
        assert!(response.contains("connection: close"), "{fields:?}: {response}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert_eq!(proxy.stat("http.http.downstream_cx_protocol_error"), 10);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (upstream, connections) = scripted(|_, stream| {
        loop {
            let head = read_until(stream, "\r\n\r\n");
            let Some(path) = head.split(' ').nth(1) else {
                return;
            };
            answer(stream, path);
        }
    });
    let proxy = proxy(upstream, "", "");
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let all = [
        request("/1", ""),
        request("/2", ""),
        request("/3", "Connection: close\r\n"),
    ]
    .concat();
    let response = exchange(&proxy, &all);
    let bodies: Vec<&str> = response
        .split("\r\n\r\n")
        .skip(1)
        .map(|part| &part[..2])
        .collect();
    assert_eq!(bodies, ["/1", "/2", "/3"]);
    assert_eq!(
        connections.load(Ordering::SeqCst),
        1,
        "the upstream connection is used again"
    );
}

#[test]
fn a_reset_is_retried_with_the_same_body_on_another_connection() {
    let (upstream, connections) = scripted(|number, stream| {
        read_until(stream, "hello");
        if number > 0 {
            answer(stream, "second try");
        }
    });
    let proxy = proxy(
        upstream,
        ", retry_policy: { retry_on: reset, num_retries: 1 }",
        "",
    );
    let response = exchange(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    );
    assert!(response.ends_with("second try"), "{response}");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_retry"), 1);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_retry_success"), 1);
}

#[test]
fn an_upstream_that_closes_without_an_answer_gives_503_and_one_that_talks_rubbish_502() {
    let (upstream, _) = scripted(|number, stream| {
        read_until(stream, "\r\n\r\n");
        if number > 0 {
            let _ = stream.write_all(b"rubbish\r\n\r\n");
        }
    });
    let proxy = proxy(upstream, "", "");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let first = exchange(&proxy, request);
    assert!(first.starts_with("HTTP/1.1 503 "), "{first}");
    assert!(first.ends_with("reset reason: connection termination"), "{first}");
    let second = exchange(&proxy, request);
    assert!(second.starts_with("HTTP/1.1 502 "), "{second}");
    assert!(second.ends_with("reset reason: protocol error"), "{second}");
}

#[test]
fn a_route_timeout_gives_504() {
    let (upstream, _) = scripted(|_, stream| {
        read_until(stream, "never");
    });
    let proxy = proxy(upstream, ", timeout: 0.05s", "");
    let response = exchange(&proxy, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(
        response.starts_with("HTTP/1.1 504 ") && response.ends_with("upstream request timeout"),
        "{response}"
    );
    assert_eq!(proxy.stat("cluster.app.upstream_rq_timeout"), 1);
}

#[test]
fn the_upstream_is_let_go_when_the_client_has_gone() {
    let (sender, gone) = mpsc::sync_channel(64);
    let sender = parking_lot::Mutex::new(sender);
    let sender = Arc::new(sender);
    let (upstream, _) = scripted(move |_, stream| {
        read_until(stream, "\r\n\r\n");
        // The request has come; what follows can only be the end of the connection.
        sender.lock().send("request").unwrap();
        let ended = matches!(stream.read(&mut [0]), Ok(0) | Err(_));
        sender.lock().send(if ended { "end" } else { "bytes" }).unwrap();
    });
    let proxy = proxy(upstream, "", "");
    let mut stream = connect(&proxy);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(gone.recv_timeout(PATIENCE), Ok("request"));
    drop(stream);
    assert_eq!(gone.recv_timeout(PATIENCE), Ok("end"));
}

#[test]
fn an_upgrade_is_tunnelled_and_nothing_is_passed_on_before_the_101() {
    let (upstream, _) = scripted(|_, stream| {
        let head = read_until(stream, "\r\n\r\n");
        assert!(
            head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
            "{head}"
        );
        // What the client has sent already must not have come along.
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(50)))
            .unwrap();
        let early = stream.read(&mut [0; 16]).is_ok();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        );
        let _ = stream.write_all(if early { b"early " } else { b"late " });
        let heard = read_until(stream, "!");
        let _ = stream.write_all(heard.as_bytes());
    });
    let proxy = proxy(upstream, "", ", upgrade_configs: [{ upgrade_type: websocket }]");
    let mut stream = connect(&proxy);
    let request = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi ";
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    stream.write_all(b"there!").unwrap();
    assert_eq!(read_until(&mut stream, "!"), "late hi there!");
    drop(stream);
    let all = (
        request.len() + "there!".len(),
        head.len() + "late hi there!".len(),
    );
    harness::eventually("the bytes of both directions are counted", || {
        let bytes = |side: &str| proxy.stat(&format!("http.http.downstream_cx_{side}_bytes_total")) as usize;
        ((bytes("rx"), bytes("tx")) == all).then_some(())
    });
}

#[test]
fn chunked_bodies_go_both_ways() {
    let (upstream, _) = scripted(|_, stream| {
        let request = read_until(stream, "0\r\n\r\n");
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let echo = format!("{:x}\r\n{}\r\n0\r\n\r\n", body.len(), body);
        let _ = stream.write_all(echo.as_bytes());
    });
    let proxy = proxy(upstream, "", "");
    let mut stream = connect(&proxy);
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n")
        .unwrap();
    let head = read_until(&mut stream, "\r\n\r\n");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    // Extensions and trailers are not passed on.
    assert_eq!(
        read_until(&mut stream, "\r\n\r\n\r\n0\r\n\r\n"),
        "d\r\n3\r\nabc\r\n0\r\n\r\n\r\n0\r\n\r\n"
    );
}

#[test]
fn expect_100_continue_is_answered_by_the_proxy_unless_it_passes_it_on() {
    let (upstream, _) = scripted(|_, stream| {
        let head = read_until(stream, "\r\n\r\n");
        let expects = head.contains("expect: 100-continue");
        if expects {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        read_until(stream, "abc");
        answer(
            stream,
            if expects {
                "upstream was asked"
            } else {
                "proxy answered"
            },
        );
    });
    for (manager, body) in [
        ("", "proxy answered"),
        (", proxy_100_continue: true", "upstream was asked"),
    ] {
        let proxy = proxy(upstream, "", manager);
        let mut stream = connect(&proxy);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(
            read_until(&mut stream, "\r\n\r\n"),
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        stream.write_all(b"abc").unwrap();
        read_until(&mut stream, "\r\n\r\n");
        assert_eq!(read_until(&mut stream, body), body);
    }
}

#[test]
fn answers_of_the_proxys_own_say_how_often_it_tried() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let retries = ", retry_policy: { retry_on: connect-failure, num_retries: 2, retry_back_off: { base_interval: 0.001s } }";
    let count = "name: all, include_attempt_count_in_response: true";
    let filters = http_filters("app")
        .replacen("name: all", count, 1)
        .replacen("cluster: app", &format!("cluster: app{retries}"), 1)
        .replacen(
            "routes: [",
            "routes: [{ match: { path: /direct }, direct_response: { status: 200 } },\
             { match: { path: /full }, route: { cluster: full } },",
            1,
        );
    let closed = "{ max_connections: 0, max_pending_requests: 0, max_requests: 0 }";
    let full = cluster("full", nobody).replacen(
        "type: STATIC",
        &format!("type: STATIC, circuit_breakers: {{ thresholds: [{closed}] }}"),
        1,
    );
    let proxy = Proxy::start(
        &bootstrap(&[listener("web", &filters)], &[cluster("app", nobody), full]),
        &[],
    );
    proxy.wait_live();
    for (path, status, tries) in [
        ("/", "503", Some(3)),
        ("/full", "503", Some(1)),
        ("/direct", "200", None),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let response = exchange(&proxy, &request);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        let said = response
            .lines()
            .find_map(|line| line.strip_prefix("x-envoy-attempt-count: "));
        assert_eq!(said.map(|n| n.parse().unwrap()), tries, "{path}: {response}");
    }
}

#[test]
fn a_timeout_gives_204_when_the_request_asks_for_it() {
    let (upstream, _) = scripted(|_, stream| {
        read_until(stream, "never");
    });
    let proxy = proxy(upstream, ", timeout: 0.05s", FROM_INSIDE);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nx-envoy-upstream-rq-timeout-alt-response: 1\r\n\r\n";
    let response = exchange(&proxy, request);
    assert!(
        response.starts_with("HTTP/1.1 204 No Content\r\n") && response.ends_with("\r\n\r\n"),
        "{response}"
    );
    assert!(!response.contains("content-"), "{response}");
    assert_eq!(proxy.stat("cluster.app.upstream_rq_204"), 1);
}

#[test]
fn the_connection_ends_after_a_reply_that_came_before_the_whole_request() {
    let (upstream, _) = scripted(|_, stream| {
        read_until(stream, "\r\n\r\n");
        answer(stream, "early");
        read_until(stream, "never");
    });
    let filters = http_filters("app").replacen(
        "routes: [",
        "routes: [{ match: { path: /direct }, direct_response: { status: 200 } },",
        1,
    );
    let proxy = Proxy::start(
        &bootstrap(&[listener("web", &filters)], &[cluster("app", upstream)]),
        &[],
    );
    proxy.wait_live();
    // An answer that is given at once does not look at the body, even if it is here already.
    for (path, body) in [("/direct", ""), ("/direct", "hello"), ("/", ""), ("/", "he")] {
        let mut stream = connect(&proxy);
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(
            response.contains("connection: close\r\n"),
            "{path} {body:?}: {response}"
        );
    }
    let stat = "http.http.downstream_rq_response_before_rq_complete";
    assert_eq!(proxy.stat(stat), 4);
}

#[test]
fn the_connection_goes_on_after_a_failure_when_the_whole_request_had_come() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = proxy(nobody, "", "");
    let mut stream = connect(&proxy);
    for _ in 0..2 {
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
            .unwrap();
        let head = read_until(&mut stream, "\r\n\r\n");
        assert!(
            head.starts_with("HTTP/1.1 503 ") && !head.contains("connection: close"),
            "{head}"
        );
        read_until(&mut stream, "remote connection failure");
    }
}

#[test]
fn access_logs_count_bytes_and_times_of_every_side() {
    let (upstream, _) = scripted(|_, stream| {
        read_until(stream, "hello");
        answer(stream, "ok");
    });
    let log = ", access_log: [{ name: file, typed_config: { \"@type\": \
         type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: access.log, log_format: { \
         text_format_source: { inline_string: \"%DOWNSTREAM_HEADER_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_RECEIVED% \
         %UPSTREAM_HEADER_BYTES_RECEIVED% %UPSTREAM_WIRE_BYTES_RECEIVED% %REQUEST_DURATION% %REQUEST_TX_DURATION% \
         %RESPONSE_TX_DURATION% %DOWNSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_SENT%\\n\" } } } }]";
    let proxy = proxy(upstream, "", log);
    let mut stream = connect(&proxy);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n";
    stream.write_all(format!("{head}hello").as_bytes()).unwrap();
    let answered = read_until(&mut stream, "\r\n\r\n").len() + read_until(&mut stream, "ok").len();
    let line = harness::eventually("the line is written", || {
        std::fs::read_to_string(proxy.path("access.log"))
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    let fields: Vec<usize> = line
        .split_whitespace()
        .map(|field| field.parse().expect("a number"))
        .collect();
    // Envoy counts a received line end as one byte: `host: a` and `content-length: 5` are 8 and 18.
    assert_eq!(fields[..4], [26, head.len() + 5, 18, 40], "{line}");
    assert!(fields[4] <= fields[5], "a request is sent after it came: {line}");
    assert_eq!(fields[7], answered, "{line}");
    assert!(fields[8] > head.len() + 5, "fields are added on the way: {line}");
}

#[test]
fn what_an_earlier_proxy_expects_is_the_timeout_where_the_router_heeds_it() {
    let (upstream, _) = scripted(|_, stream| {
        read_until(stream, "never");
    });
    let filters = http_filters("app")
        .replacen("v3.Router", "v3.Router, respect_expected_rq_timeout: true", 1)
        .replacen("stat_prefix: http", &format!("stat_prefix: http{FROM_INSIDE}"), 1);
    let proxy = Proxy::start(
        &bootstrap(&[listener("web", &filters)], &[cluster("app", upstream)]),
        &[],
    );
    proxy.wait_live();
    let request =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nx-envoy-expected-rq-timeout-ms: 50\r\n\r\n";
    let response = exchange(&proxy, request);
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
}

#[test]
fn the_route_s_time_runs_while_a_request_waits_for_a_connection() {
    let (upstream, _) = scripted(|_, stream| {
        read_until(stream, "never");
    });
    let filters = http_filters("app").replacen(
        "routes: [",
        "routes: [{ match: { path: /short }, route: { cluster: app, timeout: 0.1s } },",
        1,
    );
    let one = "type: STATIC, circuit_breakers: { thresholds: [{ max_connections: 1 }] }";
    let app = cluster("app", upstream).replacen("type: STATIC", one, 1);
    let proxy = Proxy::start(
        &bootstrap(&[listener("web", &filters)], &[app]),
        &["--concurrency", "1"],
    );
    proxy.wait_live();
    let send = |path: &str| {
        let mut stream = connect(&proxy);
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let stat = |leaf: &str| proxy.stat(&format!("cluster.app.{leaf}"));
    let wait_for = |leaf: &str, value: u64| {
        eventually(leaf, || (stat(leaf) == value).then_some(()));
    };
    let _with_the_only_connection = send("/");
    wait_for("upstream_rq_active", 1);
    let response = read_until(&mut send("/short"), "\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
    wait_for("upstream_rq_cancelled", 1);
    assert_eq!(stat("upstream_rq_timeout"), 1);
    // A client that goes away meanwhile cancels its request too.
    let leaving = send("/");
    wait_for("upstream_rq_pending_active", 1);
    drop(leaving);
    wait_for("upstream_rq_cancelled", 2);
    assert_eq!(stat("upstream_rq_pending_active"), 0);
    assert_eq!(stat("upstream_rq_timeout"), 1);
}

/// What Istio sends of `istio.metadata_exchange`: inbound for one side, outbound for the other.
fn metadata_exchange(fields: &str) -> String {
    format!(
        "{{ name: istio.metadata_exchange, typed_config: {{ \"@type\": \
         type.googleapis.com/udpa.type.v1.TypedStruct, type_url: \
         type.googleapis.com/io.istio.http.peer_metadata.Config, value: {{ {fields} }} }} }}, "
    )
}

#[test]
fn proxies_tell_each_other_of_themselves_and_nobody_else() {
    let with_filter = |fields: &str, upstream: SocketAddr| {
        let filter = metadata_exchange(fields);
        let filters = http_filters("app").replacen("http_filters: [", &format!("http_filters: [{filter}"), 1);
        let proxy = Proxy::start(
            &bootstrap(&[listener("web", &filters)], &[cluster("app", upstream)]),
            &[],
        );
        proxy.wait_live();
        proxy
    };
    let discovery = "[{ istio_headers: {} }, { workload_discovery: {} }]";
    let (application, _) = scripted(|_, stream| {
        let head = read_until(stream, "\r\n\r\n");
        answer(stream, &head);
    });
    let server = with_filter(
        &format!("downstream_discovery: {discovery}, downstream_propagation: [{{ istio_headers: {{}} }}]"),
        application,
    );
    let client = with_filter(
        &format!("upstream_discovery: {discovery}, upstream_propagation: [{{ istio_headers: {{}} }}]"),
        server.listener("web"),
    );
    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let through_both = exchange(&client, REQUEST);
    assert!(through_both.starts_with("HTTP/1.1 200"), "{through_both}");
    assert!(
        !through_both.contains("x-envoy-peer-metadata"),
        "neither the application nor its client hears of it: {through_both}"
    );
    let told = "x-envoy-peer-metadata-id: other\r\nx-envoy-peer-metadata: AAAA\r\n";
    let asked = REQUEST.replace("host: a\r\n", &format!("host: a\r\n{told}"));
    let answered = exchange(&server, &asked);
    let (head, seen) = answered.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("x-envoy-peer-metadata-id: ") && head.contains("x-envoy-peer-metadata: "),
        "{head}"
    );
    assert!(!seen.contains("x-envoy-peer-metadata"), "{seen}");
    let untold = exchange(&server, REQUEST);
    assert!(!untold.contains("x-envoy-peer-metadata"), "{untold}");
    let directly = with_filter("upstream_propagation: [{ istio_headers: {} }]", application);
    let seen = exchange(&directly, REQUEST);
    assert!(
        seen.contains("x-envoy-peer-metadata-id: ") && seen.contains("x-envoy-peer-metadata: "),
        "{seen}"
    );
}
