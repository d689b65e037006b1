//! The statistics of a downstream connection's life, whichever version of HTTP it speaks.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use telemetry::stats::{Counter, Gauge};
use tokio::time::Instant;

use super::HttpConnectionManager;
use crate::drain::Drain;
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
    /// It was over before a request on it was.
    broke_off: Cell<bool>,
    /// It has begun to end because its filter chain drains.
    drains: Cell<bool>,
    /// When it begins to do so of itself, drawn once.
    closing_time: OnceCell<Option<Instant>>,
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
            broke_off: Cell::new(false),
            drains: Cell::new(false),
            closing_time: OnceCell::new(),
            counted: Cell::new((0, 0)),
        })
    }

    /// The protocol is known.
    pub(crate) fn speaks(&self, (total, active): (Counter, Gauge)) {
        self.worker.shard().inc(total);
        self.worker.shard().move_gauge(active, 1);
        self.protocol.set(Some(active));
    }

    /// Counts a request as in flight, until the value is dropped.
    pub(crate) fn begin_request(self: &Rc<Self>) -> InFlight {
        self.active.set(self.active.get() + 1);
        let gauge = self.manager.config.stats.downstream_rq_active;
        self.worker.shard().move_gauge(gauge, 1);
        InFlight {
            life: Rc::clone(self),
            is_upgrade: false,
        }
    }

    /// Requests in flight.
    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    /// The client has closed the connection, or it broke.
    pub(crate) fn client_is_gone(&self) {
        self.ended_by_client.set(true);
    }

    /// It is over, and a request on it is not.
    pub(crate) fn breaks_off(&self) {
        self.broke_off.set(true);
    }

    /// When it begins to end of itself because its filter chain drains, if it does.
    pub(crate) fn closing_time(&self, drain: &Drain) -> Option<Instant> {
        if !drain.is_started() {
            return None;
        }
        *self.closing_time.get_or_init(|| {
            let grace = self.manager.config.timeouts.drain;
            let at = drain.closing_time(self.opened.into_std(), grace, self.worker.random());
            at.map(Instant::from_std)
        })
    }

    /// It begins to end because its filter chain drains, which is counted once.
    pub(crate) fn begin_drain(&self) {
        if !self.drains.replace(true) {
            let stats = &self.manager.config.stats;
            self.worker.shard().inc(stats.downstream_cx_drain_close);
        }
    }

    /// Whether it has begun to end because its filter chain drains.
    pub(crate) fn drains(&self) -> bool {
        self.drains.get()
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
        if self.broke_off.get() || self.active.get() > 0 {
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

/// A request in flight, and among the upgraded connections if it is one. Dropped, whatever the reason, it is so no more.
#[derive(Debug)]
pub(crate) struct InFlight {
    life: Rc<Life>,
    is_upgrade: bool,
}

impl InFlight {
    /// It may become an upgraded connection.
    pub(crate) fn becomes_upgrade(&mut self) {
        self.is_upgrade = true;
        let gauge = self.life.manager.config.stats.downstream_cx_upgrades_active;
        self.life.worker.shard().move_gauge(gauge, 1);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Life {
            manager,
            worker,
            active,
            ..
        } = &*self.life;
        active.set(active.get().saturating_sub(1));
        let stats = &manager.config.stats;
        worker.shard().move_gauge(stats.downstream_rq_active, -1);
        if self.is_upgrade {
            worker.shard().move_gauge(stats.downstream_cx_upgrades_active, -1);
        }
    }
}
