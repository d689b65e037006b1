//! `envoy.filters.http.grpc_stats` and `envoy.filters.http.grpc_web`, on our proxy and on Envoy.

use std::io::{Read as _, Write as _};

use http::HeaderMap;

use crate::harness::program::{Program, on_both};
use crate::harness::{HTTP2, Proxy, access_log, cluster, cluster_with, connect, eventually, lines, listener};
use crate::peer::{ask, client, filters, request, run, send, upstream};

const CALL: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// Two messages.
const BODY: &[u8] = b"\0\0\0\0\x03abc\0\0\0\0\0";

const WEB: &str = "{ name: web, typed_config: { \"@type\": \
                   type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb } }, ";

fn stats(fields: &str) -> String {
    format!(
        "{{ name: stats, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, {fields} }} }}, "
    )
}

fn start(program: &Program, cluster: String, before_router: &str) -> Proxy {
    let messages = access_log("messages", "%FILTER_STATE(envoy.filters.http.grpc_stats:PLAIN)%");
    let filters = filters("", "")
        .replacen("http_filters: [", &format!("http_filters: [{before_router}"), 1)
        .replacen(
            ", access_log: [",
            &format!(", {}, ", messages.trim_start_matches(", ").trim_end_matches(']')),
            1,
        );
    program.start(listener("web", &filters), cluster)
}

fn grpc_upstream() -> String {
    cluster_with("app", upstream().address, HTTP2)
}

fn count(proxy: &Proxy, name: &str, expected: u64) {
    eventually(name, || (proxy.stat(name) == expected).then_some(()));
}

#[test]
fn calls_statuses_and_messages_are_counted_on_the_cluster() {
    on_both("calls_statuses_and_messages_are_counted", |program| {
        let proxy = start(
            program,
            grpc_upstream(),
            &stats("emit_filter_state: true, stats_for_all_methods: false"),
        );
        run(async {
            let mut client = client(proxy.listener("web")).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "5".parse().unwrap());
            let call = request("POST", "/echo/method", &CALL);
            send(&mut client, call, Some(BODY.into()), Some(trailers))
                .await
                .unwrap();
            ask(&mut client, request("POST", "/grpc/0", &CALL)).await.unwrap();
            // Neither is a call.
            ask(&mut client, request("POST", "/grpc/0/more", &CALL))
                .await
                .unwrap();
            ask(&mut client, request("GET", "/echo/method", &[]))
                .await
                .unwrap();
        });
        for (name, expected) in [
            ("total", 2),
            ("success", 1),
            ("failure", 1),
            ("0", 1),
            ("5", 1),
            ("request_message_count", 2),
        ] {
            count(&proxy, &format!("cluster.app.grpc.{name}"), expected);
        }
        assert_eq!(lines(&proxy, "messages", 4)[0], "2,0");
        assert_eq!(lines(&proxy, "messages", 4)[3], "-");
    });
}

#[test]
fn methods_have_statistics_of_their_own_where_that_is_asked_for() {
    on_both("methods_have_statistics_of_their_own", |program| {
        let listed =
            "individual_method_stats_allowlist: { services: [{ name: grpc, method_names: [\"0\"] }] }";
        let proxy = start(program, grpc_upstream(), &stats(listed));
        run(async {
            let mut client = client(proxy.listener("web")).await;
            for path in ["/grpc/0", "/grpc/14"] {
                ask(&mut client, request("POST", path, &CALL)).await.unwrap();
            }
        });
        count(&proxy, "cluster.app.grpc.grpc.0.success", 1);
        count(&proxy, "cluster.app.grpc.failure", 1);
        count(&proxy, "cluster.app.grpc.success", 0);
    });
}

#[test]
fn answers_of_our_own_are_calls_that_failed() {
    on_both("answers_of_our_own_are_calls_that_failed", |program| {
        let nobody = cluster("app", "127.0.0.1:1".parse().unwrap());
        let proxy = start(program, nobody, &stats("stats_for_all_methods: false"));
        run(async {
            let mut client = client(proxy.listener("web")).await;
            ask(&mut client, request("POST", "/s/m", &CALL)).await.unwrap();
        });
        count(&proxy, "cluster.app.grpc.14", 1);
        count(&proxy, "cluster.app.grpc.failure", 1);
    });
}

/// What a browser gets for a call, its head and its body.
fn call(proxy: &Proxy, path: &str, content_type: &str, more: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = connect(proxy.listener("web")).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {content_type}\r\n{more}\
         content-length: {}\r\n\r\n",
        body.len()
    );
    // At once: what comes after an answer that did not wait for it would reset the connection.
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer[end..].to_vec())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// An upstream that says what came of it: gRPC with the request's body as answer.
fn web_upstream() -> String {
    cluster_with("app", crate::grpc_echo::start(), HTTP2)
}

#[test]
fn a_browser_calls_and_gets_its_trailers_in_the_body() {
    on_both("a_browser_calls_and_gets_its_trailers_in_the_body", |program| {
        let proxy = start(program, web_upstream(), WEB);
        let (head, body) = call(&proxy, "/s/m", "application/grpc-web", "", BODY);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains("content-type: application/grpc-web+proto\r\n"),
            "{head}"
        );
        assert!(
            head.contains("x-asked: application/grpc trailers identity\r\n"),
            "{head}"
        );
        assert!(contains(&body, BODY), "{body:?}");
        let trailers = b"\x80\0\0\0\x31grpc-status:0\r\ngrpc-message:well done\r\nx-more:1\r\n";
        assert!(contains(&body, trailers), "{}", String::from_utf8_lossy(&body));
        count(&proxy, "cluster.app.grpc-web.s.m.success", 1);
    });
}

#[test]
fn a_browser_that_wants_text_gets_it() {
    on_both("a_browser_that_wants_text_gets_it", |program| {
        let proxy = start(program, web_upstream(), WEB);
        let accept = "accept: application/grpc-web-text\r\n";
        let (head, body) = call(
            &proxy,
            "/s/m",
            "application/grpc-web-text",
            accept,
            b"AAAAAANhYmMAAAAAAA==",
        );
        assert!(
            head.contains("content-type: application/grpc-web-text+proto\r\n"),
            "{head}"
        );
        assert!(
            contains(&body, b"AAAAAANhYmM=AAAAAAA="),
            "{}",
            String::from_utf8_lossy(&body)
        );
        let (head, _) = call(&proxy, "/s/m", "application/grpc-web-text", "", b"!!!!");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(
            head.contains("grpc-message: Bad gRPC-web request, invalid base64 data.\r\n"),
            "{head}"
        );
    });
}

#[test]
fn a_browser_is_told_of_failures_as_a_status() {
    on_both("a_browser_is_told_of_failures_as_a_status", |program| {
        let proxy = start(program, web_upstream(), WEB);
        let (head, body) = call(&proxy, "/not/grpc", "application/grpc-web", "", BODY);
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for field in [
            "grpc-status: 14\r\n",
            "grpc-message: 100%25 sorry\r\n",
            "content-length: 0\r\n",
        ] {
            assert!(head.contains(field), "{field} is not in {head}");
        }
        assert!(body.is_empty());
        let nobody = cluster("app", "127.0.0.1:1".parse().unwrap());
        let proxy = start(program, nobody, WEB);
        let (head, _) = call(&proxy, "/s/m", "application/grpc-web", "", BODY);
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(
            head.contains("content-type: application/grpc-web+proto\r\n"),
            "{head}"
        );
        assert!(head.contains("grpc-status: 14\r\n"), "{head}");
    });
}

#[test]
fn other_requests_pass_as_they_are() {
    on_both("other_requests_pass_as_they_are", |program| {
        let proxy = start(program, web_upstream(), WEB);
        run(async {
            let mut client = client(proxy.listener("web")).await;
            let call = request("POST", "/s/m", &CALL);
            let answer = send(&mut client, call, Some(BODY.into()), None).await.unwrap();
            assert_eq!(answer.field("content-type"), Some("application/grpc"));
            assert_eq!(answer.body, BODY);
            assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
        });
        assert_eq!(proxy.stat("cluster.app.grpc-web.s.m.total"), 0);
    });
}
