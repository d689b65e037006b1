//! Sockets that reach the application, by way of the socket broker.

use std::net::SocketAddr;
use std::sync::Arc;

use net::broker::{Broker, Family};
use proxy_upstream::Dialer;
use proxy_upstream::connect::SocketFuture;

/// Takes upstream sockets from the broker.
#[derive(Debug)]
pub(crate) struct BrokerDialer {
    broker: Arc<Broker>,
}

impl BrokerDialer {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }
}

impl Dialer for BrokerDialer {
    fn socket(&self, ipv6: bool) -> SocketFuture<'_> {
        let family = if ipv6 { Family::V6 } else { Family::V4 };
        Box::pin(async move { self.broker.socket(family) })
    }

    fn destination(&self, address: SocketAddr) -> SocketAddr {
        self.broker.destination(address)
    }
}
