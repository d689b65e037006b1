//! How connections end when what they belong to does: a listener or a filter chain that discovery takes away, the process,
//! or because an operator drains. The same on Envoy.

mod changes;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../http2/raw.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod raw;

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use api_envoy::type_url::{CLUSTER, LISTENER};
use harness::discovery::Discovery;
use harness::program::{Program, on_both};
use harness::{
    PATIENCE, Proxy, access_log, cluster, connect, echo_upstream, http_filters, lines, listener, tcp_filters,
    upstream_with,
};

/// What a request may ask the upstream for: nothing for as long as the test likes, or a body without an end.
const PATHS: [&str; 2] = ["/hang", "/trickle"];
/// How long nothing happens to a connection that is not to end.
const QUIET: Duration = Duration::from_millis(300);

/// Answers at once, or when the test lets it, or for ever; becomes an echo where that is asked for.
fn upstream() -> (SocketAddr, mpsc::SyncSender<()>) {
    let (release, released) = mpsc::sync_channel(1);
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let address = upstream_with(move |stream| {
        let mut reader = BufReader::new(stream);
        while let Some((path, is_upgrade)) = read_head(&mut reader) {
            let stream = reader.get_mut();
            let _ = stream.write_all(match path.as_str() {
                _ if is_upgrade => {
                    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello"
                }
                "/hang" => {
                    let _ = released.lock().unwrap().recv();
                    b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast"
                }
                "/trickle" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" as &[u8],
            });
            while path == "/trickle" && stream.write_all(b"1\r\nx\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
            if is_upgrade {
                // Until the other side goes.
                let _ = stream.read_to_end(&mut Vec::new());
                return;
            }
        }
    });
    (address, release)
}

/// The path of a request, and whether it asks for another protocol.
fn read_head(reader: &mut BufReader<TcpStream>) -> Option<(String, bool)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut is_upgrade = false;
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        is_upgrade |= line.starts_with("upgrade:");
    }
    Some((path, is_upgrade))
}

/// A proxy with an HTTP listener and one that carries bytes, both discovered.
struct World {
    discovery: Discovery,
    proxy: Proxy,
    release: mpsc::SyncSender<()>,
}

/// The filters of the HTTP listener, with this statistics prefix and drain timeout.
fn web_filters(prefix: &str, drain_timeout: &str) -> String {
    let log = access_log(
        "log",
        "%PROTOCOL% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%",
    );
    let upgrades = "upgrade_configs: [{ upgrade_type: websocket }]";
    let manager = format!("stat_prefix: {prefix}, drain_timeout: {drain_timeout}, {upgrades} {log}");
    http_filters("app")
        .replacen("stat_prefix: http", &manager, 1)
        .replacen("cluster: app", "cluster: app, timeout: 0s", 1)
}

/// Starts it with a second of drain time.
fn world(program: &Program, drain_timeout: &str) -> World {
    let discovery = Discovery::start();
    let (app, release) = upstream();
    discovery.put(CLUSTER, &cluster("app", app));
    discovery.put(CLUSTER, &cluster("echo", echo_upstream("echo")));
    discovery.put(LISTENER, &listener("web", &web_filters("http", drain_timeout)));
    discovery.put(LISTENER, &listener("bytes", &tcp_filters("echo")));
    let proxy = program.launch_with(&discovery.bootstrap(), &["--drain-time-s", "1"]);
    World {
        discovery,
        proxy,
        release,
    }
}

fn sending(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn get(address: SocketAddr, path: &str) -> TcpStream {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    sending(address, request.as_bytes())
}

fn web_socket(address: SocketAddr) -> TcpStream {
    let request = b"GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    let mut stream = sending(address, request);
    read_until(&mut stream, b"hello");
    stream
}

/// A stream of HTTP/2 that asks for `/hang`.
fn http2(address: SocketAddr) -> TcpStream {
    let mut stream = raw::open(address);
    let head = [&[0x82, 0x86, 0x04, 5][..], b"/hang", &[0x01, 1, b'a']].concat();
    let flags = raw::END_HEADERS | raw::END_STREAM;
    stream
        .write_all(&raw::frame(raw::HEADERS, flags, 1, &head))
        .unwrap();
    stream
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let (mut got, mut byte) = (Vec::new(), [0]);
    while !got.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
    got
}

/// Reads to the end, which comes without a reset.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(QUIET)).unwrap();
    let end = stream.read(&mut [0]).map_err(|error| error.kind());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    end == Err(ErrorKind::WouldBlock)
}

/// Connections in all states, once they are in them.
fn connections(proxy: &Proxy) -> Vec<TcpStream> {
    let web = proxy.listener("web");
    let mut idle = get(web, "/");
    read_until(&mut idle, b"ok");
    let mut bytes = connect(proxy.listener("bytes")).unwrap();
    read_until(&mut bytes, b"echo\n");
    let mut all = vec![
        idle,
        bytes,
        web_socket(web),
        http2(web),
        sending(web, b"GET / HT"),
        connect(web).unwrap(),
    ];
    all.extend(PATHS.map(|path| get(web, path)));
    harness::eventually("all requests are on their way", || {
        (proxy.stat("cluster.app.upstream_rq_active") == 4).then_some(())
    });
    read_until(all.last_mut().unwrap(), b"\nx\r\n1\r\nx\r\n");
    all
}

/// The access log of [`connections`] that ended for this reason, those of the first request and of what had ended before
/// aside.
fn check_log(proxy: &Proxy, reason: &str, web_socket: &str) {
    let mut log = lines(proxy, "log", 6);
    log.sort();
    let over = format!("DC downstream_local_disconnect({reason})");
    let mut expected = vec![
        format!("HTTP/1.1 - 0 {over}"),
        "HTTP/1.1 / 200 - via_upstream".to_owned(),
        format!("HTTP/1.1 /chat 101 {}", web_socket.replace("OVER", &over)),
        format!("HTTP/1.1 /hang 0 {over}"),
        format!("HTTP/1.1 /trickle 200 {over}"),
        format!("HTTP/2 /hang 0 {over}"),
    ];
    expected.sort();
    assert_eq!(log, expected);
}

const LISTENER_GONE: &str = "purging_socket_that_have_not_progressed_to_connections";

#[test]
fn what_is_left_of_a_removed_listener_is_closed_when_its_drain_is_over() {
    let test = "what_is_left_of_a_removed_listener_is_closed_when_its_drain_is_over";
    on_both(test, |program| {
        let world = world(program, "5s");
        let mut all = connections(&world.proxy);
        for name in ["web", "bytes"] {
            world.discovery.remove(LISTENER, name);
        }
        assert!(is_open(&mut all[0]), "the drain has only begun");
        all.iter_mut().for_each(|stream| drop(read_to_end(stream)));
        check_log(&world.proxy, LISTENER_GONE, "OVER");
        for (stat, value) in [
            ("http.http.downstream_cx_active", 0),
            ("http.http.downstream_rq_active", 0),
            ("http.http.downstream_cx_upgrades_active", 0),
            ("http.http.downstream_cx_destroy_local", 7),
            ("http.http.downstream_cx_destroy_active_rq", 5),
            ("http.http.downstream_rq_rx_reset", 5),
            ("cluster.app.upstream_rq_active", 0),
        ] {
            // The statistics of a listener that is gone go with it.
            assert!([0, value].contains(&world.proxy.stat(stat)), "{stat}");
        }
    });
}

#[test]
fn what_is_left_of_a_replaced_filter_chain_is_closed_when_its_drain_is_over() {
    let test = "what_is_left_of_a_replaced_filter_chain_is_closed_when_its_drain_is_over";
    on_both(test, |program| {
        let world = world(program, "5s");
        let mut all = connections(&world.proxy);
        let mut bytes = all.remove(1);
        let other = listener("web", &web_filters("other", "5s"));
        world.discovery.put(LISTENER, &other);
        all.iter_mut().for_each(|stream| drop(read_to_end(stream)));
        check_log(&world.proxy, "filter_chain_is_being_removed", "OVER");
        bytes.write_all(b"still here").unwrap();
        read_until(&mut bytes, b"still here");
        let web = world.proxy.listener("web");
        assert!(read_until(&mut get(web, "/"), b"ok").starts_with(b"HTTP/1.1 200"));
    });
}

#[test]
fn what_is_left_when_the_process_ends_is_closed_and_recorded() {
    on_both(
        "what_is_left_when_the_process_ends_is_closed_and_recorded",
        |program| {
            let mut world = world(program, "5s");
            let mut all = connections(&world.proxy);
            assert!(world.proxy.terminate().success());
            all.iter_mut().for_each(|stream| drop(read_to_end(stream)));
            check_log(&world.proxy, LISTENER_GONE, "OVER");
        },
    );
}

#[test]
fn an_operators_drain_ends_what_is_idle_and_cuts_nothing_off() {
    on_both(
        "an_operators_drain_ends_what_is_idle_and_cuts_nothing_off",
        |program| {
            // There is a window of a second's last third in which to say good-bye.
            let world = world(program, "0.2s");
            let all = connections(&world.proxy);
            let [
                mut idle,
                mut bytes,
                mut chat,
                mut http2,
                mut half,
                mut silent,
                mut hanging,
                mut trickling,
            ] = <[TcpStream; 8]>::try_from(all).unwrap();
            world.proxy.admin("POST", "/drain_listeners?graceful&skip_exit");
            for ends in [&mut idle, &mut silent, &mut chat] {
                read_to_end(ends);
            }
            let goaways = |bytes: &[u8]| {
                raw::frames(bytes)
                    .iter()
                    .filter(|frame| frame.0 == raw::GOAWAY)
                    .count()
            };
            let mut told = Vec::new();
            let mut block = [0; 1024];
            while goaways(&told) < 1 {
                let count = http2.read(&mut block).unwrap();
                assert!(count > 0, "the connection goes on");
                told.extend_from_slice(&block[..count]);
            }
            // Past the drain time nothing happens to the others.
            std::thread::sleep(Duration::from_secs(1));
            assert!(is_open(&mut half) && is_open(&mut hanging));
            bytes.write_all(b"still here").unwrap();
            read_until(&mut bytes, b"still here");
            read_until(&mut trickling, b"x\r\n1\r\nx\r\n");
            assert_eq!(
                lines(&world.proxy, "log", 2)[1],
                "HTTP/1.1 /chat 101 - on_drain_deadline"
            );
            // The next answer is the last.
            (0..2).for_each(|_| world.release.send(()).unwrap());
            let answer = read_to_end(&mut hanging);
            let answer = String::from_utf8(answer).unwrap();
            assert!(
                answer.contains("connection: close\r\n") && answer.ends_with("last"),
                "{answer}"
            );
            half.write_all(b"TP/1.1\r\nhost: a\r\n\r\n").unwrap();
            let answer = String::from_utf8(read_to_end(&mut half)).unwrap();
            assert!(
                answer.contains("connection: close\r\n") && answer.ends_with("ok"),
                "{answer}"
            );
        },
    );
}

#[test]
fn while_health_checks_are_to_fail_each_answer_ends_its_connection() {
    on_both(
        "while_health_checks_are_to_fail_each_answer_ends_its_connection",
        |program| {
            let (app, _) = upstream();
            let default = listener("web", &http_filters("app"));
            let modify_only = listener("kept", &http_filters("app"));
            let modify_only = modify_only.replacen("name: kept,", "name: kept, drain_type: MODIFY_ONLY,", 1);
            let proxy = program.launch(&harness::bootstrap(
                &[default, modify_only],
                &[cluster("app", app)],
            ));
            let check = |name: &str, is_over: bool| {
                let mut client = harness::Client::connect(proxy.listener(name)).unwrap();
                assert_eq!(client.request("GET", "a", "/").unwrap().0, 200);
                assert_eq!(client.is_over(), is_over, "{name}");
            };
            check("web", false);
            proxy.admin("POST", "/healthcheck/fail");
            check("web", true);
            check("kept", false);
            proxy.admin("POST", "/healthcheck/ok");
            check("web", false);
            assert_eq!(proxy.stat("http.http.downstream_cx_drain_close"), 1);
        },
    );
}
