//! Listeners, upstreams and clients of these tests.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::{PATIENCE, access_log, connect, socket, tcp_filters, upstream_with};

/// Connections that an upstream may hold for the test.
const CONNECTIONS: usize = 16;

/// A filter list with a TCP proxy to `cluster` that has these fields too, and logs to `log` in this format.
pub(crate) fn tcp(cluster: &str, fields: &str, format: &str) -> String {
    let fields = format!("stat_prefix: tcp {fields} {}", access_log("log", format));
    tcp_filters(cluster).replacen("stat_prefix: tcp", &fields, 1)
}

/// A listener with these chains and further fields, on a port that was free.
pub(crate) fn listener_with(name: &str, chains: &[String], fields: &str) -> String {
    format!(
        "{{ name: {name}, address: {}, filter_chains: [{}] {fields} }}",
        socket("127.0.0.1:0".parse().unwrap()),
        chains.join(",")
    )
}

/// A chain with this match.
pub(crate) fn chain(matched: &str, filters: &str) -> String {
    format!("{{ filter_chain_match: {{ {matched} }}, filters: {filters} }}")
}

/// An upstream whose connections the test serves itself.
pub(crate) fn accepting() -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let (sender, receiver) = mpsc::sync_channel(CONNECTIONS);
    let address = upstream_with(move |stream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = sender.send(stream);
    });
    (address, receiver)
}

/// A connection through the proxy: the client's end, and the server's.
pub(crate) fn through(proxy: SocketAddr, server: &mpsc::Receiver<TcpStream>) -> (TcpStream, TcpStream) {
    let client = connect(proxy).unwrap();
    (client, server.recv_timeout(PATIENCE).expect("the proxy connects"))
}

/// Makes a connection end with a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

/// An address that answers no attempt to connect, as long as the value lives: its accept queue is full.
pub(crate) struct Unanswered {
    pub(crate) address: SocketAddr,
    _queue: (TcpListener, Vec<socket2::Socket>),
}

impl Unanswered {
    pub(crate) fn new() -> Self {
        let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = new();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let listener = TcpListener::from(listener);
        let address = listener.local_addr().unwrap();
        let waiting = (0..4).map(|_| {
            let socket = new();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        });
        let waiting = waiting.collect();
        Self {
            address,
            _queue: (listener, waiting),
        }
    }
}
