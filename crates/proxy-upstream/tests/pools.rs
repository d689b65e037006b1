//! Pools, circuit breakers and counts, across updates of endpoints.

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proxy_upstream::{
    Acquired, Attempt, ConnectError, ConnectionPermit, Host, HttpVersions, Multiplexed, Overflow, PoolKey,
    RequestPriority, SharedError, acquire, acquire_shared,
};
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

fn host(world: &World, port_wanted: u16) -> Rc<Host> {
    let hosts = world.cluster().hosts();
    hosts.into_iter().find(|h| port(h) == port_wanted).unwrap()
}

fn http1() -> PoolKey {
    PoolKey::http(HttpVersions::Http1, &())
}

fn http2(name: &str) -> PoolKey {
    PoolKey::http(HttpVersions::Http2, &name)
}

fn permit(world: &World, host: &Rc<Host>, key: PoolKey) -> Result<ConnectionPermit, Overflow> {
    ConnectionPermit::take(world.cluster(), host, RequestPriority::Default, key)
}

fn open(world: &World, port_wanted: u16, number: u32) -> Connection {
    let permit = permit(world, &host(world, port_wanted), http1()).unwrap();
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
    Some(host.pool::<Connection>(RequestPriority::Default).idle())
}

fn give_back(connection: Connection, now: Instant) {
    let host = Rc::clone(connection._permit.host());
    host.pool::<Connection>(RequestPriority::Default)
        .give_back(connection, now);
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
        .begin_request(&staying, RequestPriority::Default, Instant::now())
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
    world.clusters.apply(
        proxy_upstream::ClusterUpdate::Remove { slot: SLOT },
        Instant::now(),
    );
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
    let pool = host.pool::<Connection>(RequestPriority::Default);
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
        .begin_request(&host, RequestPriority::Default, Instant::now())
        .unwrap();
    assert_eq!(
        world
            .cluster()
            .begin_request(&host, RequestPriority::Default, Instant::now())
            .unwrap_err(),
        Overflow
    );
    assert_eq!(world.stat("upstream_rq_active_overflow"), 1);
    drop(first);
    assert!(
        world
            .cluster()
            .begin_request(&host, RequestPriority::Default, Instant::now())
            .is_ok()
    );
    assert!(
        world
            .cluster()
            .begin_retry(RequestPriority::Default, Instant::now())
            .is_err()
    );
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
    assert!(permit(&world, host, http1()).is_err());
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
    let wait = || {
        let look = || {
            host.pool::<Connection>(RequestPriority::Default)
                .take(now, None, |_| true)
        };
        acquire::<Connection, _>(
            (world.cluster(), &host, RequestPriority::Default),
            http1(),
            look,
            Some,
        )
    };

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
        host.pool::<Connection>(RequestPriority::Default)
            .take_fitting(now, None, fits, |_| true)
    };
    assert_eq!(take(1).map(|connection| connection.number), Some(1));
    assert!(take(1).is_none());
    assert_eq!(idle(&world, 1), Some(2));
}

const ONE_CONNECTION: &str = "type: EDS
circuit_breakers: { thresholds: [{ max_connections: 1 }] }";

#[test]
fn an_idle_connection_makes_room_for_one_of_another_kind() {
    let world = World::new(ONE_CONNECTION, TWO);
    give_back(open(&world, 1, 0), Instant::now());
    let _permit = permit(&world, &host(&world, 1), http2("a")).unwrap();
    assert_eq!(idle(&world, 1), Some(0));
    assert_eq!(
        (
            world.stat("upstream_cx_active"),
            world.stat("upstream_cx_overflow")
        ),
        (1, 0)
    );
}

#[test]
fn each_kind_of_connection_may_have_one_whatever_the_limit() {
    let world = World::new(ONE_CONNECTION, TWO);
    let host = host(&world, 1);
    let _busy = open(&world, 1, 0);
    let others = [http2("a"), http2("b"), PoolKey::tcp()];
    let permits: Vec<_> = others.iter().map(|key| permit(&world, &host, *key)).collect();
    assert!(permits.iter().all(Result::is_ok));
    assert!(others.iter().all(|key| permit(&world, &host, *key).is_err()));
    drop(permits);
    assert!(
        permit(&world, &host, http2("a")).is_ok(),
        "there is none any more"
    );
}

/// A connection that requests share.
struct Shared {
    key: PoolKey,
    has_room: Cell<bool>,
}

impl Multiplexed for Shared {
    type Failure = ConnectError;

    fn key(&self) -> PoolKey {
        self.key
    }

    fn is_open(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.has_room.get()
    }

    fn idle_since(&self) -> Option<Instant> {
        None
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn who_waits_for_either_version_looks_again_when_requests_can_share_a_connection() {
    let world = World::new(ONE_CONNECTION, TWO);
    let host = host(&world, 1);
    let key = PoolKey::http(HttpVersions::Either, &());
    let _connecting = permit(&world, &host, key).unwrap();
    let shared = Rc::new(Shared {
        key,
        has_room: Cell::new(false),
    });
    let look = || {
        host.shared_pool::<Shared>(RequestPriority::Default)
            .find(|_| true)
    };
    let waiting = acquire::<Connection, _>(
        (world.cluster(), &host, RequestPriority::Default),
        key,
        look,
        |_| None,
    );
    let rest = async {
        tokio::task::yield_now().await;
        host.share(RequestPriority::Default, &shared);
        tokio::task::yield_now().await;
        shared.has_room.set(true);
        host.room_was_made(RequestPriority::Default, key);
    };
    let both = async { tokio::join!(waiting, rest) };
    let (got, ()) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
    assert!(matches!(got, Ok(Acquired::Ready(_))));
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_failure_to_connect_is_told_to_those_who_wait_for_such_a_connection_alone() {
    let world = World::new("type: EDS", TWO);
    let host = host(&world, 1);
    let attempts = std::cell::RefCell::new(Vec::<(ConnectionPermit, Attempt<Shared>)>::new());
    let wait = |key| {
        let target = (world.cluster(), &host, RequestPriority::Default);
        acquire_shared::<Shared>(
            target,
            key,
            move |shared| shared.key == key,
            |permit, attempt| attempts.borrow_mut().push((permit, attempt)),
        )
    };
    let rest = async {
        tokio::task::yield_now().await;
        assert_eq!(attempts.borrow().len(), 2, "each has a connection made");
        // As when whoever makes it comes to grief.
        drop(attempts.borrow_mut().remove(0));
        tokio::task::yield_now().await;
        let (permit, attempt) = attempts.borrow_mut().remove(0);
        attempt.end(Ok(Rc::new(Shared {
            key: permit.key(),
            has_room: Cell::new(true),
        })));
    };
    let all = async { tokio::join!(wait(http2("a")), wait(http2("b")), rest) };
    let (a, b, ()) = tokio::time::timeout(PATIENCE, all).await.expect("in time");
    assert!(matches!(a, Err(SharedError::Connect(_))));
    assert!(b.is_ok());
}

/// As in Envoy, where each priority has pools of its own.
#[test]
fn a_priority_neither_takes_nor_closes_the_connections_of_another() {
    let both = "type: EDS\ncircuit_breakers: { thresholds: [{ max_connections: 1 }, { priority: HIGH, max_connections: 1 }] }";
    let world = World::new(both, TWO);
    let now = Instant::now();
    give_back(open(&world, 1, 0), now);
    let host = host(&world, 1);
    let take = |priority| ConnectionPermit::take(world.cluster(), &host, priority, http1());
    let is_there = |priority| host.pool::<Connection>(priority).take(now, None, |_| true);
    assert!(is_there(RequestPriority::High).is_none());
    let high = take(RequestPriority::High).unwrap();
    assert_eq!(world.stat("upstream_cx_overflow"), 0);
    assert!(
        take(RequestPriority::High).is_err(),
        "nothing idle counts against it"
    );
    assert_eq!((idle(&world, 1), world.stat("upstream_cx_active")), (Some(1), 2));
    assert!(take(RequestPriority::Default).is_ok(), "the idle one makes room");
    assert_eq!(idle(&world, 1), Some(0));
    drop(high);
    assert!(take(RequestPriority::High).is_ok());
}
