//! Statistics of a connection manager under Envoy's names ("HTTP connection manager: statistics"), in the scope
//! `http.<stat_prefix>.`, resolved when the configuration is compiled.

use telemetry::stats::{Counter, Gauge, Histogram, Scope, Shard};

macro_rules! http_stats {
    ($($kind:ident $method:ident { $($(#[$doc:meta])* $name:ident,)* })*) => {
        /// The handles of one connection manager's statistics.
        #[derive(Clone, Debug)]
        pub struct HttpStats {
            /// Keeps the statistics alive.
            _scope: Scope,
            $($($(#[$doc])* pub(crate) $name: $kind,)*)*
        }

        impl HttpStats {
            /// Registers the statistics.
            pub(crate) fn new(scope: Scope) -> Self {
                Self { $($($name: scope.$method(stringify!($name)),)*)* _scope: scope }
            }
        }
    };
}

http_stats! {
    Counter counter {
        /// Connections.
        downstream_cx_total,
        /// HTTP/1 connections.
        downstream_cx_http1_total,
        /// HTTP/2 connections.
        downstream_cx_http2_total,
        /// Connections over TLS.
        downstream_cx_ssl_total,
        /// Connections closed.
        downstream_cx_destroy,
        /// Connections closed by the client.
        downstream_cx_destroy_remote,
        /// Connections closed by us.
        downstream_cx_destroy_local,
        /// Connections closed with a request in flight.
        downstream_cx_destroy_active_rq,
        /// Connections closed by the client with a request in flight.
        downstream_cx_destroy_remote_active_rq,
        /// Connections closed by us with a request in flight.
        downstream_cx_destroy_local_active_rq,
        /// Connections closed because they were idle.
        downstream_cx_idle_timeout,
        /// Connections closed because they lasted too long.
        downstream_cx_max_duration_reached,
        /// Connections closed because they carried as many requests as they may.
        downstream_cx_max_requests_reached,
        /// Connections whose client did not close them in time after we had said that they end.
        downstream_cx_delayed_close_timeout,
        /// Connections closed because we drain.
        downstream_cx_drain_close,
        /// Protocol errors.
        downstream_cx_protocol_error,
        /// Upgraded connections.
        downstream_cx_upgrades_total,
        /// Bytes received.
        downstream_cx_rx_bytes_total,
        /// Bytes sent.
        downstream_cx_tx_bytes_total,
        /// Connections ended by a fault in this program (not one of Envoy's).
        downstream_cx_panic,
        /// Requests.
        downstream_rq_total,
        /// HTTP/1 requests.
        downstream_rq_http1_total,
        /// HTTP/2 requests.
        downstream_rq_http2_total,
        /// Connections closed because their client reset too many requests at once.
        downstream_rq_too_many_premature_resets,
        /// Requests that got a response.
        downstream_rq_completed,
        /// Responses of a status class.
        downstream_rq_1xx,
        /// Responses of a status class.
        downstream_rq_2xx,
        /// Responses of a status class.
        downstream_rq_3xx,
        /// Responses of a status class.
        downstream_rq_4xx,
        /// Responses of a status class.
        downstream_rq_5xx,
        /// Requests reset by the client.
        downstream_rq_rx_reset,
        /// Requests reset by us.
        downstream_rq_tx_reset,
        /// Requests that timed out before they were complete.
        downstream_rq_timeout,
        /// Requests whose head was not complete in time.
        downstream_rq_header_timeout,
        /// Requests that were idle for too long.
        downstream_rq_idle_timeout,
        /// Requests that lasted too long.
        downstream_rq_max_duration_reached,
        /// Requests larger than a limit.
        downstream_rq_too_large,
        /// Requests for a path that does not begin with a slash.
        downstream_rq_non_relative_path,
        /// Requests whose path could not be normalised.
        downstream_rq_failed_path_normalization,
        /// Requests redirected to their normalised path.
        downstream_rq_redirected_with_normalized_path,
        /// Requests answered before they were complete.
        downstream_rq_response_before_rq_complete,
        /// Upgrade requests where upgrades are not allowed.
        downstream_rq_ws_on_non_ws_route,
        /// Requests for which no route was found.
        no_route,
        /// Requests whose route's cluster does not exist.
        no_cluster,
        /// Redirects sent.
        rq_redirect,
        /// Direct responses sent.
        rq_direct_response,
        /// Requests routed.
        rq_total,
        /// Streams reset after their response had begun.
        rq_reset_after_downstream_response_started,
    }
    Gauge gauge {
        /// Open connections.
        downstream_cx_active,
        /// Open HTTP/1 connections.
        downstream_cx_http1_active,
        /// Open HTTP/2 connections.
        downstream_cx_http2_active,
        /// Open connections over TLS.
        downstream_cx_ssl_active,
        /// Open upgraded connections.
        downstream_cx_upgrades_active,
        /// Requests in flight.
        downstream_rq_active,
    }
    Histogram histogram {
        /// Milliseconds that connections lasted.
        downstream_cx_length_ms,
        /// Milliseconds that requests took.
        downstream_rq_time,
    }
}

impl HttpStats {
    /// Counts a response by its class.
    pub(crate) fn count_status(&self, shard: &Shard, status: u16) {
        let class = match status / 100 {
            1 => self.downstream_rq_1xx,
            2 => self.downstream_rq_2xx,
            3 => self.downstream_rq_3xx,
            4 => self.downstream_rq_4xx,
            5 => self.downstream_rq_5xx,
            _ => return,
        };
        shard.inc(class);
    }
}
