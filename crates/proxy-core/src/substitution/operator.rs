//! The command operators and their values.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use proxy_http::{HeaderName, Headers, grpc_status_of};

use super::{Context, TimeFormat, TransportFact};
use crate::connection;
use crate::response_flags::{ResponseFlag, ResponseFlags};
use crate::stream_info::GrpcMessages;

/// Which head or trailer an operator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `%REQ(..)%`.
    Request,
    /// `%RESP(..)%`.
    Response,
    /// `%TRAILER(..)%`.
    Trailers,
}

/// Which address an operator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The client, as trusted headers restored it.
    DownstreamRemote,
    /// The peer of the downstream socket.
    DownstreamDirectRemote,
    /// Where the connection was going.
    DownstreamLocal,
    /// The local address of the downstream socket.
    DownstreamDirectLocal,
    /// The upstream host.
    UpstreamRemote,
    /// Our end of the upstream connection.
    UpstreamLocal,
}

/// Which part of an address an operator prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Address and port.
    Whole,
    /// The address alone.
    WithoutPort,
    /// The port alone.
    Port,
}

/// A point in the life of a stream, for `%COMMON_DURATION%` and the older durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// `DS_RX_BEG`.
    DownstreamReceiveBegin,
    /// `DS_RX_END`.
    DownstreamReceiveEnd,
    /// `US_TX_BEG`.
    UpstreamSendBegin,
    /// `US_TX_END`.
    UpstreamSendEnd,
    /// `US_RX_BEG`.
    UpstreamReceiveBegin,
    /// `US_RX_END`.
    UpstreamReceiveEnd,
    /// `DS_TX_BEG`.
    DownstreamSendBegin,
    /// `DS_TX_END`.
    DownstreamSendEnd,
    /// The end of the stream, or nothing while it lasts.
    End,
}

/// The unit of a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `ms`.
    Milliseconds,
    /// `us`.
    Microseconds,
    /// `ns`.
    Nanoseconds,
}

/// A count of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// `%BYTES_RECEIVED%`.
    Received,
    /// `%BYTES_SENT%`.
    Sent,
    /// `%DOWNSTREAM_HEADER_BYTES_RECEIVED%`.
    DownstreamHeaderReceived,
    /// `%DOWNSTREAM_HEADER_BYTES_SENT%`.
    DownstreamHeaderSent,
    /// `%DOWNSTREAM_WIRE_BYTES_RECEIVED%`.
    DownstreamWireReceived,
    /// `%DOWNSTREAM_WIRE_BYTES_SENT%`.
    DownstreamWireSent,
    /// `%UPSTREAM_WIRE_BYTES_SENT%`.
    UpstreamWireSent,
    /// `%UPSTREAM_WIRE_BYTES_RECEIVED%`.
    UpstreamWireReceived,
    /// `%UPSTREAM_HEADER_BYTES_SENT%`.
    UpstreamHeaderSent,
    /// `%UPSTREAM_HEADER_BYTES_RECEIVED%`.
    UpstreamHeaderReceived,
}

/// How the name of a gRPC status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatusForm {
    /// `InvalidArgument`.
    Camel,
    /// `INVALID_ARGUMENT`.
    Snake,
}

/// A command operator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as Envoy's operator of that name")]
pub enum Operator {
    Header {
        message: Message,
        name: HeaderName,
        alternative: Option<HeaderName>,
        max_length: Option<usize>,
    },
    RequestWithoutQuery {
        name: HeaderName,
        alternative: Option<HeaderName>,
        max_length: Option<usize>,
    },
    StartTime(TimeFormat),
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ByteCount(Bytes),
    Duration {
        from: Point,
        to: Point,
        unit: Unit,
    },
    Address {
        place: Place,
        part: Address,
    },
    UpstreamHost,
    UpstreamHostName,
    UpstreamCluster,
    UpstreamClusterRaw,
    /// What TLS tells of either side.
    Transport(TransportFact),
    UpstreamTransportFailureReason,
    UpstreamRequestAttemptCount,
    UpstreamProtocol,
    UpstreamConnectionId,
    RequestedServerName,
    RouteName,
    VirtualHostName,
    ConnectionId,
    Hostname,
    FilterChainName,
    GrpcStatus(GrpcStatusForm),
    GrpcStatusNumber,
    /// A value that the PROXY protocol's extensions left in the connection's dynamic metadata.
    DynamicMetadata {
        namespace: Box<str>,
        key: Box<str>,
        max_length: Option<usize>,
    },
    /// The same, left in the filter state.
    ProxyProtocolField {
        key: Box<str>,
        max_length: Option<usize>,
    },
    /// Messages of a gRPC call, left in the filter state.
    GrpcMessages {
        /// `requests,responses` instead of JSON.
        is_plain: bool,
    },
    /// The value of an environment variable, read when the format was parsed.
    Constant(Option<Box<str>>),
}

impl Operator {
    /// Whether JSON prints the value as a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(
            self,
            Self::ResponseCode
                | Self::ByteCount(_)
                | Self::Duration { .. }
                | Self::UpstreamRequestAttemptCount
                | Self::UpstreamConnectionId
                | Self::ConnectionId
                | Self::GrpcStatusNumber
                | Self::Address {
                    part: Address::Port,
                    ..
                }
        )
    }

    /// Writes the value; false when there is none.
    pub fn write(&self, context: &Context<'_>, out: &mut Vec<u8>) -> bool {
        let info = context.info;
        match self {
            Self::Header {
                message,
                name,
                alternative,
                max_length,
            } => {
                let headers = context.headers(*message);
                let value = headers.and_then(|h| header(h, name, alternative.as_ref()));
                cut(value, *max_length, out)
            }
            Self::RequestWithoutQuery {
                name,
                alternative,
                max_length,
            } => {
                let value = context
                    .headers(Message::Request)
                    .and_then(|h| header(h, name, alternative.as_ref()));
                let value = value.map(|v| v.split(|b| *b == b'?').next().unwrap_or_default());
                cut(value, *max_length, out)
            }
            Self::StartTime(format) => format.write(info.start_time, out),
            Self::Protocol => text(info.protocol.map(proxy_http::Version::name), out),
            Self::ResponseCode => print(Some(info.response_code.unwrap_or(0)), out),
            Self::ResponseCodeDetails => text(info.response_code_details.as_deref(), out),
            Self::ConnectionTerminationDetails => text(info.connection_termination_details.as_deref(), out),
            Self::ResponseFlags => flags(info.response_flags, ResponseFlag::short, out),
            Self::ResponseFlagsLong => flags(info.response_flags, ResponseFlag::long, out),
            Self::ByteCount(bytes) => print(Some(context.bytes(*bytes)), out),
            Self::Duration { from, to, unit } => print(context.duration(*from, *to, *unit), out),
            Self::Address { place, part } => address(context.address(*place), *part, out),
            Self::UpstreamHost => address(info.upstream.host.as_ref(), Address::Whole, out),
            Self::UpstreamHostName => match info.upstream.host_name.as_deref() {
                Some(name) if !name.is_empty() => text(Some(name), out),
                _ => address(info.upstream.host.as_ref(), Address::Whole, out),
            },
            Self::UpstreamCluster => text(info.cluster_observability_name.as_deref(), out),
            Self::UpstreamClusterRaw => text(info.cluster_name.as_deref(), out),
            Self::Transport(fact) => fact.write(info, out),
            Self::UpstreamTransportFailureReason => {
                without_spaces(&info.upstream.transport_failure_reason, out)
            }
            Self::UpstreamRequestAttemptCount => print(Some(info.attempt_count), out),
            Self::UpstreamProtocol => text(info.upstream.protocol.map(proxy_http::Version::name), out),
            Self::UpstreamConnectionId => print(info.upstream.connection_id, out),
            Self::RequestedServerName => text(info.connection.requested_server_name.as_deref(), out),
            Self::RouteName => text(info.route_name.filter(|n| !n.is_empty()), out),
            Self::VirtualHostName => text(info.virtual_host_name.filter(|n| !n.is_empty()), out),
            Self::ConnectionId => print(Some(info.connection.id), out),
            Self::Hostname => text(Some(&*context.process.hostname).filter(|n| !n.is_empty()), out),
            Self::FilterChainName => text(
                Some(&*info.connection.filter_chain_name).filter(|n| !n.is_empty()),
                out,
            ),
            Self::GrpcStatus(form) => match context.grpc_status() {
                None => false,
                Some(status) => match grpc_name(status, *form) {
                    Some(name) => text(Some(name), out),
                    None => print(Some(status), out),
                },
            },
            Self::GrpcStatusNumber => print(context.grpc_status(), out),
            Self::DynamicMetadata {
                namespace,
                key,
                max_length,
            } => {
                let received = info.connection.proxy_protocol.as_deref();
                let value = received.and_then(|received| received.metadata(namespace, key));
                cut(value.map(str::as_bytes), *max_length, out)
            }
            Self::ProxyProtocolField { key, max_length } => {
                let received = info.connection.proxy_protocol.as_deref();
                let value = received.and_then(|received| received.field(key));
                cut(value.map(str::as_bytes), *max_length, out)
            }
            Self::GrpcMessages { is_plain } => {
                let told = info.grpc_messages.map(|m| grpc_messages(m, *is_plain));
                text(told.as_deref(), out)
            }
            Self::Constant(value) => text(value.as_deref(), out),
        }
    }
}

impl<'a> Context<'a> {
    fn headers(&self, message: Message) -> Option<&'a Headers> {
        match message {
            Message::Request => self.request.map(|r| &r.headers),
            Message::Response => self.response.map(|r| &r.headers),
            Message::Trailers => self.trailers,
        }
    }

    fn bytes(&self, bytes: Bytes) -> u64 {
        let counts = &self.info.bytes;
        match bytes {
            Bytes::Received => counts.received,
            Bytes::Sent => counts.sent,
            Bytes::DownstreamHeaderReceived => counts.downstream_header_received,
            Bytes::DownstreamHeaderSent => counts.downstream_header_sent,
            Bytes::DownstreamWireReceived => counts.downstream_wire_received,
            Bytes::DownstreamWireSent => counts.downstream_wire_sent,
            Bytes::UpstreamWireSent => counts.upstream_wire_sent,
            Bytes::UpstreamWireReceived => counts.upstream_wire_received,
            Bytes::UpstreamHeaderSent => counts.upstream_header_sent,
            Bytes::UpstreamHeaderReceived => counts.upstream_header_received,
        }
    }

    fn point(&self, point: Point) -> Option<Duration> {
        let timing = &self.info.timing;
        match point {
            Point::DownstreamReceiveBegin => Some(Duration::ZERO),
            Point::DownstreamReceiveEnd => timing.last_downstream_rx_byte,
            Point::UpstreamSendBegin => timing.first_upstream_tx_byte,
            Point::UpstreamSendEnd => timing.last_upstream_tx_byte,
            Point::UpstreamReceiveBegin => timing.first_upstream_rx_byte,
            Point::UpstreamReceiveEnd => timing.last_upstream_rx_byte,
            Point::DownstreamSendBegin => timing.first_downstream_tx_byte,
            Point::DownstreamSendEnd => timing.last_downstream_tx_byte,
            Point::End => timing.end,
        }
    }

    fn duration(&self, from: Point, to: Point, unit: Unit) -> Option<u128> {
        let elapsed = self.point(to)?.checked_sub(self.point(from)?)?;
        Some(match unit {
            Unit::Milliseconds => elapsed.as_millis(),
            Unit::Microseconds => elapsed.as_micros(),
            Unit::Nanoseconds => elapsed.as_nanos(),
        })
    }

    fn address(&self, place: Place) -> Option<&'a connection::Address> {
        let info = self.info;
        match place {
            Place::DownstreamRemote => Some(&info.downstream_remote_address),
            Place::DownstreamDirectRemote => Some(&info.connection.direct_remote_address),
            Place::DownstreamLocal => Some(&info.connection.local_address),
            Place::DownstreamDirectLocal => Some(&info.connection.direct_local_address),
            Place::UpstreamRemote => info.upstream.host.as_ref(),
            Place::UpstreamLocal => info.upstream.local_address.as_ref(),
        }
    }

    /// Of the answer to a gRPC request: from the trailers, else from the response's head, else what the HTTP status
    /// stands for.
    fn grpc_status(&self) -> Option<u8> {
        self.request.filter(|request| request.is_grpc())?;
        let number = |headers: &Headers| {
            std::str::from_utf8(headers.get("grpc-status")?)
                .ok()?
                .parse()
                .ok()
        };
        self.trailers
            .and_then(number)
            .or_else(|| self.response.and_then(|r| number(&r.headers)))
            .or_else(|| self.info.response_code.map(grpc_status_of))
    }
}

fn header<'h>(headers: &'h Headers, name: &HeaderName, alternative: Option<&HeaderName>) -> Option<&'h [u8]> {
    headers.get(name).or_else(|| headers.get(alternative?))
}

fn cut(value: Option<&[u8]>, max_length: Option<usize>, out: &mut Vec<u8>) -> bool {
    let Some(value) = value else { return false };
    out.extend_from_slice(&value[..value.len().min(max_length.unwrap_or(usize::MAX))]);
    true
}

pub(super) fn text(value: Option<&str>, out: &mut Vec<u8>) -> bool {
    cut(value.map(str::as_bytes), None, out)
}

/// Envoy prints reasons of failures as one word.
pub(super) fn without_spaces(reason: &str, out: &mut Vec<u8>) -> bool {
    out.extend(reason.bytes().map(|byte| if byte == b' ' { b'_' } else { byte }));
    !reason.is_empty()
}

/// The names of the flags, joined by commas.
fn flags(flags: ResponseFlags, name: fn(ResponseFlag) -> &'static str, out: &mut Vec<u8>) -> bool {
    for (position, flag) in flags.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name(flag).as_bytes());
    }
    !flags.is_empty()
}

fn print(value: Option<impl std::fmt::Display>, out: &mut Vec<u8>) -> bool {
    let Some(value) = value else { return false };
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value}");
    true
}

fn address(address: Option<&connection::Address>, part: Address, out: &mut Vec<u8>) -> bool {
    let Some(address) = address else { return false };
    match (part, address.socket_addr()) {
        (Address::Whole, _) => print(Some(address), out),
        (Address::Port, socket) => print(socket.map(|s| s.port()), out),
        (Address::WithoutPort, Some(socket)) => match socket.ip() {
            IpAddr::V4(ip) => print(Some(ip), out),
            IpAddr::V6(ip) => print(Some(ip), out),
        },
        (Address::WithoutPort, None) => print(Some(address), out),
    }
}

/// The names of gRPC's status codes as Envoy prints them, in both forms.
/// What Envoy's filter leaves: a message in JSON, in which what is zero is absent, or two numbers.
fn grpc_messages(messages: GrpcMessages, is_plain: bool) -> String {
    let GrpcMessages { requests, responses } = messages;
    if is_plain {
        return format!("{requests},{responses}");
    }
    let fields = [
        ("requestMessageCount", requests),
        ("responseMessageCount", responses),
    ];
    let fields = fields.iter().filter(|(_, count)| *count > 0);
    let fields: Vec<_> = fields
        .map(|(name, count)| format!("\"{name}\":\"{count}\""))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn grpc_name(status: u8, form: GrpcStatusForm) -> Option<&'static str> {
    const NAMES: [(&str, &str); 17] = [
        ("OK", "OK"),
        ("Canceled", "CANCELLED"),
        ("Unknown", "UNKNOWN"),
        ("InvalidArgument", "INVALID_ARGUMENT"),
        ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
        ("NotFound", "NOT_FOUND"),
        ("AlreadyExists", "ALREADY_EXISTS"),
        ("PermissionDenied", "PERMISSION_DENIED"),
        ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
        ("FailedPrecondition", "FAILED_PRECONDITION"),
        ("Aborted", "ABORTED"),
        ("OutOfRange", "OUT_OF_RANGE"),
        ("Unimplemented", "UNIMPLEMENTED"),
        ("Internal", "INTERNAL"),
        ("Unavailable", "UNAVAILABLE"),
        ("DataLoss", "DATA_LOSS"),
        ("Unauthenticated", "UNAUTHENTICATED"),
    ];
    let (camel, snake) = NAMES.get(usize::from(status))?;
    Some(match form {
        GrpcStatusForm::Camel => camel,
        GrpcStatusForm::Snake => snake,
    })
}
