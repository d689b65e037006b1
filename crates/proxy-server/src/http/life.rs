//! The statistics of a downstream connection's life, whichever version of HTTP it speaks.

use std::cell::Cell;
use std::rc::Rc;

use telemetry::stats::{Counter, Gauge};
use tokio::time::Instant;

use super::HttpConnectionManager;
use crate::local::Local;

/// A connection, from its filter chain to its end.
#[derive(Debug)]
pub(crate) struct Life {
    manager: Rc<HttpConnectionManager>,
    worker: Local,
    pub(crate) opened: Instant,
    is_tls: bool,
    /// The gauge of its protocol, once that is known.
    protocol: Cell<Option<Gauge>>,
    /// Requests in flight.
    active: Cell<u32>,
    ended_by_client: Cell<bool>,
    /// Bytes received and sent that are counted already.
    counted: Cell<(u64, u64)>,
}

impl Life {
    pub(crate) fn begin(manager: &Rc<HttpConnectionManager>, worker: &Local, is_tls: bool) -> Rc<Self> {
        let (shard, stats) = (worker.shard(), &manager.config.stats);
        shard.inc(stats.downstream_cx_total);
        shard.move_gauge(stats.downstream_cx_active, 1);
        if is_tls {
            shard.inc(stats.downstream_cx_ssl_total);
            shard.move_gauge(stats.downstream_cx_ssl_active, 1);
        }
        Rc::new(Life {
            manager: Rc::clone(manager),
            worker: worker.clone(),
            opened: Instant::now(),
            is_tls,
            protocol: Cell::new(None),
            active: Cell::new(0),
            ended_by_client: Cell::new(false),
            counted: Cell::new((0, 0)),
        })
    }

    /// The protocol is known.
    pub(crate) fn speaks(&self, (total, active): (Counter, Gauge)) {
        self.worker.shard().inc(total);
        self.worker.shard().move_gauge(active, 1);
        self.protocol.set(Some(active));
    }

    /// A request is in flight.
    pub(crate) fn request_began(&self) {
        self.active.set(self.active.get() + 1);
    }

    /// It is so no more; gives how many still are.
    pub(crate) fn request_ended(&self) -> u32 {
        self.active.set(self.active.get().saturating_sub(1));
        self.active.get()
    }

    /// Requests in flight.
    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    /// The client has closed the connection, or it broke.
    pub(crate) fn client_is_gone(&self) {
        self.ended_by_client.set(true);
    }

    /// Counts what has been moved since the last call; the numbers are those since the beginning.
    pub(crate) fn count_bytes(&self, received: u64, sent: u64) {
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        let before = self.counted.replace((received, sent));
        shard.add(stats.downstream_cx_rx_bytes_total, received - before.0);
        shard.add(stats.downstream_cx_tx_bytes_total, sent - before.1);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        shard.inc(stats.downstream_cx_destroy);
        let (side, side_active) = if self.ended_by_client.get() {
            (
                stats.downstream_cx_destroy_remote,
                stats.downstream_cx_destroy_remote_active_rq,
            )
        } else {
            (
                stats.downstream_cx_destroy_local,
                stats.downstream_cx_destroy_local_active_rq,
            )
        };
        shard.inc(side);
        if self.active.get() > 0 {
            shard.inc(stats.downstream_cx_destroy_active_rq);
            shard.inc(side_active);
        }
        shard.move_gauge(stats.downstream_cx_active, -1);
        if let Some(gauge) = self.protocol.get() {
            shard.move_gauge(gauge, -1);
        }
        if self.is_tls {
            shard.move_gauge(stats.downstream_cx_ssl_active, -1);
        }
        let length = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        shard.record(stats.downstream_cx_length_ms, length);
    }
}
