//! Cluster statistics under Envoy's names ("Cluster manager: statistics"), resolved when the cluster is compiled.

use telemetry::stats::{Counter, Gauge, Histogram, Scope};

macro_rules! cluster_stats {
    ($($kind:ident $method:ident { $($(#[$doc:meta])* $name:ident,)* })*) => {
        /// The statistics of one cluster. The handles live as long as this value does.
        #[derive(Clone, Debug)]
        pub struct ClusterStats {
            scope: Scope,
            $($($(#[$doc])* pub $name: $kind,)*)*
        }

        impl ClusterStats {
            /// Registers the statistics in `scope`, which is `cluster.<name>.`.
            #[must_use]
            pub fn new(scope: Scope) -> Self {
                Self { $($($name: scope.$method(stringify!($name)),)*)* scope }
            }

            /// The scope, for statistics that are made later.
            #[must_use]
            pub fn scope(&self) -> &Scope {
                &self.scope
            }
        }
    };
}

cluster_stats! {
    Counter counter {
        /// Connections made or tried.
        upstream_cx_total,
        /// HTTP/1 connections made or tried.
        upstream_cx_http1_total,
        /// HTTP/2 connections made or tried.
        upstream_cx_http2_total,
        /// Connections that could not be established.
        upstream_cx_connect_fail,
        /// Connections not established in time.
        upstream_cx_connect_timeout,
        /// Times a connection was refused because of `max_connections`.
        upstream_cx_overflow,
        /// Connections closed.
        upstream_cx_destroy,
        /// Connections closed by us.
        upstream_cx_destroy_local,
        /// Connections closed by the host.
        upstream_cx_destroy_remote,
        /// Connections closed with a request on them.
        upstream_cx_destroy_with_active_rq,
        /// Connections closed because they carried as many requests as they may.
        upstream_cx_max_requests,
        /// Connections closed because they were idle for too long.
        upstream_cx_idle_timeout,
        /// Connections closed because of a protocol error.
        upstream_cx_protocol_error,
        /// Connections closed because the host asked for it (`connection: close`).
        upstream_cx_close_notify,
        /// Times no host could be chosen.
        upstream_cx_none_healthy,
        /// Connections that a TCP proxy tried in vain, as often as it may.
        upstream_cx_connect_attempts_exceeded,
        /// Bytes received.
        upstream_cx_rx_bytes_total,
        /// Bytes sent.
        upstream_cx_tx_bytes_total,
        /// Requests.
        upstream_rq_total,
        /// Requests that waited for a connection.
        upstream_rq_pending_total,
        /// Requests refused because as many were waiting for a connection as may.
        upstream_rq_pending_overflow,
        /// Requests refused because as many were in flight as may.
        upstream_rq_active_overflow,
        /// Requests whose connection failed.
        upstream_rq_pending_failure_eject,
        /// Requests that ended while they waited for a connection: their time was over, or the client had gone.
        upstream_rq_cancelled,
        /// Requests that timed out.
        upstream_rq_timeout,
        /// Tries that timed out.
        upstream_rq_per_try_timeout,
        /// HTTP/2 requests reset by the host. HTTP/1 has no reset, so this stays 0 for it, as in Envoy.
        upstream_rq_rx_reset,
        /// HTTP/2 requests reset by us; 0 for HTTP/1 too.
        upstream_rq_tx_reset,
        /// Retries.
        upstream_rq_retry,
        /// Retries that brought a good answer.
        upstream_rq_retry_success,
        /// Retries refused because of a circuit breaker.
        upstream_rq_retry_overflow,
        /// Requests whose retries were used up.
        upstream_rq_retry_limit_exceeded,
        /// Retries with exponential backoff.
        upstream_rq_retry_backoff_exponential,
        /// Completed requests.
        upstream_rq_completed,
        /// Answers with a status of 100 to 199.
        upstream_rq_1xx,
        /// Answers with a status of 200 to 299.
        upstream_rq_2xx,
        /// Answers with a status of 300 to 399.
        upstream_rq_3xx,
        /// Answers with a status of 400 to 499.
        upstream_rq_4xx,
        /// Answers with a status of 500 to 599.
        upstream_rq_5xx,
        /// Requests sent while in panic.
        lb_healthy_panic,
        /// Changes of the set of hosts.
        membership_change,
        /// Connections bound to a source address that failed to bind.
        bind_errors,
        /// Hosts dropped from an `ORIGINAL_DST` cluster with a malformed override header.
        original_dst_host_invalid,
    }
    Gauge gauge {
        /// Open connections.
        upstream_cx_active,
        /// Requests in flight.
        upstream_rq_active,
        /// Requests waiting for a connection.
        upstream_rq_pending_active,
        /// Hosts, as one worker reports for all.
        membership_total,
        /// Healthy hosts, as one worker reports for all.
        membership_healthy,
        /// Degraded hosts, as one worker reports for all.
        membership_degraded,
    }
    Histogram histogram {
        /// Milliseconds to establish a connection.
        upstream_cx_connect_ms,
        /// Milliseconds that a connection lived.
        upstream_cx_length_ms,
        /// Milliseconds of a request, from its start to the end of the answer.
        upstream_rq_time,
    }
}

impl ClusterStats {
    /// The counter of answers of a status class (2 for 200 to 299), for 1 to 5.
    #[must_use]
    pub fn status_class(&self, status: u16) -> Option<Counter> {
        match status / 100 {
            1 => Some(self.upstream_rq_1xx),
            2 => Some(self.upstream_rq_2xx),
            3 => Some(self.upstream_rq_3xx),
            4 => Some(self.upstream_rq_4xx),
            5 => Some(self.upstream_rq_5xx),
            _ => None,
        }
    }
}
