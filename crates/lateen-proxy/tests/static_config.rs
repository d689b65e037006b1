//! A proxy with a static bootstrap: traffic, admin interface, signals, and refusals.

mod harness;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::process::{Command, Stdio};

use harness::{Client, Proxy, bootstrap, cluster, connect, get, http_filters, listener, tcp_filters};

#[test]
fn a_request_reaches_its_cluster_and_comes_back() {
    let app = cluster("app", harness::http_upstream("app"));
    let proxy = Proxy::start(
        &bootstrap(&[listener("web", &http_filters("app"))], &[app]),
        &["--concurrency", "2"],
    );
    proxy.wait_live();
    let mut client = Client::connect(proxy.listener("web")).unwrap();
    for path in ["/one", "/two"] {
        assert_eq!(
            client.request("GET", "any", path),
            Some((200, format!("app {path}")))
        );
    }
    assert_eq!(proxy.stat("http.http.downstream_rq_total"), 2);
    assert_eq!(
        proxy
            .stat("cluster.app.upstream_rq_200")
            .max(proxy.stat("cluster.app.upstream_rq_2xx")),
        2
    );
}

#[test]
fn a_cluster_that_is_not_there_answers_503_for_its_route_alone() {
    let app = cluster("app", harness::http_upstream("app"));
    let listeners = [
        listener("good", &http_filters("app")),
        listener("bad", &http_filters("nowhere")),
    ];
    let proxy = Proxy::start(&bootstrap(&listeners, &[app]), &[]);
    assert_eq!(get(proxy.listener("bad"), "GET", "any", "/").unwrap().0, 503);
    assert_eq!(get(proxy.listener("good"), "GET", "any", "/").unwrap().0, 200);
}

#[test]
fn tcp_is_relayed_with_its_half_close() {
    let app = cluster("app", harness::echo_upstream("app"));
    let proxy = Proxy::start(&bootstrap(&[listener("tcp", &tcp_filters("app"))], &[app]), &[]);
    let mut stream = connect(proxy.listener("tcp")).unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 249) as u8).collect();
    let mut writing = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(&copy).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    writer.join().unwrap();
    assert!(answer[4..] == sent[..], "the bytes differ");
    assert_eq!(proxy.stat("tcp.tcp.downstream_cx_rx_bytes_total"), 1_000_000);
    assert_eq!(proxy.stat("tcp.tcp.downstream_cx_tx_bytes_total"), 1_000_004);
}

#[test]
fn connections_are_spread_over_the_workers() {
    let app = cluster("app", harness::echo_upstream("app"));
    // One socket for all workers, so that the kernel does not spread connections for us.
    let shared = listener("tcp", &tcp_filters("app")).replacen(
        "name: tcp,",
        "name: tcp, enable_reuse_port: false, \
        connection_balance_config: { exact_balance: {} },",
        1,
    );
    let proxy = Proxy::start(&bootstrap(&[shared], &[app]), &["--concurrency", "3"]);
    let address = proxy.listener("tcp");
    let connections: Vec<_> = (0..9)
        .map(|_| {
            let stream = connect(address).unwrap();
            let mut greeting = String::new();
            BufReader::new(&stream).read_line(&mut greeting).unwrap();
            assert_eq!(greeting, "app\n");
            stream
        })
        .collect();
    let of = |worker: usize| {
        proxy.stat(&format!(
            "listener.127.0.0.1_0.worker_{worker}.downstream_cx_active"
        ))
    };
    assert_eq!([of(0), of(1), of(2)], [3, 3, 3]);
    drop(connections);
    harness::eventually("all connections end", || {
        (proxy.stat("cluster.app.upstream_cx_active") == 0).then_some(())
    });
}

#[test]
fn sigterm_ends_the_process_at_once() {
    let app = cluster("app", harness::echo_upstream("app"));
    let proxy = Proxy::start(&bootstrap(&[listener("tcp", &tcp_filters("app"))], &[app]), &[]);
    let _open = connect(proxy.listener("tcp")).unwrap();
    let began = std::time::Instant::now();
    assert!(proxy.stop().success());
    assert!(began.elapsed().as_secs() < 5);
}

#[test]
fn drained_listeners_take_no_more_connections_and_close_those_they_have() {
    let app = cluster("app", harness::http_upstream("app"));
    let config = bootstrap(&[listener("web", &http_filters("app"))], &[app]);
    let proxy = Proxy::start(&config, &["--drain-time-s", "1", "--drain-strategy", "immediate"]);
    let address = proxy.listener("web");
    let mut open = Client::connect(address).unwrap();
    assert_eq!(open.request("GET", "any", "/").unwrap().0, 200);
    proxy.admin("POST", "/drain_listeners");
    assert_eq!(
        proxy.admin("GET", "/ready"),
        "LIVE\n",
        "as Envoy: only /healthcheck/fail changes it"
    );
    harness::eventually("the listener is closed", || {
        connect(address).is_err().then_some(())
    });
    assert_eq!(proxy.stat("listener_manager.listener_stopped"), 1);
    proxy.admin("POST", "/drain_listeners");
    assert_eq!(
        proxy.stat("listener_manager.listener_stopped"),
        1,
        "it had stopped"
    );
    // The request that is answered last says so, and then the connection ends.
    let last = open.request("GET", "any", "/");
    assert!(last.is_none_or(|answer| answer.0 == 200));
    assert_eq!(open.request("GET", "any", "/"), None);
}

/// Runs the proxy to its end; whether it succeeded, and what it said.
fn run(yaml: &str, flags: &[&str]) -> (bool, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lateen-proxy"))
        .args(["--config-yaml", yaml])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What it says is a few lines, which the pipes hold until it has ended.
    harness::wait(&mut child);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn validation_accepts_without_listening() {
    let app = cluster("app", "127.0.0.1:1".parse().unwrap());
    let config = bootstrap(&[listener("web", &http_filters("app"))], &[app]);
    let (valid, said) = run(&config, &["--mode", "validate"]);
    assert!(valid && said.contains("OK"), "{said}");
}

#[test]
fn a_refused_bootstrap_names_the_field() {
    let bad = listener("web", &tcp_filters("app")).replacen(
        "stat_prefix: tcp,",
        "stat_prefix: tcp, tunneling_config: { hostname: x },",
        1,
    );
    let (valid, said) = run(&bootstrap(&[bad], &[]), &["--mode", "validate"]);
    let path = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.tunneling_config";
    assert!(!valid && said.contains(path), "{said}");
}

#[test]
fn an_admin_address_that_is_a_pipe_is_refused_when_checked_and_when_started() {
    let config = "admin: { address: { pipe: { path: /tmp/admin } } }";
    for flags in [&["--mode", "validate"][..], &[]] {
        let (accepted, said) = run(config, flags);
        assert!(
            !accepted && said.contains("admin.address.pipe: "),
            "{flags:?}: {said}"
        );
    }
}

#[test]
fn an_unknown_field_is_refused_unless_it_is_allowed() {
    let config = "node: { id: a }, static_resources: {}, colour: red";
    let config = format!("{{ {config} }}");
    let (valid, said) = run(&config, &["--mode", "validate"]);
    assert!(!valid && said.contains("colour"), "{said}");
    assert!(run(&config, &["--mode", "validate", "--allow-unknown-fields"]).0);
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = listener("web", "[]").replacen("port_value: 0", &format!("port_value: {}", address.port()), 1);
    let (ok, said) = run(&bootstrap(&[text], &[]), &[]);
    assert!(
        !ok && said.contains(&format!("cannot bind '{address}'")),
        "{said}"
    );
}

#[test]
fn an_idle_proxy_is_small() {
    let app = cluster("app", harness::http_upstream("app"));
    let proxy = Proxy::start(
        &bootstrap(&[listener("web", &http_filters("app"))], &[app]),
        &["--concurrency", "2"],
    );
    proxy.wait_live();
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let private = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kib: u64 = private.trim().trim_end_matches(" kB").parse().unwrap();
    // The file part of a debug binary says nothing, so only anonymous memory is held to the target of 15 MiB.
    assert!(kib < 15 * 1024, "{kib} KiB of anonymous memory");
}

#[test]
fn lines_that_a_log_file_does_not_take_are_counted() {
    let log = "stat_prefix: http, access_log: [{ name: file, typed_config: { \"@type\": \
               type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/full } }]";
    let filters = http_filters("app").replacen("stat_prefix: http", log, 1);
    let app = cluster("app", harness::http_upstream("one"));
    let proxy = Proxy::start(&bootstrap(&[listener("web", &filters)], &[app]), &[]);
    proxy.wait_live();
    get(proxy.listener("web"), "GET", "any", "/").expect("an answer");
    harness::eventually("a write that fails", || {
        (proxy.stat("filesystem.write_failed") == 1).then_some(())
    });
    assert_eq!(proxy.stat("filesystem.write_buffered"), 1);
    assert_eq!(proxy.stat("filesystem.write_completed"), 0);
    assert_eq!(proxy.stat("filesystem.write_total_buffered"), 0);
}
