//! Pools, circuit breakers and counts, across updates of endpoints.

mod support;

use std::time::{Duration, Instant};

use proxy_upstream::{Acquired, ConnectionPermit, Overflow, RequestPriority, acquire};
use support::{SLOT, World, port};

/// How long anything may take, in paused time, before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

const TWO: &str = "[{ hosts: [{ port: 1 }, { port: 2 }] }]";

/// A connection as the connection manager keeps it: something, and the permit.
#[derive(Debug)]
struct Connection {
    number: u32,
    _permit: ConnectionPermit,
}

fn open(world: &World, port_wanted: u16, number: u32) -> Connection {
    let host = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == port_wanted)
        .unwrap();
    let permit = ConnectionPermit::take(world.cluster(), &host, RequestPriority::Default).unwrap();
    Connection {
        number,
        _permit: permit,
    }
}

fn idle(world: &World, port_wanted: u16) -> Option<usize> {
    let host = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == port_wanted)?;
    Some(host.pool::<Connection>().idle())
}

fn give_back(connection: Connection, now: Instant) {
    let host = std::rc::Rc::clone(connection._permit.host());
    host.pool::<Connection>().give_back(connection, now);
}

#[test]
fn an_endpoint_update_keeps_pools_and_counts_of_hosts_that_stay() {
    let mut world = World::new("type: EDS", TWO);
    assert_eq!(
        (world.stat("membership_total"), world.stat("membership_change")),
        (2, 1)
    );
    let now = Instant::now();
    give_back(open(&world, 1, 0), now);
    give_back(open(&world, 2, 0), now);
    let staying = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == 1)
        .unwrap();
    let leaving = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == 2)
        .unwrap();
    let request = world
        .cluster()
        .begin_request(&staying, RequestPriority::Default)
        .unwrap();
    assert_eq!(world.stat("upstream_cx_active"), 2);

    world.update("[{ hosts: [{ port: 3 }, { port: 1, weight: 5 }] }]");
    assert_eq!(
        (idle(&world, 1), idle(&world, 2), idle(&world, 3)),
        (Some(1), None, Some(0))
    );
    assert_eq!(
        (world.stat("membership_total"), world.stat("membership_change")),
        (2, 2)
    );
    assert_eq!(staying.active_requests(), 1);
    assert_eq!(
        staying.spec().weight,
        5,
        "what the configuration says of it may change"
    );
    assert!(leaving.is_removed() && !staying.is_removed());
    assert_eq!(
        world.stat("upstream_cx_active"),
        1,
        "the idle connection of the host that left is closed"
    );
    drop(request);
    assert_eq!(staying.active_requests(), 0);
}

#[test]
fn a_connection_of_a_host_that_left_is_closed_when_its_request_ends() {
    let mut world = World::new("type: EDS", TWO);
    let connection = open(&world, 2, 0);
    world.update("[{ hosts: [{ port: 1 }] }]");
    assert_eq!(world.stat("upstream_cx_active"), 1);
    give_back(connection, Instant::now());
    assert_eq!(world.stat("upstream_cx_active"), 0);
}

#[test]
fn a_removed_cluster_closes_its_pools() {
    let mut world = World::new("type: EDS", TWO);
    assert!(world.clusters.get_by_name("app").is_some());
    give_back(open(&world, 1, 0), Instant::now());
    world
        .clusters
        .apply(proxy_upstream::ClusterUpdate::Remove { slot: SLOT });
    assert!(world.clusters.get(SLOT).is_none());
    assert!(world.clusters.get_by_name("app").is_none());
}

#[test]
fn the_connection_used_last_is_taken_first_and_old_ones_are_closed() {
    let world = World::new("type: EDS", TWO);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let connections: Vec<_> = (0..3).map(|number| open(&world, 1, number)).collect();
    for (number, connection) in (0..).zip(connections) {
        give_back(connection, at(number));
    }
    let host = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == 1)
        .unwrap();
    let pool = host.pool::<Connection>();
    let timeout = Some(Duration::from_secs(3600));
    let taken = pool.take(at(3), timeout, |_| true).unwrap();
    assert_eq!(taken.number, 2);
    assert!(
        pool.take(at(3), timeout, |c| c.number == 0).is_some(),
        "those that are not usable are dropped"
    );
    assert_eq!(pool.idle(), 0);
    give_back(taken, at(3));
    world.clusters.tick(at(3 + 3599));
    assert_eq!(pool.idle(), 1);
    world.clusters.tick(at(3 + 3600));
    assert_eq!((pool.idle(), world.stat("upstream_cx_idle_timeout")), (0, 1));
}

#[test]
fn requests_beyond_the_limit_overflow() {
    let world = World::new(
        "type: EDS\ncircuit_breakers: { thresholds: [{ max_requests: 1, max_retries: 0 }] }",
        TWO,
    );
    let host = world.cluster().hosts().remove(0);
    let first = world
        .cluster()
        .begin_request(&host, RequestPriority::Default)
        .unwrap();
    assert_eq!(
        world
            .cluster()
            .begin_request(&host, RequestPriority::Default)
            .unwrap_err(),
        Overflow
    );
    assert_eq!(world.stat("upstream_rq_active_overflow"), 1);
    drop(first);
    assert!(
        world
            .cluster()
            .begin_request(&host, RequestPriority::Default)
            .is_ok()
    );
    assert!(world.cluster().begin_retry(RequestPriority::Default).is_err());
    assert_eq!(world.stat("upstream_rq_retry_overflow"), 1);
}

#[test]
fn each_host_may_have_one_connection_whatever_the_limit() {
    let world = World::new(
        "type: EDS\ncircuit_breakers: { thresholds: [{ max_connections: 1 }] }",
        TWO,
    );
    let connections = [open(&world, 1, 0), open(&world, 2, 0)];
    let host = connections[0]._permit.host();
    assert!(ConnectionPermit::take(world.cluster(), host, RequestPriority::Default).is_err());
    assert_eq!(world.stat("upstream_cx_overflow"), 2);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn who_waits_for_a_connection_gets_the_next_that_is_free() {
    let thresholds =
        "type: EDS\ncircuit_breakers: { thresholds: [{ max_connections: 1, max_pending_requests: 1 }] }";
    let world = World::new(thresholds, TWO);
    let host = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == 1)
        .unwrap();
    let now = Instant::now();
    let busy = open(&world, 1, 7);
    let wait = || acquire::<Connection>(world.cluster(), &host, RequestPriority::Default, now, |_| true);

    let waiting = wait();
    let rest = async {
        tokio::task::yield_now().await;
        assert_eq!(world.stat("upstream_rq_pending_active"), 1);
        assert_eq!(wait().await.unwrap_err(), Overflow, "only one may wait");
        give_back(busy, now);
    };
    let both = async { tokio::join!(waiting, rest) };
    let (got, ()) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
    let Ok(Acquired::Ready(connection)) = got else {
        panic!("{got:?}")
    };
    assert_eq!(connection.number, 7);
    assert_eq!(world.stat("upstream_rq_pending_active"), 0);

    let closing = async {
        tokio::task::yield_now().await;
        drop(connection);
    };
    let both = async { tokio::join!(wait(), closing) };
    let (got, ()) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
    assert!(
        matches!(got, Ok(Acquired::Connect(_))),
        "a closed connection makes room for a new one: {got:?}"
    );
}

#[test]
fn answers_are_counted_by_class_and_by_code() {
    let world = World::new("type: EDS", TWO);
    [200, 200, 204, 503]
        .into_iter()
        .for_each(|status| world.cluster().count_status(status));
    let stats = [
        "upstream_rq_completed",
        "upstream_rq_2xx",
        "upstream_rq_200",
        "upstream_rq_204",
        "upstream_rq_503",
    ];
    assert_eq!(stats.map(|leaf| world.stat(leaf)), [4, 3, 2, 1, 1]);
}

#[test]
fn a_host_whose_transport_socket_changes_loses_its_idle_connections() {
    let yaml = "type: EDS\ntransport_socket_matches: [{ name: other, match: { mode: other }, transport_socket: { name: \
                other } }]";
    let mut world = World::new(yaml, TWO);
    let now = Instant::now();
    give_back(open(&world, 1, 0), now);
    give_back(open(&world, 2, 0), now);
    world.update("[{ hosts: [{ port: 1, mode: other }, { port: 2 }] }]");
    assert_eq!((idle(&world, 1), idle(&world, 2)), (Some(0), Some(1)));
}

#[test]
fn connections_that_do_not_fit_stay_for_others() {
    let world = World::new("type: EDS", TWO);
    let now = Instant::now();
    for number in 0..3 {
        give_back(open(&world, 1, number), now);
    }
    let host = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == 1)
        .unwrap();
    let take = |wanted| {
        let fits = |connection: &Connection| connection.number == wanted;
        host.pool::<Connection>().take_fitting(now, None, fits, |_| true)
    };
    assert_eq!(take(1).map(|connection| connection.number), Some(1));
    assert!(take(1).is_none());
    assert_eq!(idle(&world, 1), Some(2));
}
