//! The HTTP connection manager on the wire: raw bytes in, raw bytes out, against scripted upstreams.

mod harness;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use harness::{PATIENCE, Proxy, bootstrap, cluster, http_filters, listener};

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
