//! What carries requests to their end: a whole connection under HTTP/1, one after the other; one stream under HTTP/2.

use std::rc::Rc;

use proxy_core::ConnectionInfo;
use tokio::time::Instant;

use super::HttpConnectionManager;
use super::downlink::Downlink;
use super::life::Life;
use super::timer::DeadlineTimer;
use crate::drain::Drain;
use crate::local::Local;

/// What the requests of a connection have in common.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) manager: Rc<HttpConnectionManager>,
    pub(crate) worker: Local,
    pub(crate) info: Rc<ConnectionInfo>,
    /// Our element of `x-forwarded-client-cert`.
    pub(crate) client_cert: Option<Rc<str>>,
    pub(crate) drain: Drain,
    pub(crate) life: Rc<Life>,
}

/// A client's side, and what an exchange needs besides.
#[derive(Debug)]
pub(crate) struct ActiveStream<D> {
    pub(crate) down: D,
    pub(crate) timer: DeadlineTimer,
    pub(crate) manager: Rc<HttpConnectionManager>,
    pub(crate) worker: Local,
    pub(crate) info: Rc<ConnectionInfo>,
    pub(crate) client_cert: Option<Rc<str>>,
    pub(crate) drain: Drain,
    pub(crate) life: Rc<Life>,
    /// Requests so far.
    pub(crate) requests: u32,
    /// When the last request ended, or the connection began.
    pub(crate) idle_since: Instant,
    /// How much had been used of what came, and sent, when the present request began.
    pub(crate) request_began_at: (u64, u64),
    /// Bytes of the present request's fields.
    pub(crate) field_bytes: usize,
}

impl<D: Downlink> ActiveStream<D> {
    pub(crate) fn new(down: D, origin: Origin) -> Self {
        // Streams that share a connection hear of its end from it.
        let timer = match D::MULTIPLEXED {
            true => DeadlineTimer::default(),
            false => DeadlineTimer::watching(&origin.drain),
        };
        ActiveStream {
            down,
            timer,
            manager: origin.manager,
            worker: origin.worker,
            info: origin.info,
            client_cert: origin.client_cert,
            drain: origin.drain,
            idle_since: origin.life.opened,
            life: origin.life,
            requests: 0,
            request_began_at: (0, 0),
            field_bytes: 0,
        }
    }

    /// What the client has broken is not read on.
    pub(crate) fn client_broke_protocol(&self) {
        self.worker
            .shard()
            .inc(self.manager.config.stats.downstream_cx_protocol_error);
    }

    /// Counts a request whose connection is over before it is, and says why it is, in the words of the access log.
    pub(crate) fn connection_is_over(&self) -> &'static str {
        let stats = &self.manager.config.stats;
        self.worker.shard().inc(stats.downstream_rq_rx_reset);
        self.life.breaks_off();
        match self.drain.over() {
            Some(end) => end.details(),
            None => {
                self.life.client_is_gone();
                "downstream_remote_disconnect"
            }
        }
    }
}
