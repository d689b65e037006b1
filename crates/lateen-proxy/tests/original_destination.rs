//! Connections that were going elsewhere: the hand-off to the listener of the original destination, sockets from a
//! broker, and clusters that dial where the connection was going.

mod harness;

use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use harness::{Proxy, bootstrap, cluster, eventually, get, http_filters, socket, tcp_filters};
use net::broker::{BrokeredListener, ListenerKind, Policy, Server};
use net::socket::PortSharing;

/// Opens every wildcard listener on one loopback address, as an agent does for its sidecar: whoever dials that address
/// and some port was going there.
struct OneHost {
    ip: Ipv4Addr,
    ports: Vec<u16>,
}

impl Policy for OneHost {
    fn listen(&mut self, _: SocketAddr) -> io::Result<Vec<BrokeredListener>> {
        let ip = IpAddr::V4(self.ip);
        let open = |port: &mut u16| {
            let fd = net::socket::listen(SocketAddr::new(ip, *port), PortSharing::Shared)?;
            let local_addr = net::socket::local_address(&fd)?;
            *port = local_addr.port();
            Ok(BrokeredListener {
                fd,
                kind: ListenerKind::Direct,
                local_addr,
            })
        };
        self.ports.iter_mut().map(open).collect()
    }

    fn namespace_channel(&mut self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}

/// Serves a broker at `path` for the rest of the test process.
fn broker(path: &Path, ip: Ipv4Addr, ports: &[u16]) {
    let (path, policy) = (
        path.to_owned(),
        OneHost {
            ip,
            ports: ports.to_vec(),
        },
    );
    let (ready, bound) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = Server::bind(&path).unwrap();
            ready.send(()).unwrap();
            let _ = server.serve(policy).await;
        });
    });
    bound.recv_timeout(harness::PATIENCE).unwrap();
}

/// A free port of a loopback address. Nobody else uses these addresses, so it stays free.
fn free_port(ip: Ipv4Addr) -> u16 {
    let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A listener as istiod writes those that nobody binds.
fn unbound(address: SocketAddr, filters: &str) -> String {
    format!(
        "{{ name: \"{address}\", address: {}, bind_to_port: false, filter_chains: [{{ filters: {filters} }}] }}",
        socket(address)
    )
}

/// As `virtualOutbound`: everything goes to the listener of its destination, or through `fallback`.
fn virtual_outbound(fallback: &str) -> String {
    format!(
        "{{ name: virtualOutbound, address: {}, use_original_dst: true, filter_chains: [{{ filters: {} }}] }}",
        socket("0.0.0.0:15001".parse().unwrap()),
        tcp_filters(fallback)
    )
}

fn start(ip: Ipv4Addr, ports: &[u16], listeners: &[String], clusters: &[String]) -> Proxy {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.sock");
    broker(&path, ip, ports);
    let flags = ["--socket-broker", path.to_str().unwrap(), "--concurrency", "2"];
    let proxy = Proxy::start(&bootstrap(listeners, clusters), &flags);
    proxy.wait_live();
    proxy
}

fn greeting(address: SocketAddr) -> Option<String> {
    let stream = harness::connect(address).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}

#[test]
fn a_connection_goes_to_the_listener_of_its_address_then_of_its_port_then_stays() {
    let ip = Ipv4Addr::new(127, 91, 7, 1);
    let ports = [free_port(ip), free_port(ip), free_port(ip)];
    let at = |port: u16| SocketAddr::new(IpAddr::V4(ip), port);
    let listeners = [
        virtual_outbound("fallback"),
        unbound(at(ports[0]), &tcp_filters("exact")),
        unbound(
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), ports[0]),
            &tcp_filters("by-port"),
        ),
        unbound(
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), ports[1]),
            &http_filters("by-port-http"),
        ),
    ];
    let clusters = [
        cluster("exact", harness::echo_upstream("exact")),
        cluster("by-port", harness::echo_upstream("by-port")),
        cluster("by-port-http", harness::http_upstream("by-port-http")),
        cluster("fallback", harness::echo_upstream("fallback")),
    ];
    let proxy = start(ip, &ports, &listeners, &clusters);
    eventually("the listener is there", || {
        greeting(at(ports[0])).filter(|line| line == "exact\n")
    });
    assert_eq!(
        get(at(ports[1]), "GET", "any", "/x").unwrap().1,
        "by-port-http /x"
    );
    assert_eq!(greeting(at(ports[2])).as_deref(), Some("fallback\n"));
    assert_eq!(
        proxy.stat(&format!("listener.0.0.0.0_{}.downstream_cx_total", ports[0])),
        0
    );
}

#[test]
fn an_original_destination_cluster_dials_where_the_connection_was_going() {
    let ip = Ipv4Addr::new(127, 91, 7, 2);
    let app = harness::echo_upstream_at(ip, "app");
    let port = free_port(ip);
    let inbound = format!(
        "{{ name: virtualInbound, traffic_direction: INBOUND, address: {}, listener_filters: [{{ name: \
         envoy.filters.listener.original_dst }}], filter_chains: [{{ filters: {} }}] }}",
        socket("0.0.0.0:15006".parse().unwrap()),
        tcp_filters("passthrough")
    );
    // The port is another, because here proxy and application share one network.
    let passthrough = format!(
        "{{ name: passthrough, connect_timeout: 1s, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, \
         original_dst_lb_config: {{ upstream_port_override: {} }} }}",
        app.port()
    );
    let proxy = start(ip, &[port], &[inbound], &[passthrough]);
    let address = SocketAddr::new(IpAddr::V4(ip), port);
    eventually("the application answers", || {
        greeting(address).filter(|line| line == "app\n")
    });
    assert!(
        proxy
            .admin("GET", "/clusters")
            .contains(&format!("passthrough::{app}::cx_total::"))
    );
}

#[test]
fn filter_chains_of_an_inbound_listener_match_the_original_port() {
    let ip = Ipv4Addr::new(127, 91, 7, 3);
    let ports = [free_port(ip), free_port(ip)];
    let chain = |port: u16, cluster: &str| {
        format!(
            "{{ filter_chain_match: {{ destination_port: {port} }}, filters: {} }}",
            tcp_filters(cluster)
        )
    };
    let inbound = format!(
        "{{ name: virtualInbound, address: {}, listener_filters: [{{ name: envoy.filters.listener.original_dst }}], \
         filter_chains: [{}, {}] }}",
        socket("0.0.0.0:15006".parse().unwrap()),
        chain(ports[0], "one"),
        chain(15006, "blackhole")
    );
    let clusters = [
        cluster("one", harness::echo_upstream("one")),
        cluster("blackhole", harness::echo_upstream("blackhole")),
    ];
    let proxy = start(ip, &ports, &[inbound], &clusters);
    eventually("the chain of the port", || {
        greeting(SocketAddr::new(IpAddr::V4(ip), ports[0])).filter(|l| l == "one\n")
    });
    let refused = greeting(SocketAddr::new(IpAddr::V4(ip), ports[1]));
    assert!(refused.is_none_or(|line| line.is_empty()), "no chain, no answer");
    assert_eq!(proxy.stat("listener.0.0.0.0_15006.no_filter_chain_match"), 1);
}
