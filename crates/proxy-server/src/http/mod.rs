//! The HTTP connection manager and its router (`envoy.filters.network.http_connection_manager`,
//! `envoy.filters.http.router`).
//!
//! One task per downstream connection, for HTTP/2 one per stream, drives both sides, without channels: `connection` reads
//! request heads, `exchange` carries one request to its end, `routing` tries upstreams, `attempt` is one such try,
//! `forward` moves the bodies. `downlink` and `uplink` are the two sides of an exchange, HTTP/1 or HTTP/2 each.
//! Configuration is compiled once by [`HttpConfig`] and shared; [`HttpConnectionManager`] is what a worker makes of it.

mod active_stream;
mod alpn;
mod attempt;
mod body;
#[cfg(feature = "conformance")]
pub mod bridging;
mod buffer;
mod config;
mod connection;
mod date;
mod downlink;
mod download;
mod exchange;
mod failures;
#[cfg(test)]
mod faults;
mod forward;
mod forwarded;
mod grpc;
mod grpc_web;
mod http2;
mod life;
pub mod limits;
mod local;
mod local_reply;
mod mirror;
mod path;
mod peer_metadata;
mod refusals;
mod relay;
mod reply;
mod request_headers;
mod request_id;
mod response_headers;
mod routing;
mod stats;
mod terminate;
mod timer;
mod tracing;
mod transport;
mod tunnel;
mod tunnel_end;
mod uplink;
mod upload;
mod upstream;

use std::rc::Rc;
use std::sync::Arc;

use proxy_core::AccessLogger;

pub use config::{HttpConfig, RouteSource};
pub use connection::serve;
pub(crate) use local::HttpLocal;
pub use stats::HttpStats;
pub use transport::Transport;

use self::alpn::AlpnOffers;
use crate::local::Local;

/// A connection manager on one worker.
pub struct HttpConnectionManager {
    pub(crate) config: Arc<HttpConfig>,
    pub(crate) loggers: Vec<Rc<dyn AccessLogger>>,
    /// What it shares with the other connection managers of its worker.
    pub(crate) local: Rc<HttpLocal>,
    /// What is offered to hosts in TLS handshakes.
    pub(crate) alpn: AlpnOffers,
}

impl std::fmt::Debug for HttpConnectionManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpConnectionManager")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl HttpConnectionManager {
    /// Makes a worker's connection manager out of shared configuration.
    pub(crate) fn new(config: Arc<HttpConfig>, worker: &Local, local: &Rc<HttpLocal>) -> Rc<Self> {
        let loggers = worker.access_loggers(&config.access_logs);
        Rc::new(HttpConnectionManager {
            alpn: AlpnOffers::new(config.filters.alpn()),
            config,
            loggers,
            local: Rc::clone(local),
        })
    }
}
