//! What a network filter gets: a connection whose filter chain is chosen.

use std::rc::Rc;

use bytes::BytesMut;
use proxy_core::ConnectionInfo;
use proxy_upstream::Stream;

use crate::drain::Drain;
use crate::local::Local;

/// A downstream connection on its way into a network filter.
#[derive(Debug)]
pub struct Downstream {
    /// The socket.
    pub stream: Stream,
    /// What listener filters have read already; the first bytes of the connection.
    pub read: BytesMut,
    /// What is known of it.
    pub connection: Rc<ConnectionInfo>,
    /// Whether its filter chain drains.
    pub drain: Drain,
    /// Most bytes that may be held for it and direction.
    pub buffer_limit_bytes: usize,
    /// What it may touch of the worker that it runs on.
    pub worker: Local,
}
