//! Few long-lived connections are spread over the workers.

use std::io::Read as _;

use crate::harness::{Proxy, bootstrap, cluster, connect, echo_upstream, eventually, tcp_filters};
use crate::world::{chain, listener_with};

const WORKERS: usize = 4;

/// How many of that many connections each worker has, most first.
fn spread(connections: usize, fields: &str) -> Vec<u64> {
    let listener = listener_with("l", &[chain("", &tcp_filters("app"))], fields);
    let clusters = [cluster("app", echo_upstream("app"))];
    let proxy = Proxy::start(
        &bootstrap(&[listener], &clusters),
        &["--concurrency", &WORKERS.to_string()],
    );
    let address = proxy.listener("l");
    let open: Vec<_> = (0..connections)
        .map(|_| {
            let mut stream = connect(address).unwrap();
            // Each is served before the next comes, as long-lived connections come.
            stream.read_exact(&mut [0; 4]).unwrap();
            stream
        })
        .collect();
    let of = |worker| {
        proxy.stat(&format!(
            "listener.127.0.0.1_0.worker_{worker}.downstream_cx_active"
        ))
    };
    let mut counts = eventually("all connections are counted", || {
        let counts: Vec<u64> = (0..WORKERS).map(of).collect();
        (counts.iter().sum::<u64>() == connections as u64).then_some(counts)
    });
    drop(open);
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

#[test]
fn as_few_connections_as_workers_have_a_worker_each() {
    assert_eq!(spread(WORKERS, ""), [1; WORKERS]);
}

#[test]
fn no_worker_has_many_more_connections_than_another() {
    let counts = spread(10 * WORKERS, "");
    assert!(counts[0] <= counts[WORKERS - 1] * 5 / 4 + 1, "{counts:?}");
}

#[test]
fn an_exact_balance_differs_by_one_at_most() {
    let counts = spread(
        10 * WORKERS + 2,
        ", connection_balance_config: { exact_balance: {} }",
    );
    assert!(counts[0] - counts[WORKERS - 1] <= 1, "{counts:?}");
}

#[test]
fn one_accept_queue_for_all_workers_is_spread_too() {
    assert_eq!(spread(WORKERS, ", enable_reuse_port: false"), [1; WORKERS]);
}
