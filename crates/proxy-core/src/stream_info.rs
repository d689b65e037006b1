//! What is known of one stream (an HTTP request, or a TCP connection) when it ends: the facts behind Envoy's
//! access log operators (`StreamInfo`, "Access logging: command operators").

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use proxy_http::{Headers, RequestHead, ResponseHead, Version};

use crate::connection::{Address, ConnectionInfo};
use crate::response_flags::{ResponseFlag, ResponseFlags};

/// Times since [`StreamInfo::start`], each set once the event has happened.
#[derive(Clone, Copy, Default, Debug)]
pub struct StreamTiming {
    /// The last byte of the request came (`%REQUEST_DURATION%`).
    pub last_downstream_rx_byte: Option<Duration>,
    /// The first byte of the request went upstream (`%REQUEST_TX_DURATION%` ends with the last).
    pub first_upstream_tx_byte: Option<Duration>,
    /// The last byte of the request went upstream.
    pub last_upstream_tx_byte: Option<Duration>,
    /// The first byte of the response came (`%RESPONSE_DURATION%`).
    pub first_upstream_rx_byte: Option<Duration>,
    /// The last byte of the response came.
    pub last_upstream_rx_byte: Option<Duration>,
    /// The first byte of the response went downstream (`%RESPONSE_TX_DURATION%` begins).
    pub first_downstream_tx_byte: Option<Duration>,
    /// The last byte of the response went downstream.
    pub last_downstream_tx_byte: Option<Duration>,
    /// The stream ended (`%DURATION%`).
    pub end: Option<Duration>,
}

/// The upstream side of a stream, when it got one.
#[derive(Clone, Debug)]
pub struct UpstreamInfo {
    /// The chosen host (`%UPSTREAM_HOST%`, `%UPSTREAM_REMOTE_ADDRESS%`).
    pub host: Option<Address>,
    /// The host's configured name (`%UPSTREAM_HOST_NAME%`), where it has one.
    pub host_name: Option<Rc<str>>,
    /// Our end of the upstream connection (`%UPSTREAM_LOCAL_ADDRESS%`).
    pub local_address: Option<Address>,
    /// The id of the upstream connection (`%UPSTREAM_CONNECTION_ID%`).
    pub connection_id: Option<u64>,
    /// What the TLS handshake with the upstream told (`%UPSTREAM_TLS_VERSION%` and the like).
    pub tls: Option<Rc<tls::ConnectionInfo>>,
    /// The protocol spoken upstream (`%UPSTREAM_PROTOCOL%`).
    pub protocol: Option<Version>,
    /// Why no connection could be made (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`); empty when there was no failure.
    pub transport_failure_reason: Cow<'static, str>,
}

impl Default for UpstreamInfo {
    fn default() -> Self {
        UpstreamInfo {
            host: None,
            host_name: None,
            local_address: None,
            connection_id: None,
            tls: None,
            protocol: None,
            transport_failure_reason: Cow::Borrowed(""),
        }
    }
}

/// Bytes moved for a stream. Bodies alone where not said otherwise, as `%BYTES_RECEIVED%` counts for HTTP. Head bytes
/// are those of the field lines; upstream, all tries count.
#[derive(Clone, Copy, Default, Debug)]
pub struct StreamBytes {
    /// Body bytes from the client (`%BYTES_RECEIVED%`).
    pub received: u64,
    /// Body bytes to the client (`%BYTES_SENT%`).
    pub sent: u64,
    /// Head bytes from the client; Envoy counts the line ends of what it receives as one byte
    /// (`%DOWNSTREAM_HEADER_BYTES_RECEIVED%`).
    pub downstream_header_received: u64,
    /// Head bytes to the client (`%DOWNSTREAM_HEADER_BYTES_SENT%`).
    pub downstream_header_sent: u64,
    /// All bytes from the client (`%DOWNSTREAM_WIRE_BYTES_RECEIVED%`).
    pub downstream_wire_received: u64,
    /// All bytes to the client (`%DOWNSTREAM_WIRE_BYTES_SENT%`).
    pub downstream_wire_sent: u64,
    /// All bytes to the upstream (`%UPSTREAM_WIRE_BYTES_SENT%`).
    pub upstream_wire_sent: u64,
    /// All bytes from the upstream (`%UPSTREAM_WIRE_BYTES_RECEIVED%`).
    pub upstream_wire_received: u64,
    /// Head bytes to the upstream (`%UPSTREAM_HEADER_BYTES_SENT%`).
    pub upstream_header_sent: u64,
    /// Head bytes from the upstream (`%UPSTREAM_HEADER_BYTES_RECEIVED%`).
    pub upstream_header_received: u64,
}

/// How many messages a gRPC call had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrpcMessages {
    /// From the client.
    pub requests: u64,
    /// To the client.
    pub responses: u64,
}

/// Everything that is known of one stream. It borrows the names of the route from the configuration in force, so that
/// a request costs no copies of them.
#[derive(Clone, Debug)]
pub struct StreamInfo<'r> {
    /// The downstream connection: addresses, SNI, listener, filter chain.
    pub connection: Rc<ConnectionInfo>,
    /// The client's address as the connection manager resolved it from `x-forwarded-for`
    /// (`%DOWNSTREAM_REMOTE_ADDRESS%`); the connection's when nothing else is known.
    pub downstream_remote_address: Address,
    /// When the stream began (`%START_TIME%`).
    pub start_time: SystemTime,
    /// The same on the monotonic clock; the [`StreamTiming`]s count from here.
    pub start: Instant,
    /// When things happened.
    pub timing: StreamTiming,
    /// How much was moved.
    pub bytes: StreamBytes,
    /// The client's protocol (`%PROTOCOL%`); `None` for TCP.
    pub protocol: Option<Version>,
    /// The status sent (`%RESPONSE_CODE%`); `None` prints as 0.
    pub response_code: Option<u16>,
    /// Who decided the response and why (`%RESPONSE_CODE_DETAILS%`).
    pub response_code_details: Option<Cow<'static, str>>,
    /// Why the connection was ended (`%CONNECTION_TERMINATION_DETAILS%`).
    pub connection_termination_details: Option<Cow<'static, str>>,
    /// What went wrong, if anything.
    pub response_flags: ResponseFlags,
    /// The route's name (`%ROUTE_NAME%`).
    pub route_name: Option<&'r str>,
    /// The virtual host's name (`%VIRTUAL_HOST_NAME%`).
    pub virtual_host_name: Option<&'r str>,
    /// The cluster's name (`%UPSTREAM_CLUSTER_RAW%`).
    pub cluster_name: Option<Rc<str>>,
    /// The cluster's `alt_stat_name`, or its name (`%UPSTREAM_CLUSTER%`).
    pub cluster_observability_name: Option<Rc<str>>,
    /// The upstream side.
    pub upstream: UpstreamInfo,
    /// Tries so far (`%UPSTREAM_REQUEST_ATTEMPT_COUNT%`); 0 when the request never left.
    pub attempt_count: u32,
    /// Messages of a gRPC call (`%FILTER_STATE(envoy.filters.http.grpc_stats)%`), where they were counted.
    pub grpc_messages: Option<GrpcMessages>,
    /// Whether the `x-request-id` says that the request is traced (`traceable_filter`).
    pub is_traced: bool,
}

impl StreamInfo<'_> {
    /// A stream that begins now. Both clocks are passed in.
    pub fn new(connection: Rc<ConnectionInfo>, start_time: SystemTime, start: Instant) -> Self {
        StreamInfo {
            downstream_remote_address: connection.remote_address.clone(),
            connection,
            start_time,
            start,
            timing: StreamTiming::default(),
            bytes: StreamBytes::default(),
            protocol: None,
            response_code: None,
            response_code_details: None,
            connection_termination_details: None,
            response_flags: ResponseFlags::NONE,
            route_name: None,
            virtual_host_name: None,
            cluster_name: None,
            cluster_observability_name: None,
            upstream: UpstreamInfo::default(),
            attempt_count: 0,
            grpc_messages: None,
            is_traced: false,
        }
    }

    /// Adds a response flag.
    pub fn flag(&mut self, flag: ResponseFlag) {
        self.response_flags.set(flag);
    }

    /// Time since the start, for the fields of [`StreamTiming`].
    pub fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    /// Marks the end, unless it is marked already.
    pub fn finish(&mut self, now: Instant) {
        let elapsed = self.since_start(now);
        self.timing.end.get_or_insert(elapsed);
    }
}

/// Writes a line, or sends a record, for every stream that ends. Filters (`AccessLogFilter`) are the logger's own.
pub trait AccessLogger {
    /// Records one stream. `request` is empty when no head was understood, `response` is absent when none was sent.
    fn log(
        &self,
        info: &StreamInfo<'_>,
        request: &RequestHead,
        response: Option<&ResponseHead>,
        trailers: Option<&Headers>,
    );
}
