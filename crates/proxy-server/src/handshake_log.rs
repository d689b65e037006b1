//! What the proxy's own log says of TLS handshakes that failed: who came, and which check it did not pass. Envoy says so
//! at its debug level only; access logs have the reason where they record connections.

use std::cell::Cell;
use std::time::Instant;

use proxy_core::ConnectionInfo;
use tls::HandshakeFailure;

use crate::limits::{HANDSHAKE_FAILURES_LOGGED, HANDSHAKE_LOG_PERIOD};

/// A worker's share of the log. Whoever makes many handshakes fail fills it slowly: what is beyond
/// [`HANDSHAKE_FAILURES_LOGGED`] in a [`HANDSHAKE_LOG_PERIOD`] is counted, and the number is told with the next that is
/// logged.
#[derive(Debug, Default)]
pub(crate) struct HandshakeLog {
    period: Cell<Option<Instant>>,
    logged: Cell<u32>,
    unsaid: Cell<u64>,
}

impl HandshakeLog {
    /// Logs a failure, if it is its turn.
    pub(crate) fn failed(&self, listener: &str, peer: &ConnectionInfo, failure: &HandshakeFailure) {
        let chain = &*peer.filter_chain_name;
        // Whoever only looks whether a port is open has broken nothing.
        if matches!(failure, HandshakeFailure::Closed) || !self.admits(Instant::now()) {
            tracing::debug!(listener, chain, %failure, "TLS handshake failed");
            return;
        }
        let unsaid = self.unsaid.take();
        tracing::warn!(
            listener, chain, peer = %peer.remote_address, %failure, unsaid, "TLS handshake failed"
        );
    }

    fn admits(&self, now: Instant) -> bool {
        let over = |began: Instant| now.duration_since(began) >= HANDSHAKE_LOG_PERIOD;
        if self.period.get().is_none_or(over) {
            self.period.set(Some(now));
            self.logged.set(0);
        }
        let admitted = self.logged.get() < HANDSHAKE_FAILURES_LOGGED;
        match admitted {
            true => self.logged.set(self.logged.get() + 1),
            false => self.unsaid.set(self.unsaid.get() + 1),
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_logged_in_part_and_the_rest_is_counted() {
        let (log, now) = (HandshakeLog::default(), Instant::now());
        let admitted = (0..HANDSHAKE_FAILURES_LOGGED + 7)
            .filter(|_| log.admits(now))
            .count();
        assert_eq!(admitted, HANDSHAKE_FAILURES_LOGGED as usize);
        assert_eq!(log.unsaid.get(), 7);
        assert!(log.admits(now + HANDSHAKE_LOG_PERIOD));
    }
}
