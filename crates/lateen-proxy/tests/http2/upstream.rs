//! Upstreams that speak HTTP/2.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;

use crate::harness::{Client, HTTP2, cluster_with, connect, eventually, get};
use crate::peer::{
    ask, client, eventually_async, http2_proxy, lines, proxy, receive, request, run, send, upstream,
};

#[test]
fn an_http1_client_is_served_by_an_http2_upstream() {
    let (proxy, _) = http2_proxy("", ", http_protocol_options: { enable_trailers: true }");
    let mut stream = connect(proxy.listener("web")).unwrap();
    stream
        .write_all(
            b"POST /echo?q HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\nkeep-alive: 1\r\n\
              transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n",
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("POST http://app.test/echo?q\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n"),
        "{answer}"
    );
    for gone in [
        "keep-alive",
        "connection: close\n",
        "transfer-encoding: chunked\n",
    ] {
        assert!(!answer.contains(gone), "{gone} went on: {answer}");
    }
    assert_eq!(lines(&proxy, 1), ["HTTP/1.1 HTTP/2 200 - via_upstream -"]);
}

#[test]
fn an_answer_that_ends_with_its_head_is_one_without_a_body_for_an_http1_client() {
    let (proxy, _) = http2_proxy("", "");
    let mut client = Client::connect(proxy.listener("web")).unwrap();
    for _ in 0..2 {
        assert_eq!(
            client.request("POST", "a", "/grpc/0").unwrap(),
            (200, String::new())
        );
    }
}

#[test]
fn lengths_of_an_http2_upstream_are_told_in_one_way() {
    let (proxy, _) = http2_proxy("", "");
    let exchange = |path: &str| {
        let mut stream = connect(proxy.listener("web")).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let empty = exchange("/empty");
    assert!(empty.contains("transfer-encoding: chunked\r\n"), "{empty}");
    assert!(
        !empty.contains("content-length") && empty.ends_with("\r\n\r\n0\r\n\r\n"),
        "{empty}"
    );
    let lengths = exchange("/lengths");
    assert!(lengths.starts_with("HTTP/1.1 502 "), "{lengths}");
}

#[test]
fn a_request_that_http2_cannot_say_is_no_failure_of_the_host() {
    let (proxy, upstream) = http2_proxy("", "");
    let exchange = |target: &str, host: &str| {
        let mut stream = connect(proxy.listener("web")).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let sloppy = exchange("/echo/`?q=<a>", "a");
    assert!(sloppy.contains("GET http://a/echo/%60?q=%3Ca%3E\n"), "{sloppy}");
    let answer = exchange("/echo", "a:1:2");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 1);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_rx_reset"), 0);
    let clusters = proxy.admin("GET", "/clusters");
    assert!(clusters.contains("::rq_error::0\n"), "{clusters}");
}

#[test]
fn requests_share_connections_up_to_the_hosts_limit() {
    let (proxy, upstream) = http2_proxy("", "");
    run(async {
        let mut client = client(proxy.listener("web")).await;
        // The first request makes the limit of the upstream, four streams, known.
        assert_eq!(
            ask(&mut client, request("GET", "/echo", &[]))
                .await
                .unwrap()
                .status,
            200
        );
        let hanging: Vec<_> = (0..6)
            .map(|_| client.send_request(request("GET", "/hang", &[]), true).unwrap())
            .collect();
        assert_eq!(
            ask(&mut client, request("GET", "/echo", &[]))
                .await
                .unwrap()
                .status,
            200
        );
        assert_eq!(upstream.connections.load(Ordering::SeqCst), 2);
        drop(hanging);
    });
    assert_eq!(proxy.stat("cluster.app.upstream_cx_http2_total"), 2);
    eventually("the streams are over", || {
        (proxy.stat("cluster.app.http2.streams_active") == 0).then_some(())
    });
}

#[test]
fn resets_are_told_and_retried_as_the_route_says() {
    let (proxy, _) = http2_proxy("", "");
    let address = proxy.listener("web");
    for (path, reason) in [
        ("/reset/2", "remote reset"),
        ("/reset/7", "remote refused stream reset"),
    ] {
        let (status, body) = get(address, "GET", "a", path).unwrap();
        assert_eq!(status, 503);
        assert!(body.ends_with(&format!("reset reason: {reason}")), "{body}");
    }
    assert!(
        get(address, "GET", "a", "/half").is_none(),
        "half an answer is none"
    );
    assert_eq!(
        lines(&proxy, 3),
        [
            "HTTP/1.1 HTTP/2 503 UR upstream_reset_before_response_started{remote_reset} -",
            "HTTP/1.1 HTTP/2 503 UR upstream_reset_before_response_started{remote_refused_stream_reset} -",
            "HTTP/1.1 HTTP/2 200 UR upstream_reset_after_response_started{remote_reset} -",
        ]
    );
    assert_eq!(proxy.stat("cluster.app.upstream_rq_rx_reset"), 3);
    let policy = ", retry_policy: { retry_on: refused-stream, num_retries: 3 }";
    let (proxy, upstream) = http2_proxy(policy, "");
    assert_eq!(
        get(proxy.listener("web"), "POST", "a", "/refuse/2").unwrap().0,
        200
    );
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 3);
    // Any other reset is not what that condition means.
    assert_eq!(get(proxy.listener("web"), "GET", "a", "/reset/2").unwrap().0, 503);
}

#[test]
fn a_retry_sends_body_and_trailers_again() {
    let policy = ", retry_policy: { retry_on: refused-stream, num_retries: 3 }";
    let (proxy, upstream) = http2_proxy(policy, "");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "5".parse().unwrap());
    let answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        let request = request("POST", "/refuse/2", &[]);
        send(&mut client, request, Some("hello".into()), Some(trailers))
            .await
            .unwrap()
    });
    assert!(answer.text().ends_with("\n\nhello"), "{}", answer.text());
    assert_eq!(answer.trailers.unwrap()["x-sum"], "5");
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 3);
}

#[test]
fn requests_wait_for_room_and_are_refused_when_too_many_wait() {
    let upstream = upstream();
    let cluster = cluster_with("app", upstream.address, HTTP2);
    let fields = cluster.strip_suffix('}').unwrap();
    let breakers = "circuit_breakers: { thresholds: [{ max_connections: 1, max_pending_requests: 1 }] }";
    let proxy = proxy(&format!("{fields}, {breakers} }}"), "", "");
    run(async {
        let mut client = client(proxy.listener("web")).await;
        assert_eq!(
            ask(&mut client, request("GET", "/echo", &[]))
                .await
                .unwrap()
                .status,
            200
        );
        let mut hanging: Vec<_> = (0..4)
            .map(|_| client.send_request(request("GET", "/hang", &[]), true).unwrap())
            .collect();
        let (waiting, _) = client.send_request(request("GET", "/echo", &[]), true).unwrap();
        eventually_async("the request waits", || {
            proxy.stat("cluster.app.upstream_rq_pending_active") == 1
        })
        .await;
        let refused = ask(&mut client, request("GET", "/echo", &[])).await.unwrap();
        assert_eq!(
            (refused.status, refused.field("x-envoy-overloaded")),
            (503, Some("true"))
        );
        // Room for one.
        hanging.pop();
        assert_eq!(receive(waiting).await.unwrap().status, 200);
    });
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_pending_overflow"), 1);
    assert!(lines(&proxy, 2)[1].contains("503 UO"), "{:?}", lines(&proxy, 2));
}

#[test]
fn the_end_of_a_connection_ends_its_requests_and_they_may_be_retried() {
    // The first connection ends when a request is on it, the others serve.
    let upstream = upstream();
    let first = std::sync::atomic::AtomicBool::new(true);
    let first = std::sync::Arc::new(first);
    let target = upstream.address;
    let relay = crate::harness::upstream_with(move |mut stream| {
        let mut upstream = connect(target).unwrap();
        if first.swap(false, Ordering::SeqCst) {
            // The preface, the settings and the head of a request, without an answer.
            let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
            let (mut got, mut block) = (0, [0; 4096]);
            while got < 100 {
                got += stream.read(&mut block).unwrap();
            }
            return;
        }
        let mut back = (upstream.try_clone().unwrap(), stream.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
        let _ = std::io::copy(&mut stream, &mut upstream);
    });
    let policy = ", retry_policy: { retry_on: reset, num_retries: 1 }";
    let proxy = proxy(&cluster_with("app", relay, HTTP2), policy, "");
    assert_eq!(get(proxy.listener("web"), "GET", "a", "/echo").unwrap().0, 200);
    assert_eq!(proxy.stat("cluster.app.upstream_cx_destroy_with_active_rq"), 1);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_retry_success"), 1);
}

#[test]
fn a_host_that_goes_away_finishes_and_gets_new_connections() {
    let (proxy, upstream) = http2_proxy("", "");
    let mut client = Client::connect(proxy.listener("web")).unwrap();
    for _ in 0..5 {
        assert_eq!(client.request("GET", "a", "/go").unwrap().0, 200);
    }
    assert!(upstream.connections.load(Ordering::SeqCst) > 1);
    assert!(proxy.stat("cluster.app.upstream_cx_close_notify") > 0);
}

#[test]
fn a_cluster_may_follow_its_clients() {
    let same = "use_downstream_protocol_config: { http_protocol_options: {}, http2_protocol_options: {} }";
    let upstream = upstream();
    let proxy = proxy(&cluster_with("app", upstream.address, same), "", "");
    run(async {
        let mut client = client(proxy.listener("web")).await;
        assert_eq!(
            ask(&mut client, request("GET", "/echo", &[]))
                .await
                .unwrap()
                .status,
            200
        );
    });
    // The upstream does not understand HTTP/1.
    assert_eq!(
        get(proxy.listener("web"), "GET", "a", "/echo").map_or(502, |(status, _)| status),
        502
    );
    assert_eq!(proxy.stat("cluster.app.upstream_cx_http2_total"), 1);
    assert_eq!(proxy.stat("cluster.app.upstream_cx_http1_total"), 1);
}

#[test]
fn connections_end_after_as_many_requests_as_they_may_carry_and_when_idle() {
    let upstream = upstream();
    let few = format!(
        "common_http_protocol_options: {{ max_requests_per_connection: 2, idle_timeout: 1s }}, {HTTP2}"
    );
    let proxy = proxy(&cluster_with("app", upstream.address, &few), "", "");
    let mut client = Client::connect(proxy.listener("web")).unwrap();
    for _ in 0..5 {
        assert_eq!(client.request("GET", "a", "/echo").unwrap().0, 200);
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 3);
    assert_eq!(proxy.stat("cluster.app.upstream_cx_max_requests"), 2);
    eventually("the idle connection is closed", || {
        (proxy.stat("cluster.app.upstream_cx_active") == 0).then_some(())
    });
    assert_eq!(proxy.stat("cluster.app.upstream_cx_idle_timeout"), 1);
}

#[test]
fn pings_find_out_that_a_host_is_gone() {
    let silent = crate::harness::upstream_with(|mut stream| {
        // It says its settings and nothing more.
        let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let options = "explicit_http_config: { http2_protocol_options: { connection_keepalive: { interval: 0.1s, timeout: \
                   0.1s } } }";
    let proxy = proxy(&cluster_with("app", silent, options), "", "");
    let (status, body) = get(proxy.listener("web"), "GET", "a", "/").unwrap();
    assert_eq!(status, 503);
    assert!(body.ends_with("reset reason: connection termination"), "{body}");
    assert_eq!(proxy.stat("cluster.app.http2.keepalive_timeout"), 1);
}

#[test]
fn a_host_that_was_silent_for_long_is_asked_when_there_is_a_new_request() {
    let silent = crate::harness::upstream_with(|mut stream| {
        // Settings, and an answer to the first stream; then nothing, not even to pings.
        let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let _ = stream.read(&mut [0; 4096]);
        std::thread::sleep(std::time::Duration::from_millis(50));
        let _ = stream.write_all(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let options = "explicit_http_config: { http2_protocol_options: { connection_keepalive: { \
                   connection_idle_interval: 0.1s, timeout: 0.1s } } }";
    let proxy = proxy(&cluster_with("app", silent, options), "", "");
    assert_eq!(get(proxy.listener("web"), "GET", "a", "/").unwrap().0, 200);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let (status, body) = get(proxy.listener("web"), "GET", "a", "/").unwrap();
    assert_eq!(status, 503);
    assert!(body.ends_with("reset reason: connection termination"), "{body}");
    assert_eq!(proxy.stat("cluster.app.http2.keepalive_timeout"), 1);
}

#[test]
fn mirrored_requests_reach_http2_clusters() {
    let mirror = ", request_mirror_policies: [{ cluster: app }]";
    let (proxy, upstream) = http2_proxy(mirror, "");
    assert_eq!(get(proxy.listener("web"), "POST", "a", "/echo").unwrap().0, 200);
    eventually("the copy has come", || {
        (upstream.requests.load(Ordering::SeqCst) == 2).then_some(())
    });
}
