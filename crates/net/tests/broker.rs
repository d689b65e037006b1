//! The broker end to end over a real Unix socket: a sidecar's questions, a policy's answers.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use net::broker::{Broker, BrokeredListener, Family, ListenerKind, Policy, Server, serve_channel};
use net::descriptors;
use net::socket::{self, PortSharing};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Grants one Direct listener per wildcard address and refuses everything else.
struct OneListener {
    namespace: Option<OwnedFd>,
    granted: Option<SocketAddr>,
}

/// Where the configuration looks for the application, and where it is.
const MOVED: (&str, &str) = ("127.66.0.1:9080", "127.0.0.1:20001");

impl Policy for OneListener {
    fn listen(&mut self, address: SocketAddr) -> io::Result<Vec<BrokeredListener>> {
        if !address.ip().is_unspecified() {
            return Err(io::Error::from_raw_os_error(98));
        }
        let wanted = self.granted.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let fd = socket::listen(wanted, PortSharing::Shared)?;
        let local_addr = socket::local_address(&fd)?;
        self.granted = Some(local_addr);
        Ok(vec![BrokeredListener {
            fd,
            kind: ListenerKind::Direct,
            local_addr,
        }])
    }

    fn namespace_channel(&mut self) -> io::Result<Option<OwnedFd>> {
        Ok(self.namespace.take())
    }

    fn moved(&self) -> Vec<(SocketAddr, SocketAddr)> {
        vec![(MOVED.0.parse().unwrap(), MOVED.1.parse().unwrap())]
    }
}

/// Serves a policy while `sidecar` runs on another thread, as it does in another process.
fn check_broker(namespace: Option<OwnedFd>, sidecar: impl FnOnce(Broker) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.sock");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async {
        let server = Server::bind(&path).unwrap();
        let at = path.clone();
        let sidecar = tokio::task::spawn_blocking(move || sidecar(Broker::connect(&at).unwrap()));
        tokio::select! {
            served = server.serve(OneListener { namespace, granted: None }) => panic!("the broker ended: {served:?}"),
            done = tokio::time::timeout(PATIENCE, sidecar) => done,
        }
    });
    // A sidecar that still waits for an answer must not be waited for.
    runtime.shutdown_background();
    done.expect("in time").unwrap();
    assert!(!path.exists(), "the socket file goes away with the server");
}

/// The server's own copies of the descriptors close some time after they were received, and until then a connection may
/// wait behind one of them; so each worker keeps its listener, and the two of them take every connection.
#[test]
fn each_worker_gets_a_listener_of_its_own_on_the_same_port() {
    const CLIENTS: usize = 64;
    check_broker(None, |broker| {
        let wildcard = "0.0.0.0:15006".parse().unwrap();
        let granted: Vec<BrokeredListener> = (0..2)
            .map(|_| {
                let mut answer = broker.listen(wildcard).unwrap();
                assert_eq!(answer.len(), 1);
                answer.remove(0)
            })
            .collect();
        assert!(granted.iter().all(|l| l.kind == ListenerKind::Direct));
        let address = granted[0].local_addr;
        assert_eq!(address, granted[1].local_addr);
        let clients: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| TcpStream::connect_timeout(&address, PATIENCE).unwrap())
            .collect();
        let accepted: Vec<usize> = granted
            .into_iter()
            .map(|l| {
                let listener = TcpListener::from(l.fd);
                listener.set_nonblocking(true).unwrap();
                std::iter::from_fn(|| listener.accept().ok()).count()
            })
            .collect();
        assert_eq!(accepted.iter().sum::<usize>(), CLIENTS, "{accepted:?}");
        assert!(
            accepted.iter().all(|a| *a > 0),
            "one listener took all: {accepted:?}"
        );
        drop(clients);
    });
}

#[test]
fn a_refusal_keeps_its_kind() {
    check_broker(None, |broker| {
        let error = broker.listen("127.0.0.1:8080".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn without_a_namespace_sockets_are_the_hosts() {
    check_broker(None, |broker| {
        let socket = broker.socket(Family::V4).unwrap();
        assert!(socket::local_address(&socket).unwrap().ip().is_unspecified());
    });
}

#[test]
fn an_application_is_found_where_it_really_listens() {
    check_broker(None, |broker| {
        assert_eq!(broker.destination(MOVED.0.parse().unwrap()).to_string(), MOVED.1);
        let other = "127.66.0.1:9081".parse().unwrap();
        assert_eq!(broker.destination(other), other);
    });
}

#[test]
fn sockets_come_over_the_namespace_channel_and_are_fetched_ahead() {
    let (ours, theirs) = descriptors::channel().unwrap();
    descriptors::set_receive_timeout(&ours, PATIENCE).unwrap();
    let answered = std::thread::spawn(move || {
        let mut rounds = 0;
        while serve_channel(&ours).unwrap() {
            rounds += 1;
        }
        rounds
    });
    check_broker(Some(theirs), |broker| {
        let sockets: Vec<OwnedFd> = (0..9).map(|_| broker.socket(Family::V6).unwrap()).collect();
        assert!(socket::local_address(&sockets[8]).unwrap().is_ipv6());
    });
    assert_eq!(answered.join().unwrap(), 2, "nine sockets in two round trips");
}

#[test]
fn connecting_to_no_broker_says_so() {
    let error = Broker::connect(std::path::Path::new("/nonexistent/broker.sock")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
