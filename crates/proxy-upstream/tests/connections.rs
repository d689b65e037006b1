//! Connecting: TCP, Unix sockets, original destinations, dialers, and failures.

mod support;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proxy_upstream::connect::SocketFuture;
use proxy_upstream::{
    ConnectError, ConnectionPermit, Dialer, PickContext, PickError, PoolKey, RequestPriority, Stream, connect,
};
use support::{World, random};
use tokio::net::{TcpListener, UnixListener};

/// Fails a test that would wait for ever.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("in time")
}

async fn dial(
    world: &World,
    context: &PickContext<'_>,
    dialer: Option<&dyn Dialer>,
) -> Result<Stream, ConnectError> {
    let host = world
        .cluster()
        .pick(context, Instant::now(), &mut random())
        .unwrap();
    let permit =
        ConnectionPermit::take(world.cluster(), &host, RequestPriority::Default, PoolKey::tcp()).unwrap();
    connect(&permit, dialer).await
}

fn to(destination: SocketAddr) -> PickContext<'static> {
    PickContext {
        original_destination: Some(destination),
        ..Default::default()
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_original_destination_is_its_own_host_and_the_source_address_is_bound() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = listener.local_addr().unwrap();
    let world = World::ready(
        "type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\nupstream_bind_config: { source_address: { address: 127.0.0.6, port_value: 0 } }",
    );
    let Stream::Tcp(stream) = dial(&world, &to(destination), None).await.unwrap() else {
        panic!()
    };
    let (_, peer) = within(listener.accept()).await.unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    assert!(stream.nodelay().unwrap());
    let hosts = world.cluster().hosts();
    assert_eq!(hosts.len(), 1);
    assert_eq!(&*hosts[0].spec().key, destination.to_string());
}

#[tokio::test(flavor = "current_thread")]
async fn bound_clusters_dial_through_the_dialer() {
    struct Counting(std::cell::Cell<u32>);
    impl Dialer for Counting {
        fn socket(&self, ipv6: bool) -> SocketFuture<'_> {
            self.0.set(self.0.get() + 1);
            assert!(!ipv6);
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            Box::pin(async move { Ok(OwnedFd::from(socket?)) })
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = listener.local_addr().unwrap();
    let dialer = Counting(0.into());
    let bound = "type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\nupstream_bind_config: { source_address: { address: 127.0.0.6, port_value: 0 } }";
    dial(&World::ready(bound), &to(destination), Some(&dialer))
        .await
        .unwrap();
    assert_eq!(dialer.0.get(), 1);
    let (_, peer) = within(listener.accept()).await.unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    let unbound = "type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED";
    dial(&World::ready(unbound), &to(destination), Some(&dialer))
        .await
        .unwrap();
    assert_eq!(dialer.0.get(), 1, "other clusters make their own sockets");
}

#[tokio::test(flavor = "current_thread")]
async fn a_pipe_is_connected_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let world = World::ready(&format!(
        "type: STATIC\nload_assignment: {{ endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ pipe: {{ path: '{}' }} }} }} }}] }}] }}",
        path.display()
    ));
    assert!(matches!(
        dial(&world, &PickContext::default(), None).await,
        Ok(Stream::Unix(_))
    ));
    within(listener.accept()).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_refused_connection_is_counted_and_named() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::ready("type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED");
    let error = dial(&world, &to(closed), None).await.unwrap_err();
    assert_eq!(error.to_string(), "delayed_connect_error: Connection refused");
    assert_eq!(world.stat("upstream_cx_connect_fail"), 1);
    assert_eq!(world.stat("upstream_cx_total"), 1);
    assert_eq!(world.stat("upstream_cx_active"), 0);
    assert_eq!(world.cluster().hosts()[0].counts().cx_connect_fail.get(), 1);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_host_that_does_not_answer_times_out() {
    struct Never;
    impl Dialer for Never {
        fn socket(&self, _: bool) -> SocketFuture<'_> {
            Box::pin(std::future::pending())
        }
    }
    let world = World::ready(
        "type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\nconnect_timeout: 3s\nupstream_bind_config: { source_address: { address: 127.0.0.6, port_value: 0 } }",
    );
    let started = tokio::time::Instant::now();
    let error = dial(&world, &to("127.0.0.1:1".parse().unwrap()), Some(&Never))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Timeout), "{error}");
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    assert_eq!(world.stat("upstream_cx_connect_timeout"), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_host_that_needs_tls_is_not_reached_in_plaintext() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::ready(&format!(
        "type: STATIC
transport_socket_matches:
- {{ name: tlsMode-istio, match: {{ tlsMode: istio }}, transport_socket: {{ name: envoy.transport_sockets.tls }} }}
- {{ name: tlsMode-disabled, match: {{}}, transport_socket: {{ name: envoy.transport_sockets.raw_buffer }} }}
load_assignment:
  endpoints:
  - lb_endpoints:
    - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
      metadata: {{ filter_metadata: {{ envoy.transport_socket_match: {{ tlsMode: istio }} }} }}"
    ));
    let error = dial(&world, &PickContext::default(), None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "transport socket \"tlsMode-istio\" is not available"
    );
}

#[test]
fn a_header_overrides_the_destination_where_the_cluster_says_so() {
    let world = World::ready(
        "type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\noriginal_dst_lb_config: { use_http_header: true, upstream_port_override: 99 }",
    );
    assert_eq!(
        world.cluster().destination_header(),
        Some("x-envoy-original-dst-host")
    );
    let pick = |header: &'static [u8]| {
        let context = PickContext {
            destination_header: Some(header),
            ..Default::default()
        };
        world
            .cluster()
            .pick(&context, Instant::now(), &mut random())
            .map(|host| host.spec().key.to_string())
    };
    assert_eq!(pick(b"10.0.0.1:80").unwrap(), "10.0.0.1:99");
    assert_eq!(pick(b"nonsense").unwrap_err(), PickError::NoHealthyUpstream);
    assert_eq!(world.stat("original_dst_host_invalid"), 1);
}

#[test]
fn unused_destinations_are_forgotten() {
    let world = World::ready("type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\ncleanup_interval: 10s");
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let pick = |address: &str, now| {
        world
            .cluster()
            .pick(&to(address.parse().unwrap()), now, &mut random())
            .unwrap()
    };
    world.clusters.tick(at(0));
    let busy = pick("10.0.0.1:80", at(0));
    let request = world
        .cluster()
        .begin_request(&busy, RequestPriority::Default, Instant::now())
        .unwrap();
    pick("10.0.0.2:80", at(0));
    pick("10.0.0.3:80", at(9));
    world.clusters.tick(at(11));
    let mut left: Vec<_> = world
        .cluster()
        .hosts()
        .iter()
        .map(|h| h.spec().key.to_string())
        .collect();
    left.sort();
    assert_eq!(left, ["10.0.0.1:80", "10.0.0.3:80"]);
    drop(request);
    assert!(Rc::strong_count(&busy) > 0);
}

#[test]
fn snapshots_of_workers_are_added_up() {
    let world = World::ready("type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED");
    let host = world
        .cluster()
        .pick(&to("10.0.0.1:80".parse().unwrap()), Instant::now(), &mut random())
        .unwrap();
    let _request = world
        .cluster()
        .begin_request(&host, RequestPriority::Default, Instant::now())
        .unwrap();
    host.record_status(200);
    host.record_status(503);
    let mut all = world.clusters.snapshot().remove(0);
    all.merge(world.clusters.snapshot().remove(0));
    let host = &all.hosts[0];
    assert_eq!(
        (host.rq_active, host.rq_total, host.rq_success, host.rq_error),
        (2, 2, 2, 2)
    );
}
