//! Text to parts.

use proxy_http::HeaderName;

use super::operator::{Address, Bytes, GrpcStatusForm, Message, Operator, Place, Point, Unit};
use super::{Part, TimeFormat, TransportFact};
use crate::error::{ConfigError, ConfigResult};

/// Splits a format string at its percent signs.
pub(super) fn parts(text: &str) -> ConfigResult<Vec<Part>> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let end = end_of_operator(rest)
            .ok_or_else(|| ConfigError::new(format!("operator %{rest} is not closed by a percent sign")))?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal).into()));
        }
        parts.push(Part::Operator(operator(&rest[..end])?));
        rest = &rest[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

/// The closing percent sign: percent signs inside parentheses belong to the argument (`%START_TIME(%s)%`).
fn end_of_operator(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'%' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

struct Command<'t> {
    name: &'t str,
    argument: Option<&'t str>,
    max_length: Option<usize>,
}

fn operator(text: &str) -> ConfigResult<Operator> {
    let command = command(text)?;
    if let Some(keyed) = keyed(&command) {
        return keyed;
    }
    let operator = duration(&command)
        .or_else(|| address(&command))
        .or_else(|| bytes(&command))
        .or_else(|| plain(&command))
        .unwrap_or_else(|| Err(ConfigError::new(format!("unknown operator %{text}%"))));
    match command.argument {
        Some(_) if operator.is_ok() => Err(ConfigError::new(format!("operator %{text}% takes no argument"))),
        _ => operator,
    }
}

fn command(text: &str) -> ConfigResult<Command<'_>> {
    let Some(open) = text.find('(') else {
        return Ok(Command {
            name: text,
            argument: None,
            max_length: None,
        });
    };
    let malformed = || ConfigError::new(format!("operator %{text}% is malformed"));
    let close = text.rfind(')').ok_or_else(malformed)?;
    let max_length = match &text[close + 1..] {
        "" => None,
        tail => Some(
            tail.strip_prefix(':')
                .and_then(|n| n.parse().ok())
                .ok_or_else(malformed)?,
        ),
    };
    Ok(Command {
        name: &text[..open],
        argument: Some(&text[open + 1..close]),
        max_length,
    })
}

/// Operators with an argument.
fn keyed(command: &Command<'_>) -> Option<ConfigResult<Operator>> {
    let argument = command.argument.unwrap_or_default();
    let max_length = command.max_length;
    let headers = |message| {
        names(command.name, argument).map(|(name, alternative)| Operator::Header {
            message,
            name,
            alternative,
            max_length,
        })
    };
    Some(match command.name {
        "REQ" => headers(Message::Request),
        "RESP" => headers(Message::Response),
        "TRAILER" => headers(Message::Trailers),
        "REQ_WITHOUT_QUERY" => {
            names(command.name, argument).map(|(name, alternative)| Operator::RequestWithoutQuery {
                name,
                alternative,
                max_length,
            })
        }
        "START_TIME" => TimeFormat::parse(argument).map(Operator::StartTime),
        "GRPC_STATUS" => grpc_status(argument),
        "ENVIRONMENT" => Ok(Operator::Constant(environment(argument, max_length))),
        "COMMON_DURATION" => common_duration(argument),
        "DYNAMIC_METADATA" => Ok(dynamic_metadata(argument, max_length)),
        "FILTER_STATE" => Ok(filter_state(argument, max_length)),
        // What these read does not exist in this proxy yet, so they print as missing.
        "UPSTREAM_FILTER_STATE" | "CLUSTER_METADATA" | "UPSTREAM_METADATA" | "METADATA" => {
            Ok(Operator::Constant(None))
        }
        name if name.contains("_CERT_V_") => {
            TransportFact::validity(name, argument)?.map(Operator::Transport)
        }
        _ => return None,
    })
}

/// `namespace:key`. Values have no structure here, so a longer path leads to nothing.
fn dynamic_metadata(path: &str, max_length: Option<usize>) -> Operator {
    match path.split_once(':') {
        Some((namespace, key)) if !key.contains(':') => Operator::DynamicMetadata {
            namespace: namespace.into(),
            key: key.into(),
            max_length,
        },
        _ => Operator::Constant(None),
    }
}

/// `envoy.network.proxy_protocol.tlv:FIELD:key` and `envoy.filters.http.grpc_stats`; no other filter state exists.
fn filter_state(argument: &str, max_length: Option<usize>) -> Operator {
    match argument {
        "envoy.filters.http.grpc_stats" | "envoy.filters.http.grpc_stats:TYPED" => {
            return Operator::GrpcMessages { is_plain: false };
        }
        "envoy.filters.http.grpc_stats:PLAIN" => return Operator::GrpcMessages { is_plain: true },
        _ => {}
    }
    let field = argument.strip_prefix("envoy.network.proxy_protocol.tlv:FIELD:");
    field.map_or(Operator::Constant(None), |key| Operator::ProxyProtocolField {
        key: key.into(),
        max_length,
    })
}

fn grpc_status(form: &str) -> ConfigResult<Operator> {
    Ok(match form {
        "" | "CAMEL_STRING" => Operator::GrpcStatus(GrpcStatusForm::Camel),
        "SNAKE_STRING" => Operator::GrpcStatus(GrpcStatusForm::Snake),
        "NUMBER" => Operator::GrpcStatusNumber,
        _ => {
            return Err(ConfigError::new(format!(
                "%GRPC_STATUS({form})%: the form is CAMEL_STRING, SNAKE_STRING or NUMBER"
            )));
        }
    })
}

/// The value of a variable, cut to so many bytes at most.
fn environment(variable: &str, max_length: Option<usize>) -> Option<Box<str>> {
    let mut value = std::env::var(variable).ok()?;
    value.truncate(value.floor_char_boundary(max_length.unwrap_or(usize::MAX)));
    Some(value.into())
}

fn names(operator: &str, argument: &str) -> ConfigResult<(HeaderName, Option<HeaderName>)> {
    let mut names = argument.split('?');
    let name = names.next().unwrap_or_default();
    let alternative = names.next();
    if name.is_empty() || names.next().is_some() {
        return Err(ConfigError::new(format!(
            "%{operator}({argument})%: one header, or two separated by '?', are needed"
        )));
    }
    Ok((HeaderName::new(name), alternative.map(HeaderName::new)))
}

fn common_duration(argument: &str) -> ConfigResult<Operator> {
    let refuse = || {
        ConfigError::new(format!(
            "%COMMON_DURATION({argument})%: two points and a unit are needed"
        ))
    };
    let mut words = argument.split(':');
    let mut next = || words.next().ok_or_else(refuse);
    let (from, to, unit) = (next()?, next()?, next()?);
    let point = |name: &str| {
        Some(match name {
            "DS_RX_BEG" => Point::DownstreamReceiveBegin,
            "DS_RX_END" => Point::DownstreamReceiveEnd,
            "US_TX_BEG" => Point::UpstreamSendBegin,
            "US_TX_END" => Point::UpstreamSendEnd,
            "US_RX_BEG" => Point::UpstreamReceiveBegin,
            "US_RX_END" => Point::UpstreamReceiveEnd,
            "DS_TX_BEG" => Point::DownstreamSendBegin,
            "DS_TX_END" => Point::DownstreamSendEnd,
            _ => return None,
        })
    };
    let unit = match unit {
        "ms" => Unit::Milliseconds,
        "us" => Unit::Microseconds,
        "ns" => Unit::Nanoseconds,
        _ => return Err(refuse()),
    };
    let (from, to) = (point(from).ok_or_else(refuse)?, point(to).ok_or_else(refuse)?);
    Ok(Operator::Duration { from, to, unit })
}

/// The older durations, each a pair of points in milliseconds.
fn duration(command: &Command<'_>) -> Option<ConfigResult<Operator>> {
    let (from, to) = match command.name {
        "DURATION" => (Point::DownstreamReceiveBegin, Point::End),
        "REQUEST_DURATION" => (Point::DownstreamReceiveBegin, Point::DownstreamReceiveEnd),
        "REQUEST_TX_DURATION" => (Point::DownstreamReceiveBegin, Point::UpstreamSendEnd),
        "RESPONSE_DURATION" => (Point::DownstreamReceiveBegin, Point::UpstreamReceiveBegin),
        "RESPONSE_TX_DURATION" => (Point::UpstreamReceiveBegin, Point::DownstreamSendEnd),
        _ => return None,
    };
    Some(Ok(Operator::Duration {
        from,
        to,
        unit: Unit::Milliseconds,
    }))
}

fn address(command: &Command<'_>) -> Option<ConfigResult<Operator>> {
    let (name, part) = if let Some(name) = command.name.strip_suffix("_ADDRESS_WITHOUT_PORT") {
        (name, Address::WithoutPort)
    } else if let Some(name) = command.name.strip_suffix("_ADDRESS") {
        (name, Address::Whole)
    } else {
        (command.name.strip_suffix("_PORT")?, Address::Port)
    };
    let place = match name {
        "DOWNSTREAM_REMOTE" => Place::DownstreamRemote,
        "DOWNSTREAM_DIRECT_REMOTE" => Place::DownstreamDirectRemote,
        "DOWNSTREAM_LOCAL" => Place::DownstreamLocal,
        "DOWNSTREAM_DIRECT_LOCAL" => Place::DownstreamDirectLocal,
        "UPSTREAM_REMOTE" => Place::UpstreamRemote,
        "UPSTREAM_LOCAL" => Place::UpstreamLocal,
        _ => return None,
    };
    Some(Ok(Operator::Address { place, part }))
}

fn bytes(command: &Command<'_>) -> Option<ConfigResult<Operator>> {
    Some(Ok(Operator::ByteCount(match command.name {
        "BYTES_RECEIVED" => Bytes::Received,
        "BYTES_SENT" => Bytes::Sent,
        "DOWNSTREAM_HEADER_BYTES_RECEIVED" => Bytes::DownstreamHeaderReceived,
        "DOWNSTREAM_HEADER_BYTES_SENT" => Bytes::DownstreamHeaderSent,
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" => Bytes::DownstreamWireReceived,
        "DOWNSTREAM_WIRE_BYTES_SENT" => Bytes::DownstreamWireSent,
        "UPSTREAM_WIRE_BYTES_SENT" => Bytes::UpstreamWireSent,
        "UPSTREAM_WIRE_BYTES_RECEIVED" => Bytes::UpstreamWireReceived,
        "UPSTREAM_HEADER_BYTES_SENT" => Bytes::UpstreamHeaderSent,
        "UPSTREAM_HEADER_BYTES_RECEIVED" => Bytes::UpstreamHeaderReceived,
        _ => return None,
    })))
}

/// Operators without an argument.
fn plain(command: &Command<'_>) -> Option<ConfigResult<Operator>> {
    let operator = match command.name {
        "PROTOCOL" => Operator::Protocol,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
        "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
        "RESPONSE_FLAGS" => Operator::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
        "UPSTREAM_HOST" => Operator::UpstreamHost,
        "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName,
        "UPSTREAM_CLUSTER" => Operator::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamClusterRaw,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
        "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
        "UPSTREAM_CONNECTION_ID" => Operator::UpstreamConnectionId,
        "REQUESTED_SERVER_NAME" => Operator::RequestedServerName,
        "ROUTE_NAME" => Operator::RouteName,
        "VIRTUAL_HOST_NAME" => Operator::VirtualHostName,
        "CONNECTION_ID" => Operator::ConnectionId,
        "HOSTNAME" => Operator::Hostname,
        "FILTER_CHAIN_NAME" => Operator::FilterChainName,
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatusNumber,
        // These print as missing: rustls tells no session id, and there are no virtual clusters.
        "VIRTUAL_CLUSTER_NAME" | "DOWNSTREAM_TLS_SESSION_ID" | "UPSTREAM_TLS_SESSION_ID" => {
            Operator::Constant(None)
        }
        name => return TransportFact::named(name).map(|fact| Ok(Operator::Transport(fact))),
    };
    Some(Ok(operator))
}
