//! The demo's load generator: a few requests per second, one at a time, never more.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::http;

/// What the load generator has seen.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: Cell<u64>,
    pub(crate) failed: Cell<u64>,
}

/// Asks for the product page `rps` times per second until the future is dropped. A slow answer delays the next request
/// instead of adding one.
pub(crate) async fn generate(address: SocketAddr, rps: u32, counts: Rc<Counts>) {
    if rps == 0 {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rps);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answered = http::get(address, "/productpage").await;
        counts.requests.set(counts.requests.get() + 1);
        if !matches!(answered, Ok((200, _))) {
            counts.failed.set(counts.failed.get() + 1);
        }
    }
}
