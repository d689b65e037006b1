//! gRPC: statuses in headers and trailers, answers of our own, retries and deadlines.

use std::sync::atomic::Ordering;

use http::HeaderMap;

use crate::harness::cluster;
use crate::peer::{ask, client, http2_proxy, lines, proxy, request, run, send};

const CALL: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

#[test]
fn a_status_in_trailers_passes_and_is_logged() {
    let (proxy, _) = http2_proxy("", "");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "5".parse().unwrap());
    let answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        send(
            &mut client,
            request("POST", "/echo", &CALL),
            Some("m".into()),
            Some(trailers),
        )
        .await
    });
    assert_eq!(answer.unwrap().trailers.unwrap()["grpc-status"], "5");
    assert_eq!(lines(&proxy, 1), ["HTTP/2 HTTP/2 200 - via_upstream NotFound"]);
}

#[test]
fn answers_of_our_own_are_a_status_without_a_body() {
    let proxy = proxy(&cluster("app", "127.0.0.1:1".parse().unwrap()), "", "");
    let answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        ask(&mut client, request("POST", "/s/m", &CALL)).await.unwrap()
    });
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type"), Some("application/grpc"));
    assert_eq!(answer.field("grpc-status"), Some("14"));
    let message = answer.field("grpc-message").unwrap();
    assert!(
        message.ends_with("reset reason: remote connection failure"),
        "{message}"
    );
    assert_eq!((answer.field("content-length"), answer.body.len()), (None, 0));
}

#[test]
fn failures_are_retried_by_their_status() {
    for (condition, status) in [
        ("cancelled", 1),
        ("deadline-exceeded", 4),
        ("resource-exhausted", 8),
        ("internal", 13),
        ("unavailable", 14),
    ] {
        let policy = format!(", retry_policy: {{ retry_on: {condition}, num_retries: 2 }}");
        let (proxy, upstream) = http2_proxy(&policy, "");
        let path = format!("/grpc/{status}/2");
        let answer = run(async {
            let mut client = client(proxy.listener("web")).await;
            ask(&mut client, request("POST", &path, &CALL)).await.unwrap()
        });
        assert_eq!(answer.field("grpc-status"), Some("0"), "{condition}");
        assert_eq!(upstream.requests.load(Ordering::SeqCst), 3, "{condition}");
    }
    let (proxy, upstream) = http2_proxy(", retry_policy: { retry_on: unavailable }", "");
    let answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        ask(&mut client, request("POST", "/grpc/5/9", &CALL))
            .await
            .unwrap()
    });
    assert_eq!(answer.field("grpc-status"), Some("5"));
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_deadline_of_the_caller_ends_the_call() {
    let (proxy, _) = http2_proxy(", max_stream_duration: { grpc_timeout_header_max: 10s }", "");
    let answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        let fields = [CALL[0], CALL[1], ("grpc-timeout", "200m")];
        ask(&mut client, request("POST", "/hang", &fields)).await.unwrap()
    });
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")));
}

#[test]
fn a_deadline_is_counted_down_when_a_call_is_tried_again() {
    let route = ", max_grpc_timeout: 10s, retry_policy: { retry_on: unavailable, num_retries: 6, retry_back_off: { \
                 base_interval: 0.05s } }";
    let (proxy, upstream) = http2_proxy(route, "");
    let answer = run(async {
        let mut client = client(proxy.listener("web")).await;
        let fields = [CALL[0], CALL[1], ("grpc-timeout", "5S")];
        ask(&mut client, request("POST", "/grpc/14/6", &fields))
            .await
            .unwrap()
    });
    assert_eq!(answer.field("grpc-status"), Some("0"));
    assert_eq!(upstream.requests.load(Ordering::SeqCst), 7);
    let told = answer.field("x-timeout").and_then(|told| told.strip_suffix('m'));
    let told: u32 = told.and_then(|told| told.parse().ok()).expect("milliseconds");
    assert!((1..5000).contains(&told), "the last try was told {told} ms");
}
