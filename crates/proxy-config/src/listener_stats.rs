//! Statistics of one listener (Envoy: "Listener statistics").

use telemetry::stats::{Counter, Gauge, Histogram, Scope};

/// `listener.<address>.` statistics.
#[derive(Clone, Debug)]
pub struct ListenerStats {
    /// Keeps the handles valid.
    pub scope: Scope,
    /// Connections accepted.
    pub downstream_cx_total: Counter,
    /// Connections ended.
    pub downstream_cx_destroy: Counter,
    /// Connections alive.
    pub downstream_cx_active: Gauge,
    /// Life of a connection, milliseconds.
    pub downstream_cx_length_ms: Histogram,
    /// Connections still before their filter chain.
    pub downstream_pre_cx_active: Gauge,
    /// Connections whose listener filters took too long.
    pub downstream_pre_cx_timeout: Counter,
    /// Connections without a filter chain.
    pub no_filter_chain_match: Counter,
    /// Connections whose TLS handshake took too long.
    pub downstream_cx_transport_socket_connect_timeout: Counter,
    /// Connections closed because their task panicked (not in Envoy).
    pub connection_panic: Counter,
}

impl ListenerStats {
    /// The statistics in `scope`.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self {
            downstream_cx_total: scope.counter("downstream_cx_total"),
            downstream_cx_destroy: scope.counter("downstream_cx_destroy"),
            downstream_cx_active: scope.gauge("downstream_cx_active"),
            downstream_cx_length_ms: scope.histogram("downstream_cx_length_ms"),
            downstream_pre_cx_active: scope.gauge("downstream_pre_cx_active"),
            downstream_pre_cx_timeout: scope.counter("downstream_pre_cx_timeout"),
            no_filter_chain_match: scope.counter("no_filter_chain_match"),
            downstream_cx_transport_socket_connect_timeout: scope
                .counter("downstream_cx_transport_socket_connect_timeout"),
            connection_panic: scope.counter("connection_panic"),
            scope,
        }
    }
}
