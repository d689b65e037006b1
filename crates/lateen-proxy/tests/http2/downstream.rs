//! Clients that speak HTTP/2.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;

use crate::harness::{cluster, cluster_with, connect, eventually, http_upstream, upstream_with};
use crate::peer::{Answer, HTTP1, ask, client, http2_proxy, lines, proxy, receive, request, run, send};
use crate::raw::{END_HEADERS, END_STREAM, End, GET, HEADERS, end_after, frame, open};

/// An HTTP/1 upstream that answers with what it got, in chunks and with a trailer.
fn http1_upstream() -> std::net::SocketAddr {
    upstream_with(|mut stream| {
        let (mut got, mut block) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut block) {
            got.extend_from_slice(&block[..count]);
            let chunked = got.windows(7).any(|part| part == b"chunked");
            let ends = match chunked {
                true => got.ends_with(b"0\r\n\r\n") || got.ends_with(b"x-sum: 3\r\n\r\n"),
                false => got.ends_with(b"\r\n\r\n"),
            };
            if ends {
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n";
                let body = format!("{:x}\r\n", got.len());
                let end = "\r\n0\r\nx-end: yes\r\n\r\n";
                for part in [head.as_bytes(), body.as_bytes(), &got, end.as_bytes()] {
                    stream.write_all(part).unwrap();
                }
                got.clear();
            }
        }
    })
}

#[test]
fn a_request_reaches_an_http1_upstream_and_its_answer_comes_back() {
    let proxy = proxy(&cluster_with("app", http1_upstream(), HTTP1), "", "");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "3".parse().unwrap());
    let answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        let fields = [("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")];
        let request = request("POST", "/x?y", &fields);
        send(&mut client, request, Some("abc".into()), Some(trailers)).await
    });
    let answer = answer.unwrap();
    let text = answer.text();
    let sent: Vec<&str> = text.lines().collect();
    assert_eq!(sent[..2], ["POST /x?y HTTP/1.1", "host: app.test"]);
    for line in ["cookie: a=1; b=2", "te: trailers", "transfer-encoding: chunked"] {
        assert!(sent.contains(&line), "{line} is not in {text}");
    }
    assert!(text.ends_with("3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n"), "{text}");
    assert_eq!((answer.status, answer.field("connection")), (200, None));
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(answer.trailers.unwrap()["x-end"], "yes");
    assert_eq!(lines(&proxy, 1), ["HTTP/2 HTTP/1.1 200 - via_upstream -"]);
    assert_eq!(proxy.stat("http.http.downstream_cx_http2_total"), 1);
    assert_eq!(proxy.stat("http.http.downstream_cx_http1_total"), 0);
    assert_eq!(proxy.stat("http.http.downstream_rq_http2_total"), 1);
}

#[test]
fn requests_of_one_connection_do_not_wait_for_each_other() {
    let (proxy, _) = http2_proxy("", "");
    run(async {
        let mut client = client(proxy.listener("web")).await;
        let hanging: Vec<_> = (0..3)
            .map(|_| client.send_request(request("GET", "/hang", &[]), true).unwrap())
            .collect();
        let answer = ask(&mut client, request("GET", "/echo", &[])).await.unwrap();
        assert_eq!(answer.status, 200);
        drop(hanging);
        // Takes the resets along.
        assert!(ask(&mut client, request("GET", "/echo", &[])).await.is_ok());
    });
    // What a client gives up is given up towards the upstream too.
    let expected = "HTTP/2 HTTP/2 0 DR http2.remote_reset -";
    let given_up = lines(&proxy, 5);
    assert_eq!(
        given_up.iter().filter(|line| *line == expected).count(),
        3,
        "{given_up:?}"
    );
    assert_eq!(proxy.stat("cluster.app.upstream_rq_tx_reset"), 3);
    assert_eq!(proxy.stat("http.http.downstream_rq_rx_reset"), 3);
}

#[test]
fn large_bodies_flow_both_ways_however_small_the_windows() {
    let small = ", http2_protocol_options: { initial_stream_window_size: 65535, initial_connection_window_size: 65535 }";
    let (proxy, _) = http2_proxy("", small);
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        send(
            &mut client,
            request("POST", "/echo", &[]),
            Some(body.clone()),
            None,
        )
        .await
    });
    assert!(answer.unwrap().body.ends_with(&body));
}

#[test]
fn informational_responses_and_continue_come_first() {
    let (proxy, _) = http2_proxy("", ", proxy_100_continue: true");
    let (early, answer) = run(async {
        let mut client = client(proxy.listener("web")).await;
        let (mut response, _) = client.send_request(request("GET", "/early", &[]), true).unwrap();
        let early = std::future::poll_fn(|context| response.poll_informational(context)).await;
        (early.unwrap().unwrap(), receive(response).await.unwrap())
    });
    assert_eq!(
        (early.status().as_u16(), &early.headers()["link"]),
        (103, &"</style>".parse().unwrap())
    );
    assert_eq!(answer.status, 200);
    let (proxy, _) = http2_proxy("", "");
    let status = run(async {
        let mut client = client(proxy.listener("web")).await;
        let expecting = request("POST", "/echo", &[("expect", "100-continue")]);
        let (mut response, mut stream) = client.send_request(expecting, false).unwrap();
        let early = std::future::poll_fn(|context| response.poll_informational(context)).await;
        stream.send_data("now".into(), true).unwrap();
        let answer = receive(response).await.unwrap();
        assert!(!answer.text().contains("expect:"), "{}", answer.text());
        early.unwrap().unwrap().status()
    });
    assert_eq!(status.as_u16(), 100);
}

#[test]
fn answers_of_our_own_have_no_field_that_http2_forbids() {
    let proxy = proxy(&cluster("app", "127.0.0.1:1".parse().unwrap()), "", "");
    let answer: Answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        ask(&mut client, request("GET", "/", &[])).await.unwrap()
    });
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("remote connection failure"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.field("connection"), None);
}

#[test]
fn a_request_of_two_lengths_ends_its_stream() {
    let (proxy, upstream) = http2_proxy("", "");
    run(async {
        let mut client = client(proxy.listener("web")).await;
        let fields = [("content-length", "5"), ("content-length", "05")];
        let body = Some(Bytes::from_static(b"hello"));
        let sent = send(&mut client, request("POST", "/echo", &fields), body, None).await;
        assert_eq!(sent.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    });
    assert_eq!(lines(&proxy, 1), ["HTTP/2 - 0 DR http2.invalid.header.field -"]);
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_client_that_gives_up_is_noticed_while_its_host_takes_nothing() {
    let (proxy, _) = http2_proxy("", "");
    let in_flight = |count: u64| {
        eventually("the request is in flight, or no more", || {
            (proxy.stat("http.http.downstream_rq_active") == count).then_some(())
        });
    };
    run(async {
        let mut client = client(proxy.listener("web")).await;
        let (_response, mut stream) = client.send_request(request("POST", "/hang", &[]), false).unwrap();
        // Much more than the host and the proxy take before somebody reads.
        stream.send_data(vec![b'x'; 8 << 20].into(), false).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        in_flight(1);
        stream.send_reset(Reason::CANCEL);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        in_flight(0);
    });
    assert_eq!(lines(&proxy, 1), ["HTTP/2 HTTP/2 0 DR http2.remote_reset -"]);
}

#[test]
fn heads_beyond_the_limits_end_their_stream_alone() {
    let manager = ", max_request_headers_kb: 1, common_http_protocol_options: { max_headers_count: 10 }";
    let (proxy, _) = http2_proxy("", manager);
    run(async {
        let mut client = client(proxy.listener("web")).await;
        let large = "x".repeat(1100);
        let names: Vec<String> = (0..11).map(|number| format!("x-{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        for fields in [vec![("x-large", large.as_str())], many] {
            let error = ask(&mut client, request("GET", "/", &fields)).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        }
        assert_eq!(
            ask(&mut client, request("GET", "/", &[])).await.unwrap().status,
            200
        );
    });
    assert_eq!(
        lines(&proxy, 3)[..2],
        [
            "HTTP/2 - 0 DR http2.header_list_size_too_large -",
            "HTTP/2 - 0 DR http2.too_many_headers -"
        ]
    );
    assert_eq!(proxy.stat("http2.header_overflow"), 2);
}

#[test]
fn the_codec_follows_the_first_bytes_or_the_configuration() {
    let upstream = http_upstream("app");
    let both = proxy(&cluster("app", upstream), "", "");
    assert_eq!(
        crate::harness::get(both.listener("web"), "GET", "a", "/")
            .unwrap()
            .0,
        200
    );
    let status = run(async {
        let mut client = client(both.listener("web")).await;
        ask(&mut client, request("GET", "/", &[])).await.unwrap().status
    });
    assert_eq!(status, 200);
    let only_http1 = proxy(&cluster("app", upstream), "", ", codec_type: HTTP1");
    let mut stream = connect(only_http1.listener("web")).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let only_http2 = proxy(&cluster("app", upstream), "", ", codec_type: HTTP2");
    assert!(crate::harness::get(only_http2.listener("web"), "GET", "a", "/").is_none());
}

#[test]
fn a_connection_is_told_to_end_after_its_last_request_and_finishes_it() {
    let manager = ", common_http_protocol_options: { max_requests_per_connection: 2 }";
    let (proxy, upstream) = http2_proxy("", manager);
    run(async {
        let mut client = client(proxy.listener("web")).await;
        for _ in 0..2 {
            assert_eq!(
                ask(&mut client, request("GET", "/echo", &[]))
                    .await
                    .unwrap()
                    .status,
                200
            );
        }
        let mut refused = 0;
        while ask(&mut client, request("GET", "/echo", &[])).await.is_ok() {
            // The client has not heard of it yet.
            refused += 1;
            assert!(refused < 100, "the connection goes on");
        }
    });
    assert_eq!(proxy.stat("http.http.downstream_cx_max_requests_reached"), 1);
    assert_eq!(proxy.stat("http2.goaway_sent"), 1);
    eventually("the connection is over", || {
        (proxy.stat("http.http.downstream_cx_active") == 0).then_some(())
    });
    assert!(upstream.requests.load(Ordering::SeqCst) >= 2);
}

#[test]
fn a_client_that_does_not_react_to_the_end_is_closed_after_a_while() {
    let manager = ", drain_timeout: 0.3s, common_http_protocol_options: { max_requests_per_connection: 1 }";
    let (proxy, _) = http2_proxy("", manager);
    let began = std::time::Instant::now();
    // It answers no ping.
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, GET);
    let end = end_after(open(proxy.listener("web")), &head);
    assert_eq!(end, End::GoAway(0));
    assert!(began.elapsed() >= std::time::Duration::from_millis(300));
}

#[test]
fn connections_of_a_drained_listener_end_with_their_next_answer() {
    let (proxy, _) = http2_proxy("", "");
    run(async {
        let mut client = client(proxy.listener("web")).await;
        assert_eq!(
            ask(&mut client, request("GET", "/echo", &[]))
                .await
                .unwrap()
                .status,
            200
        );
        proxy.admin("POST", "/drain_listeners?graceful");
        // Immediate draining does not wait for chance.
        while let Ok(answer) = ask(&mut client, request("GET", "/echo", &[])).await {
            assert_eq!(answer.status, 200);
        }
    });
    assert_eq!(proxy.stat("http.http.downstream_cx_drain_close"), 1);
    assert_eq!(proxy.stat("http2.goaway_sent"), 1);
}

#[test]
fn idle_and_old_connections_are_told_to_end() {
    for (manager, counter) in [
        ("idle_timeout: 0.2s", "downstream_cx_idle_timeout"),
        (
            "max_connection_duration: 0.2s",
            "downstream_cx_max_duration_reached",
        ),
    ] {
        let manager = format!(", common_http_protocol_options: {{ {manager} }}");
        let (proxy, _) = http2_proxy("", &manager);
        run(async {
            let mut client = client(proxy.listener("web")).await;
            assert_eq!(
                ask(&mut client, request("GET", "/echo", &[]))
                    .await
                    .unwrap()
                    .status,
                200
            );
            // Ready fails once the connection is over.
            while client.clone().ready().await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        assert_eq!(proxy.stat(&format!("http.http.{counter}")), 1);
        eventually("the connection is over", || {
            (proxy.stat("http.http.downstream_cx_active") == 0).then_some(())
        });
    }
}

#[test]
fn a_stream_that_is_idle_for_too_long_is_answered_and_others_go_on() {
    let (proxy, _) = http2_proxy("", ", stream_idle_timeout: 0.6s");
    run(async {
        let mut client = client(proxy.listener("web")).await;
        let answer = ask(&mut client, request("GET", "/hang", &[])).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (504, "stream timeout"));
        assert_eq!(
            ask(&mut client, request("GET", "/echo", &[]))
                .await
                .unwrap()
                .status,
            200
        );
    });
    assert_eq!(lines(&proxy, 1)[0], "HTTP/2 HTTP/2 504 SI stream_idle_timeout -");
}
