//! Requests while everything that carries them is replaced: none may be lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use api_envoy::type_url::{CLUSTER, LISTENER};

use crate::harness::discovery::Discovery;
use crate::harness::program::{Program, on_both};
use crate::harness::{Client, cluster, http_filters, http_upstream, listener};

/// How long the configuration changes, and how often.
const TIME: Duration = Duration::from_secs(4);
const EVERY: Duration = Duration::from_millis(200);
/// How long after it was replaced nobody uses a listener any more, which drains for a second.
const DRAINED: Duration = Duration::from_secs(2);
/// Clients of each version of HTTP.
const CLIENTS: usize = 3;

/// What came of the requests.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    answered: AtomicUsize,
    lost: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    fn lose(&self, what: String) {
        self.lost.lock().unwrap().push(what);
    }
}

/// Asks again and again, each time on the connection of the time before as long as that is open.
fn ask_over_http1(address: SocketAddr, tally: &Tally) {
    let mut kept: Option<Client> = None;
    while !tally.over.load(Ordering::Relaxed) {
        let is_new = kept.is_none();
        let Some(mut client) = kept.take().or_else(|| Client::connect(address)) else {
            return tally.lose("HTTP/1: no connection".to_owned());
        };
        match client.request("GET", "any", "/") {
            Some((200, _)) => {
                tally.answered.fetch_add(1, Ordering::Relaxed);
                kept = Some(client).filter(|client| !client.is_over());
            }
            Some((status, body)) => tally.lose(format!("HTTP/1: {status} {body}")),
            None => tally.lose(format!("HTTP/1: no answer, new: {is_new}")),
        }
        // Less often than the proxy closes what is idle.
        thread::sleep(Duration::from_millis(2));
    }
}

/// The same over HTTP/2, where a connection ends when the proxy says so, and what it has not begun with is asked again.
async fn ask_over_http2(address: SocketAddr, tally: Arc<Tally>) {
    while !tally.over.load(Ordering::Relaxed) {
        let stream = match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) => return tally.lose(format!("HTTP/2: no connection: {error}")),
        };
        let Ok((mut sender, connection)) = h2::client::handshake(stream).await else {
            return tally.lose("HTTP/2: no handshake".to_owned());
        };
        tokio::task::spawn_local(connection);
        while !tally.over.load(Ordering::Relaxed) {
            let Ok(ready) = sender.ready().await else { break };
            sender = ready;
            let request = http::Request::get("http://any/").body(()).unwrap();
            let Ok((answer, _)) = sender.send_request(request, true) else {
                break;
            };
            match answer.await {
                Ok(answer) if answer.status() == 200 => {
                    tally.answered.fetch_add(1, Ordering::Relaxed);
                    let mut body = answer.into_body();
                    while let Some(piece) = body.data().await {
                        if let Err(error) = piece {
                            tally.lose(format!("HTTP/2: no end: {error}"));
                            break;
                        }
                    }
                }
                Ok(answer) => tally.lose(format!("HTTP/2: {}", answer.status())),
                // It has not been looked at.
                Err(error) if error.is_go_away() => break,
                Err(error) => tally.lose(format!("HTTP/2: {error}")),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// What discovery says at one time.
#[derive(Default)]
struct Configuration {
    /// Changes the filter chain.
    prefix: u32,
    /// Changes the listener.
    whole: bool,
    /// Changes the cluster.
    timeout: u32,
    /// When the clusters that the listener has used before were replaced; their number is the name of its own. They go
    /// once no connection can be routed to them: with requests on their way, a cluster that is gone is a 503 on both.
    clusters: Vec<Instant>,
}

impl Configuration {
    fn put(&self, discovery: &Discovery, app: SocketAddr) {
        let name = format!("app{}", self.clusters.len());
        let timeout = format!("connect_timeout: {}s", 1 + self.timeout);
        let used = cluster(&name, app).replacen("connect_timeout: 1s", &timeout, 1);
        let manager = format!("stat_prefix: http{}, drain_timeout: 0.1s", self.prefix);
        let filters = http_filters(&name).replacen("stat_prefix: http", &manager, 1);
        let whole = format!("name: web, continue_on_listener_filters_timeout: {},", self.whole);
        let listener = listener("web", &filters).replacen("name: web,", &whole, 1);
        discovery.put(CLUSTER, &used);
        discovery.put(LISTENER, &listener);
        for (before, replaced) in self.clusters.iter().enumerate() {
            if replaced.elapsed() > DRAINED {
                discovery.remove(CLUSTER, &format!("app{before}"));
            }
        }
    }
}

/// Replaces filter chains, listeners and clusters, in an order that looks random and repeats.
fn change(discovery: &Discovery, app: SocketAddr) {
    let (began, order) = (Instant::now(), [0, 3, 1, 2, 2, 0, 1, 3, 3, 1, 0, 2, 1, 1, 0, 0]);
    let mut now = Configuration::default();
    for what in order.into_iter().cycle() {
        match what {
            0 => now.prefix += 1,
            1 => now.whole = !now.whole,
            2 => now.timeout += 1,
            _ => now.clusters.push(Instant::now()),
        }
        now.put(discovery, app);
        thread::sleep(EVERY);
        if began.elapsed() > TIME {
            return;
        }
    }
}

fn check(program: &Program) {
    let (discovery, app) = (Discovery::start(), http_upstream("app"));
    Configuration::default().put(&discovery, app);
    let proxy = program.launch_with(&discovery.bootstrap(), &["--drain-time-s", "1"]);
    let (address, tally) = (proxy.listener("web"), Arc::new(Tally::default()));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| ask_over_http1(address, &tally));
        }
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                let clients = (0..CLIENTS).map(|_| ask_over_http2(address, Arc::clone(&tally)));
                let clients: Vec<_> = clients.map(tokio::task::spawn_local).collect();
                for client in clients {
                    client.await.unwrap();
                }
            });
        });
        change(&discovery, app);
        tally.over.store(true, Ordering::Relaxed);
    });
    assert!(discovery.nacks().is_empty(), "{:?}", discovery.nacks());
    let (lost, answered) = (tally.lost.lock().unwrap(), tally.answered.load(Ordering::Relaxed));
    assert!(
        lost.is_empty(),
        "{} of {answered}: {:?}",
        lost.len(),
        &lost[..lost.len().min(5)]
    );
    assert!(answered > 100, "{answered}");
}

#[test]
fn no_request_is_lost_while_listeners_chains_and_clusters_are_replaced() {
    on_both(
        "no_request_is_lost_while_listeners_chains_and_clusters_are_replaced",
        check,
    );
}
