//! WebSocket and CONNECT, over each version of HTTP on either side: what passes, what is refused, and when nothing may
//! pass yet. The same on Envoy, as far as it keeps a tunnel that one side has finished with.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};

use crate::harness::program::{Program, on_both};
use crate::harness::{
    HTTP2, PATIENCE, Proxy, cluster, cluster_with, connect, eventually, listener, upstream_with,
};
use crate::peer::{filters, lines, run};

const UPGRADES: &str = ", upgrade_configs: [{ upgrade_type: websocket }, { upgrade_type: CONNECT }], \
                        http2_protocol_options: { allow_connect: true }";

/// How long nobody may hear of what was sent too early.
const EARLY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    WebSocket,
    Connect,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Speaks {
    Http1,
    Http2,
}

/// An upstream that agrees, says `hello `, then returns what it gets, and `bye` when there is nothing more.
fn upstream(speaks: Speaks) -> SocketAddr {
    match speaks {
        Speaks::Http1 => upstream_with(|mut stream| {
            let Some(head) = read_head(&mut stream) else {
                return;
            };
            stream.set_read_timeout(Some(EARLY)).unwrap();
            let is_early = stream.read(&mut [0; 16]).is_ok();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let answer = if head.starts_with("CONNECT app.test:443 HTTP/1.1\r\n") {
                "HTTP/1.1 200 OK\r\n\r\n"
            } else if head.starts_with("GET /chat ") && head.contains("upgrade: websocket\r\n") {
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
            } else {
                "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
            };
            let greeting = if is_early { "too early " } else { "hello " };
            let _ = stream.write_all(format!("{answer}{greeting}").as_bytes());
            let mut reading = stream.try_clone().unwrap();
            let _ = std::io::copy(&mut reading, &mut stream);
            let _ = stream.write_all(b"bye");
        }),
        Speaks::Http2 => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve_http2(stream));
                    }
                });
            });
            address
        }
    }
}

async fn serve_http2(stream: tokio::net::TcpStream) {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let protocol = request
                .extensions()
                .get::<Protocol>()
                .map(|p| p.as_str().to_owned());
            let asked = (request.method() == Method::CONNECT, protocol.as_deref());
            let is_fine = match asked {
                (true, Some("websocket")) => request.uri().path() == "/chat",
                (true, None) => request.uri().authority().is_some_and(|a| a == "app.test:443"),
                _ => false,
            };
            let status = if is_fine { 200 } else { 400 };
            let mut body = request.into_body();
            let is_early = tokio::time::timeout(EARLY, body.data()).await.is_ok();
            let response = Response::builder().status(status).body(()).unwrap();
            let Ok(mut sending) = respond.send_response(response, false) else {
                return;
            };
            let greeting: &[u8] = if is_early { b"too early " } else { b"hello " };
            let mut sent = sending.send_data(greeting.into(), false);
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                sent = sent.and_then(|()| sending.send_data(piece, false));
            }
            // Whoever has reset the stream knows.
            let _ = sent.and_then(|()| sending.send_data("bye".into(), true));
        });
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end.as_bytes()) && matches!(stream.read(&mut byte), Ok(1)) {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Begins a tunnel over HTTP/1, with bytes that come too early.
fn open_http1(proxy: &Proxy, kind: Kind) -> (TcpStream, String) {
    let mut stream = connect(proxy.listener("web")).unwrap();
    let request = match kind {
        Kind::WebSocket => {
            "GET /chat HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly "
        }
        Kind::Connect => "CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\nearly ",
    };
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream).expect("an answer");
    (stream, head)
}

fn through_http1(proxy: &Proxy, kind: Kind, ends: bool) {
    let (mut stream, head) = open_http1(proxy, kind);
    let expected = match kind {
        Kind::WebSocket => "HTTP/1.1 101 Switching Protocols\r\n",
        Kind::Connect => "HTTP/1.1 200 OK\r\n",
    };
    assert!(head.starts_with(expected), "{head}");
    assert_eq!(
        head.contains("connection: upgrade\r\n"),
        kind == Kind::WebSocket,
        "{head}"
    );
    assert!(
        !head.contains("transfer-encoding") && !head.contains("content-length"),
        "{head}"
    );
    stream.write_all(b"late!").unwrap();
    assert_eq!(read_until(&mut stream, "!"), "hello early late!");
    if ends {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "bye");
    }
}

/// Begins a tunnel over HTTP/2, with bytes that come too early.
async fn open_http2(proxy: &Proxy, kind: Kind) -> (u16, SendStream<Bytes>, RecvStream) {
    open_http2_with(proxy, kind, &[]).await
}

async fn open_http2_with(
    proxy: &Proxy,
    kind: Kind,
    fields: &[(&str, &str)],
) -> (u16, SendStream<Bytes>, RecvStream) {
    let stream = tokio::net::TcpStream::connect(proxy.listener("web"))
        .await
        .unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        // What ends it is seen by its stream.
        let _ = connection.await;
    });
    let mut client = client.ready().await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut request = Request::builder().method(Method::CONNECT);
    request = match kind {
        Kind::WebSocket => request
            .uri("http://app.test/chat")
            .extension(Protocol::from_static("websocket")),
        Kind::Connect => request.uri("app.test:443"),
    };
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (response, mut sending) = client.send_request(request.body(()).unwrap(), false).unwrap();
    sending.send_data("early ".into(), false).unwrap();
    let response = response.await.unwrap();
    (response.status().as_u16(), sending, response.into_body())
}

async fn hear(body: &mut RecvStream, wanted: &str) {
    let mut heard = Vec::new();
    while heard.len() < wanted.len() {
        let piece = body.data().await.expect("more").unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        heard.extend_from_slice(&piece);
    }
    assert_eq!(String::from_utf8_lossy(&heard), wanted);
}

fn through_http2(proxy: &Proxy, kind: Kind, ends: bool) {
    run(async {
        let (status, mut sending, mut body) = open_http2(proxy, kind).await;
        assert_eq!(status, 200);
        sending.send_data("late!".into(), false).unwrap();
        hear(&mut body, "hello early late!").await;
        if ends {
            sending.send_data(Bytes::new(), true).unwrap();
            hear(&mut body, "bye").await;
            while let Some(piece) = body.data().await {
                assert!(piece.unwrap().is_empty(), "the other direction ends too");
            }
        }
    });
}

fn start(program: &Program, cluster: String, route: &str, manager: &str) -> Proxy {
    // CONNECT has no path that a prefix could match.
    let filters = filters(route, manager).replacen(
        "routes: [",
        &format!("routes: [{{ match: {{ connect_matcher: {{}} }}, route: {{ cluster: app{route} }} }}, "),
        1,
    );
    program.start(listener("web", &filters), cluster)
}

fn cluster_for(speaks: Speaks) -> String {
    let address = upstream(speaks);
    match speaks {
        Speaks::Http1 => cluster("app", address),
        Speaks::Http2 => cluster_with("app", address, HTTP2),
    }
}

#[test]
fn bytes_pass_once_the_upstream_agrees_whichever_versions_are_spoken() {
    on_both("bytes_pass_once_the_upstream_agrees", |program| {
        let keeps_halves = matches!(program, Program::Lateen);
        for to in [Speaks::Http1, Speaks::Http2] {
            let proxy = start(program, cluster_for(to), "", UPGRADES);
            for kind in [Kind::WebSocket, Kind::Connect] {
                through_http1(&proxy, kind, keeps_halves);
                through_http2(&proxy, kind, keeps_halves || to == Speaks::Http2);
            }
            assert_eq!(proxy.stat("http.http.downstream_cx_upgrades_total"), 4);
            eventually("no tunnel is open", || {
                (proxy.stat("http.http.downstream_cx_upgrades_active") == 0).then_some(())
            });
            assert_eq!(proxy.stat("http.http.downstream_rq_1xx"), 2);
            assert_eq!(proxy.stat("http.http.downstream_rq_2xx"), 2);
        }
    });
}

#[test]
fn what_neither_the_manager_nor_the_route_allows_is_refused() {
    on_both("what_neither_the_manager_nor_the_route_allows", |program| {
        let no_connect = ", upgrade_configs: [{ upgrade_type: websocket, enabled: false }]";
        let proxy = start(program, cluster_for(Speaks::Http1), "", no_connect);
        for kind in [Kind::WebSocket, Kind::Connect] {
            let head = open_http1(&proxy, kind).1;
            assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
        }
        assert_eq!(lines(&proxy, 2)[0], "HTTP/1.1 - 403 - upgrade_failed -");
        assert_eq!(proxy.stat("http.http.downstream_rq_ws_on_non_ws_route"), 2);
        // The route has the last word, both ways.
        let route =
            ", upgrade_configs: [{ upgrade_type: websocket }, { upgrade_type: CONNECT, enabled: false }]";
        let connect_only = ", upgrade_configs: [{ upgrade_type: CONNECT }]";
        let proxy = start(program, cluster_for(Speaks::Http1), route, connect_only);
        through_http1(&proxy, Kind::WebSocket, false);
        let head = open_http1(&proxy, Kind::Connect).1;
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
    });
}

#[test]
fn a_refused_tunnel_leaves_no_body_to_be_awaited() {
    let (seen, heads) = std::sync::mpsc::sync_channel(4);
    let upstream = upstream_with(move |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let _ = seen.send(head);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let proxy = start(&Program::Lateen, cluster("app", upstream), "", UPGRADES);
    run(async {
        for _ in 0..2 {
            let (status, ..) = open_http2_with(&proxy, Kind::WebSocket, &[("content-length", "100")]).await;
            assert_eq!(status, 403);
        }
    });
    for _ in 0..2 {
        let head = heads.recv_timeout(PATIENCE).unwrap();
        assert!(
            head.contains("upgrade: websocket\r\n") && !head.contains("content-length"),
            "{head}"
        );
    }
    // Whoever was asked for a tunnel may still be waiting for one.
    assert_eq!(proxy.stat("cluster.app.upstream_cx_total"), 2);
}

#[test]
fn an_upstream_that_does_not_agree_is_heard() {
    on_both("an_upstream_that_does_not_agree_is_heard", |program| {
        let refusing = || {
            upstream_with(|mut stream| {
                while read_head(&mut stream).is_some() {
                    let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope");
                }
            })
        };
        let proxy = start(program, cluster("app", refusing()), "", UPGRADES);
        for kind in [Kind::WebSocket, Kind::Connect] {
            let (mut stream, head) = open_http1(&proxy, kind);
            assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
            assert!(head.contains("connection: close\r\n"), "{head}");
            assert_eq!(read_until(&mut stream, "nope"), "nope");
            run(async {
                let (status, _sending, mut body) = open_http2(&proxy, kind).await;
                assert_eq!(status, 403);
                hear(&mut body, "nope").await;
            });
        }
    });
}

#[test]
fn connect_ends_here_where_the_route_says_so() {
    on_both("connect_ends_here_where_the_route_says_so", |program| {
        let plain = || {
            upstream_with(|mut stream| {
                let _ = stream.write_all(b"hello ");
                let mut reading = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reading, &mut stream);
                let _ = stream.write_all(b"bye");
            })
        };
        let keeps_halves = matches!(program, Program::Lateen);
        let route = ", upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }]";
        let proxy = start(program, cluster("app", plain()), route, UPGRADES);
        through_http1(&proxy, Kind::Connect, keeps_halves);
        through_http2(&proxy, Kind::Connect, true);
        let line = lines(&proxy, 2).pop().unwrap();
        assert_eq!(line, "HTTP/2 - 200 - via_upstream -");
        let route = route.replace(
            "connect_config: {}",
            "connect_config: { proxy_protocol_config: { version: V1 } }",
        );
        let proxy = start(program, cluster("app", plain()), &route, UPGRADES);
        let (mut stream, _) = open_http1(&proxy, Kind::Connect);
        let told = read_until(&mut stream, "early ");
        let (client, server) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let header = format!(
            "hello PROXY TCP4 {} {} {} {}\r\nearly ",
            client.ip(),
            server.ip(),
            client.port(),
            server.port()
        );
        assert_eq!(told, header);
        // Nobody is there.
        let nobody = cluster("app", "127.0.0.1:1".parse().unwrap());
        let proxy = start(program, nobody, &route, UPGRADES);
        let head = open_http1(&proxy, Kind::Connect).1;
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(
            lines(&proxy, 1)[0]
                .contains(" UF upstream_reset_before_response_started{remote_connection_failure")
        );
    });
}

#[test]
fn a_tunnel_in_which_nothing_moves_ends() {
    on_both("a_tunnel_in_which_nothing_moves_ends", |program| {
        let idle = format!("{UPGRADES}, stream_idle_timeout: 0.3s");
        let proxy = start(program, cluster_for(Speaks::Http1), "", &idle);
        let (mut stream, _) = open_http1(&proxy, Kind::WebSocket);
        let mut heard = String::new();
        // The end may be a reset.
        let _ = stream.read_to_string(&mut heard);
        assert_eq!(heard, "hello early ");
        assert_eq!(
            lines(&proxy, 1),
            ["HTTP/1.1 HTTP/1.1 101 SI stream_idle_timeout -"]
        );
    });
}

#[test]
fn a_tunnel_that_breaks_is_told_from_one_that_ends() {
    let broken = upstream_with(|mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello early ");
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        // Time for the greeting to arrive before the reset.
        std::thread::sleep(EARLY);
    });
    let proxy = start(&Program::Lateen, cluster("app", broken), "", UPGRADES);
    run(async {
        let (status, _sending, mut body) = open_http2(&proxy, Kind::Connect).await;
        assert_eq!(status, 200);
        hear(&mut body, "hello early ").await;
        let error = body.data().await.expect("more").unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::CONNECT_ERROR));
    });
    let line = lines(&proxy, 1).pop().unwrap();
    assert_eq!(
        line,
        "HTTP/2 HTTP/1.1 200 UC upstream_reset_after_response_started{connection_termination} -"
    );
}

#[test]
fn what_is_not_enforced_is_refused_by_name() {
    for (route, manager, field) in [
        (
            ", upgrade_configs: [{ upgrade_type: CONNECT, connect_config: { allow_post: true } }]",
            "",
            "connect_config.allow_post",
        ),
        (
            ", upgrade_configs: [{ upgrade_type: websocket, connect_config: {} }]",
            "",
            "connect_config: belongs to CONNECT",
        ),
        (
            "",
            ", upgrade_configs: [{ upgrade_type: connect-udp }]",
            "upgrade_type",
        ),
    ] {
        let listener = listener("web", &filters(route, manager));
        let bootstrap = crate::harness::bootstrap(&[listener], &[cluster_for(Speaks::Http1)]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bootstrap.yaml");
        std::fs::write(&path, bootstrap).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_lateen-proxy"))
            .args(["--mode", "validate", "-c", path.to_str().unwrap()])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(
            !output.status.success() && text.contains(field),
            "{field}: {text}"
        );
    }
}
