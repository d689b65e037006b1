//! Requests without end, and what came of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{self, Way};
use crate::limits::REQUEST_TIME;
use crate::page::traffic::Request;

/// Pause of a lane between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// Failures that are told in words, per lane.
const TOLD_FAILURES: usize = 3;

/// What came of a lane's requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Requests that were answered 200.
    pub(super) answered: u64,
    /// All others.
    pub(super) failed: u64,
    /// The first of those, in words.
    pub(super) failures: Vec<String>,
}

/// Lanes of requests that run until the load ends.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    lanes: JoinSet<(&'static str, Tally)>,
    /// Lanes stop to send while this is set.
    paused: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

/// How a lane makes its connections.
#[derive(Clone)]
pub(super) enum Lane {
    /// Each request on one of its own.
    Fresh(Way),
    /// All on one, which is made again only when it has ended.
    Kept {
        /// The address it starts from.
        source: Ipv4Addr,
        /// The address it goes to.
        target: SocketAddr,
    },
}

/// A request for a page of a host.
pub(super) fn get(authority: &str) -> Request {
    Request::Http {
        method: "GET".to_owned(),
        authority: authority.to_owned(),
        path: "/".to_owned(),
        headers: Vec::new(),
        http2: false,
        said: None,
    }
}

impl Load {
    pub(super) fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            lanes: JoinSet::new(),
            paused: Arc::default(),
            sent: Arc::default(),
        }
    }

    /// Opens a lane.
    pub(super) fn open(&mut self, name: &'static str, lane: Lane, authority: &str) {
        let (request, mut stop) = (get(authority), self.stop.subscribe());
        let (paused, sent) = (Arc::clone(&self.paused), Arc::clone(&self.sent));
        self.lanes.spawn(async move {
            let mut tally = Tally::default();
            let mut kept = None;
            loop {
                if !paused.load(Ordering::Relaxed) {
                    let outcome = match &lane {
                        Lane::Fresh(way) => fresh(way, &request).await,
                        Lane::Kept { source, target } => on(&mut kept, (*source, *target), &request).await,
                    };
                    sent.fetch_add(1, Ordering::Relaxed);
                    match outcome {
                        Ok(()) => tally.answered += 1,
                        Err(reason) => {
                            tally.failed += 1;
                            if tally.failures.len() < TOLD_FAILURES {
                                tally.failures.push(reason);
                            }
                        }
                    }
                }
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return (name, tally),
                    () = sleep(PAUSE) => {}
                }
            }
        });
    }

    /// Waits until this many more requests have got an answer or none.
    pub(super) async fn more(&self, requests: u64) {
        let wanted = self.sent.load(Ordering::Relaxed) + requests;
        while self.sent.load(Ordering::Relaxed) < wanted {
            sleep(PAUSE).await;
        }
    }

    /// Ends every lane. What came of them, by name; lanes of one name are added up.
    pub(super) async fn end(mut self) -> Result<BTreeMap<&'static str, Tally>> {
        self.stop.send_replace(true);
        let mut all = BTreeMap::<_, Tally>::new();
        while let Some(ended) = self.lanes.join_next().await {
            let (name, tally) = ended?;
            let sum = all.entry(name).or_default();
            sum.answered += tally.answered;
            sum.failed += tally.failed;
            sum.failures.extend(tally.failures);
        }
        Ok(all)
    }
}

async fn fresh(way: &Way, request: &Request) -> Result<(), String> {
    let answer = client::send(way, request, "load").await.answer?;
    good(answer.status, &answer.body)
}

fn good(status: u16, body: &str) -> Result<(), String> {
    match status {
        200 => Ok(()),
        other => Err(format!("{other} {}", body.chars().take(300).collect::<String>())),
    }
}

type Sender = hyper::client::conn::http1::SendRequest<http_body_util::Empty<bytes::Bytes>>;

/// Sends on the kept connection, or makes it.
async fn on(kept: &mut Option<Sender>, way: (Ipv4Addr, SocketAddr), request: &Request) -> Result<(), String> {
    if kept.as_ref().is_none_or(Sender::is_closed) {
        let connection = client::connect(way.0, way.1)
            .await
            .map_err(|e| format!("{e:#}"))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await;
        let (sender, driver) = handshake.map_err(|e| e.to_string())?;
        tokio::spawn(driver);
        *kept = Some(sender);
    }
    let Some(sender) = kept else {
        return Err("no connection".to_owned());
    };
    let exchange = async {
        let request = client::http_request(request, "load")?;
        client::read(sender.send_request(request).await?).await
    };
    let outcome = match timeout(REQUEST_TIME, exchange).await {
        Ok(Ok(answer)) => good(answer.status, &answer.body),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!("no answer within {REQUEST_TIME:?}")),
    };
    // A client that was told the connection is over does not use it again, and one that failed does not either.
    if outcome.is_err() || kept.as_ref().is_some_and(Sender::is_closed) {
        *kept = None;
    }
    outcome
}
