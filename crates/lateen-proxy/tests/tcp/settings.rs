//! What the TCP proxy's settings do.

use std::io::Read as _;
use std::net::SocketAddr;

use crate::harness::program::{Program, on_both};
use crate::harness::{bootstrap, cluster, connect, eventually, lines, listener};
use crate::world::{Unanswered, accepting, reset, tcp, through};

/// An address that refuses connections as long as the socket lives, which is bound to it and does not listen.
fn refusing() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (address, socket)
}

/// What is logged of a connection to one address, with these fields of the TCP proxy and the cluster.
fn logged(program: &Program, (fields, more): (&str, &str), address: SocketAddr, format: &str) -> Vec<String> {
    let cluster = cluster("app", address);
    let cluster = format!("{} {more} }}", cluster.strip_suffix('}').unwrap());
    let proxy = program.start(listener("l", &tcp("app", fields, format)), cluster);
    let mut client = connect(proxy.listener("l")).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the proxy closes");
    lines(&proxy, "log", 1)
}

#[test]
fn a_host_that_refuses_is_tried_as_often_as_is_said() {
    on_both("a_host_that_refuses_is_tried_as_often_as_is_said", |program| {
        let fields = (
            ", max_connect_attempts: 3, backoff_options: { base_interval: 0.01s }",
            "",
        );
        let format = "%RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_TRANSPORT_FAILURE_REASON%";
        let (address, _socket) = refusing();
        let log = logged(program, fields, address, format);
        assert_eq!(log, ["UF,URX 3 delayed_connect_error:_Connection_refused"]);
    });
}

#[test]
fn a_client_that_leaves_while_the_host_is_connected_is_logged_when_the_host_does_not_answer() {
    let test = "a_client_that_leaves_while_the_host_is_connected_is_logged_when_the_host_does_not_answer";
    on_both(test, |program| {
        let host = Unanswered::new();
        let cluster = cluster("app", host.address).replacen("connect_timeout: 1s", "connect_timeout: 2s", 1);
        let format = "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%";
        let proxy = program.start(listener("l", &tcp("app", "", format)), cluster);
        let client = connect(proxy.listener("l")).unwrap();
        eventually("the host is tried", || {
            (proxy.stat("cluster.app.upstream_cx_total") == 1).then_some(())
        });
        reset(client);
        assert_eq!(lines(&proxy, "log", 1), ["UF,URX -"]);
        for stat in ["connect_timeout", "connect_attempts_exceeded", "connect_fail"] {
            assert_eq!(
                proxy.stat(&format!("cluster.app.upstream_cx_{stat}")),
                1,
                "{stat}"
            );
        }
    });
}

#[test]
fn connections_that_say_nothing_or_are_too_old_are_closed() {
    on_both(
        "connections_that_say_nothing_or_are_too_old_are_closed",
        |program| {
            let (address, servers) = accepting();
            let log = |fields| logged(program, (fields, ""), address, "%RESPONSE_FLAGS%");
            assert_eq!(log(", idle_timeout: 0.1s"), ["-"]);
            assert_eq!(log(", max_downstream_connection_duration: 0.1s"), ["DT"]);
            drop(servers);
        },
    );
}

#[test]
fn connections_are_recorded_when_they_begin_are_connected_and_last() {
    on_both(
        "connections_are_recorded_when_they_begin_are_connected_and_last",
        |program| {
            let (address, servers) = accepting();
            let fields = ", access_log_options: { access_log_flush_interval: 0.05s, flush_access_log_on_connected: true, \
                      flush_access_log_on_start: true }";
            let format = "%UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %BYTES_RECEIVED%";
            let proxy = program.start(
                listener("l", &tcp("app", fields, format)),
                cluster("app", address),
            );
            let (client, server) = through(proxy.listener("l"), &servers);
            let log = lines(&proxy, "log", 4);
            assert_eq!(log[..4], ["- 0 0", "app 1 0", "app 1 0", "app 1 0"]);
            drop((client, server));
        },
    );
}

#[test]
fn the_clients_address_chooses_the_host_where_that_is_said() {
    on_both(
        "the_clients_address_chooses_the_host_where_that_is_said",
        |program| {
            let named = ["a", "b", "c", "d"].map(crate::harness::echo_upstream);
            let endpoint = |address: &SocketAddr| {
                format!(
                    "{{ endpoint: {{ address: {} }} }}",
                    crate::harness::socket(*address)
                )
            };
            let endpoints: Vec<_> = named.iter().map(endpoint).collect();
            let cluster = format!(
                "{{ name: app, type: STATIC, lb_policy: RING_HASH, load_assignment: {{ cluster_name: app, endpoints: \
             [{{ lb_endpoints: [{}] }}] }} }}",
                endpoints.join(",")
            );
            let filters = tcp("app", ", hash_policy: [{ source_ip: {} }]", "");
            let proxy = program.launch(&bootstrap(&[listener("l", &filters)], &[cluster]));
            let address = proxy.listener("l");
            let served_by = || {
                let mut name = [0; 1];
                connect(address).unwrap().read_exact(&mut name).unwrap();
                name[0]
            };
            let first = served_by();
            assert!((0..10).all(|_| served_by() == first));
        },
    );
}
