//! Statistics of the HTTP/2 codec under Envoy's names ("HTTP/2 codec statistics"): for all downstream connections in
//! `http2.`, for those of a cluster in `cluster.<name>.http2.`.

use telemetry::stats::{Counter, Gauge, Scope};

macro_rules! http2_stats {
    ($($kind:ident $method:ident { $($(#[$doc:meta])* $name:ident,)* })*) => {
        /// The handles. They keep the statistics alive.
        #[derive(Clone, Debug)]
        pub struct Http2Stats {
            _scope: Scope,
            $($($(#[$doc])* pub $name: $kind,)*)*
        }

        impl Http2Stats {
            /// Registers the statistics in a scope, with this before their names.
            #[must_use]
            pub fn new(scope: &Scope, prefix: &str) -> Self {
                Self {
                    $($($name: scope.$method(&format!("{prefix}{}", stringify!($name))),)*)*
                    _scope: scope.clone(),
                }
            }
        }
    };
}

http2_stats! {
    Counter counter {
        /// Connections that were told to end.
        goaway_sent,
        /// Heads with more fields or bytes than the limit.
        header_overflow,
        /// Connections closed because of frames without payload.
        inbound_empty_frames_flood,
        /// Connections closed because of `PRIORITY` frames.
        inbound_priority_frames_flood,
        /// Connections closed because of `WINDOW_UPDATE` frames.
        inbound_window_update_frames_flood,
        /// Connections closed because a ping was not answered.
        keepalive_timeout,
        /// Malformed messages.
        rx_messaging_error,
        /// Streams reset by the peer.
        rx_reset,
        /// Streams reset by us.
        tx_reset,
        /// Trailers received.
        trailers,
    }
    Gauge gauge {
        /// Open streams.
        streams_active,
    }
}
