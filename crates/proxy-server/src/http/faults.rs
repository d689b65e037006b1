//! What faults in this program leave behind: a request whose exchange panics is gone, with everything that it held, and
//! the worker goes on.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::json::Schema;
use bytes::BytesMut;
use proxy_config::{CompileContext, LocalNode, NameTables};
use proxy_core::{Address, ConnectionInfo, Random};
use proxy_observe::LogFiles;
use proxy_upstream::connect::SocketFuture;
use proxy_upstream::metadata_exchange::Told;
use proxy_upstream::{ClusterConfig, ClusterManager, ClusterSlot, ClusterUpdate, Dialer, Stream};
use telemetry::stats::{Registry, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{HttpConfig, HttpConnectionManager, HttpLocal, serve};
use crate::downstream::Downstream;
use crate::drain::Drain;
use crate::local::Local;

const PATIENCE: Duration = Duration::from_secs(20);

/// The fault: it strikes while a request waits for its connection to a host, when all of it is counted.
struct Panics;

impl Dialer for Panics {
    fn socket(&self, _: bool) -> SocketFuture<'_> {
        panic!("the fault that this test is about");
    }
}

/// A worker with a cluster that it cannot connect to without a panic, and a connection manager that tries.
fn manager(registry: &Registry) -> (Rc<HttpConnectionManager>, Local) {
    let proto = Schema::get().parse_yaml(
        "stat_prefix: http\nupgrade_configs: [{ upgrade_type: websocket }]\nroute_config: { virtual_hosts: [{ name: a, \
         domains: ['*'], routes: [{ match: { prefix: / }, route: { cluster: app } }] }] }\nhttp_filters: [{ name: \
         router, typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }]",
    );
    let (mut names, node) = (NameTables::default(), LocalNode::default());
    let files = LogFiles::start(PATIENCE).unwrap();
    let mut context = CompileContext::new(&mut names, registry, &node, &files);
    let config = Arc::new(HttpConfig::compile(&proto.unwrap(), &mut context).unwrap());
    let mut clusters = ClusterManager::new(registry.shard(), 1, Some(Rc::new(Panics)));
    clusters.apply(cluster(names.cluster("app"), registry), Instant::now());
    let told = Arc::new(Told::of(&Node::default()));
    let worker = Local::new(registry.shard(), Random::new(1), clusters, ("host", told));
    let manager = HttpConnectionManager::new(config, &worker, &Rc::<HttpLocal>::default());
    (manager, worker)
}

fn cluster(slot: ClusterSlot, registry: &Registry) -> ClusterUpdate {
    let address = "socket_address: { address: 127.0.0.1, port_value: 1 }";
    let proto = Schema::get().parse_yaml(&format!(
        "name: app\ntype: STATIC\nupstream_bind_config: {{ source_address: {{ address: 127.0.0.6, port_value: 0 }} }}\n\
         load_assignment: {{ cluster_name: app, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ {address} }} \
         }} }}] }}] }}"
    ));
    let config = Arc::new(ClusterConfig::compile(&proto.unwrap(), registry).unwrap());
    let endpoints = config.initial_endpoints().expect("no discovery");
    ClusterUpdate::Put {
        slot,
        config,
        endpoints,
    }
}

/// A client whose connection is served by this manager.
async fn client(
    manager: &Rc<HttpConnectionManager>,
    worker: &Local,
) -> (TcpStream, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let ip = Address::Ip(address);
    let downstream = Downstream {
        stream: Stream::Tcp(accepted.unwrap().0),
        read: BytesMut::new(),
        connection: Rc::new(ConnectionInfo::new(1, ip.clone(), ip, SystemTime::now())),
        drain: Drain::default(),
        buffer_limit_bytes: 1 << 20,
        worker: worker.clone(),
    };
    let served = tokio::task::spawn_local(serve(downstream, Rc::clone(manager)));
    (client.unwrap(), served)
}

/// Gauges and counters that are not zero.
fn left(registry: &Registry, names: &[&str]) -> Vec<(String, u64)> {
    let all = registry
        .snapshot()
        .into_iter()
        .filter_map(|stat| match stat.value {
            Value::Gauge(value) => Some((stat.name, value)),
            Value::Counter(value) if names.contains(&stat.name.as_str()) => Some((stat.name, value)),
            _ => None,
        });
    let mut left: Vec<_> = all.filter(|(_, value)| *value > 0).collect();
    left.sort();
    left
}

async fn run(test: impl Future<Output = ()>) {
    let local = tokio::task::LocalSet::new();
    let test = tokio::time::timeout(PATIENCE, local.run_until(test));
    test.await.expect("in time");
}

#[tokio::test]
async fn an_http1_exchange_that_panics_is_counted_nowhere_any_more() {
    run(async {
        let registry = Registry::new();
        let (manager, worker) = manager(&registry);
        let (mut client, served) = client(&manager, &worker).await;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        client.write_all(request).await.unwrap();
        assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        served.await.expect("the panic is caught");
        let counters = [
            "http.http.downstream_cx_panic",
            "http.http.downstream_cx_upgrades_total",
        ];
        assert_eq!(
            left(&registry, &counters),
            counters.map(|name| (name.to_owned(), 1))
        );
    })
    .await;
}

#[tokio::test]
async fn an_http2_stream_that_panics_is_counted_nowhere_any_more_and_others_go_on() {
    run(async {
        let registry = Registry::new();
        let (manager, worker) = manager(&registry);
        let (stream, served) = client(&manager, &worker).await;
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let driven = tokio::task::spawn_local(connection);
        for _ in 0..2 {
            sender = sender.ready().await.unwrap();
            let request = http::Request::get("http://a/").body(()).unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            assert!(answer.await.unwrap_err().is_reset());
        }
        drop(sender);
        driven.await.unwrap().unwrap();
        served.await.unwrap();
        let panics = "http.http.downstream_cx_panic";
        assert_eq!(left(&registry, &[panics]), [(panics.to_owned(), 2)]);
    })
    .await;
}
