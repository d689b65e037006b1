//! What all HTTP connections of one worker share: buffers, the date, heads to reuse.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use proxy_http::{RequestHead, ResponseHead};

use super::buffer::BufferPool;
use super::date::DateCache;
use super::limits;

/// The heads of one exchange. They are reused, so that their memory is allocated once.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
}

/// One worker's share of everything.
#[derive(Debug)]
pub(crate) struct HttpLocal {
    pub(crate) buffers: BufferPool,
    pub(crate) date: DateCache,
    /// The address that stands in for a loopback peer in `x-forwarded-for`.
    pub(crate) own_address: Option<IpAddr>,
    /// Boxed, because they move with every exchange.
    #[allow(clippy::vec_box)]
    free_heads: RefCell<Vec<Box<Heads>>>,
    next_upstream_connection: Cell<u64>,
}

impl Default for HttpLocal {
    fn default() -> Self {
        HttpLocal {
            buffers: BufferPool::default(),
            date: DateCache::default(),
            own_address: own_address(),
            free_heads: RefCell::default(),
            next_upstream_connection: Cell::new(0),
        }
    }
}

impl HttpLocal {
    /// Heads for an exchange; may hold what the last one left.
    pub(crate) fn take_heads(&self) -> Box<Heads> {
        self.free_heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps heads for the next exchange.
    pub(crate) fn give_heads(&self, heads: Box<Heads>) {
        let mut free = self.free_heads.borrow_mut();
        if free.len() < limits::FREE_HEADS {
            free.push(heads);
        }
    }

    /// A number for an upstream connection, unique on this worker.
    pub(crate) fn next_upstream_connection(&self) -> u64 {
        let id = self.next_upstream_connection.get() + 1;
        self.next_upstream_connection.set(id);
        id
    }
}

/// This machine's address as others see it: the source address of a route to the outside. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    const OUTSIDE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(OUTSIDE).ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}
