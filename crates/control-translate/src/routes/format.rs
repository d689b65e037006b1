//! The operators that values of headers may hold, as Envoy knows them (`envoy.config.core.v3.SubstitutionFormatString`).
//!
//! Which there are, and which take an argument, is what Envoy 1.40 says when it is asked one by one. Where an argument is
//! a language of its own (CEL, JSON), nobody here can tell whether it is right, so that such a value is not taken.

/// Operators without an argument, as words.
const PLAIN: &str = "\
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CONNECTION_ID CONNECTION_TERMINATION_DETAILS \
    CUSTOM_FLAGS DOWNSTREAM_CX_RTT DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED \
    DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS \
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS \
    DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_HANDSHAKE_DURATION DOWNSTREAM_HEADER_BYTES_RECEIVED \
    DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID \
    DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_IP_SAN \
    DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN \
    DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 \
    DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_EMAIL_SAN DOWNSTREAM_PEER_FINGERPRINT_1 \
    DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_ISSUER \
    DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256 DOWNSTREAM_PEER_ISSUER_SERIAL DOWNSTREAM_PEER_OTHERNAME_SAN \
    DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_REMOTE_ADDRESS \
    DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_GROUP DOWNSTREAM_TLS_SESSION_ID \
    DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_WIRE_BYTES_RECEIVED \
    DOWNSTREAM_WIRE_BYTES_SENT DURATION FILTER_CHAIN_NAME GRPC_STATUS_NUMBER HOSTNAME LOCAL_REPLY_BODY \
    PACKETS_RETRANSMITTED PROTOCOL REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_CODE RESPONSE_DURATION \
    RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME SPAN_ID STREAM_ID \
    TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID UNIQUE_ID UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW \
    UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED UPSTREAM_CONNECTION_POOL_READY_DURATION \
    UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT \
    UPSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_HEADER_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST \
    UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAME \
    UPSTREAM_HOST_NAMES_ATTEMPTED UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAME_WITHOUT_PORT \
    UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_DNS_SAN UPSTREAM_LOCAL_IP_SAN \
    UPSTREAM_LOCAL_PORT UPSTREAM_LOCAL_URI_SAN UPSTREAM_PEER_CERT UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_IP_SAN \
    UPSTREAM_PEER_ISSUER UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL UPSTREAM_REMOTE_ADDRESS \
    UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_SERVER_NAME \
    UPSTREAM_TLS_CIPHER UPSTREAM_TLS_GROUP UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_VERSION \
    UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME \
    PATH QUERY_PARAMS REQUESTED_SERVER_NAME";

/// Operators that may have an argument, whatever it is.
const MAY_HAVE_ONE: &str = "\
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT \
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_PEER_CERT_V_END DOWNSTREAM_PEER_CERT_V_START \
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT EMIT_TIME EMIT_TIME_LOCAL RESPONSE_CODE_DETAILS START_TIME \
    START_TIME_LOCAL UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_PEER_CERT_V_END UPSTREAM_PEER_CERT_V_START \
    UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT";

/// Operators that must have an argument, whatever it is.
const MUST_HAVE_ONE: &str = "\
    CLUSTER_METADATA DYNAMIC_METADATA ENVIRONMENT FILTER_STATE PER_REQUEST_STATE QUERY_PARAM UPSTREAM_FILTER_STATE \
    UPSTREAM_METADATA";

/// Operators whose argument names one header, or two of which the second stands in for the first.
const OF_HEADERS: &str = "REQ RESP TRAILER";

/// Points in the life of a request.
const POINTS: &str = "DS_RX_BEG DS_RX_END US_TX_BEG US_TX_END US_RX_BEG US_RX_END DS_TX_BEG DS_TX_END";

/// Whether a value is text in which `%NAME%`, `%NAME(…)%` and `%NAME(…):N%` stand for something that every Envoy knows,
/// and two percent signs for one.
pub(super) fn check(value: &str) -> Result<(), String> {
    if value.contains(['\r', '\n', '\0']) {
        return Err("its value has a line break".to_owned());
    }
    let alone = || format!("{value:?} has a percent sign that begins no operator; %% stands for one");
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let end = after.find(|c| !is_name(c)).filter(|end| *end > 0);
        let (name, mut tail) = after.split_at(end.ok_or_else(alone)?);
        let mut argument = None;
        if let Some(inner) = tail.strip_prefix('(') {
            let (inside, after) = inner.split_once(')').ok_or_else(alone)?;
            (argument, tail) = (Some(inside), after);
        }
        let mut is_cut = false;
        if let Some(length) = tail.strip_prefix(':') {
            tail = length.trim_start_matches(|c: char| c.is_ascii_digit());
            is_cut = true;
        }
        rest = tail.strip_prefix('%').ok_or_else(alone)?;
        operator(name, argument, is_cut)?;
    }
    Ok(())
}

fn operator(name: &str, argument: Option<&str>, is_cut: bool) -> Result<(), String> {
    let is_one_of = |words: &str| words.split(' ').any(|word| word == name);
    let problem = |what: &str| Err(format!("operator %{name}% {what}"));
    let argument = argument.filter(|argument| !argument.is_empty());
    match argument {
        _ if is_one_of(MAY_HAVE_ONE) && !is_cut => Ok(()),
        _ if is_one_of(MAY_HAVE_ONE) => problem("takes no length"),
        None if is_one_of(PLAIN) && !is_cut => Ok(()),
        _ if is_one_of(PLAIN) => problem("takes neither an argument nor a length"),
        Some(_) if is_one_of(MUST_HAVE_ONE) => Ok(()),
        Some(names) if is_one_of(OF_HEADERS) => match names.matches('?').count() {
            0 | 1 if !names.starts_with('?') => Ok(()),
            _ => problem("wants a header, or two with a question mark between them"),
        },
        None if is_one_of(MUST_HAVE_ONE) || is_one_of(OF_HEADERS) => problem("wants an argument"),
        None | Some("CAMEL_STRING" | "SNAKE_STRING" | "NUMBER") if name == "GRPC_STATUS" => Ok(()),
        Some(points) if name == "COMMON_DURATION" && is_duration(points) => Ok(()),
        _ if ["GRPC_STATUS", "COMMON_DURATION"].contains(&name) => problem("does not know this argument"),
        _ if ["CEL", "COALESCE", "METADATA"].contains(&name) => {
            problem("has an argument that is not checked here")
        }
        _ => problem("is none that proxies know"),
    }
}

/// `FROM:TO:UNIT`.
fn is_duration(argument: &str) -> bool {
    let is_point = |point: &str| POINTS.split(' ').any(|known| known == point);
    match argument.split(':').collect::<Vec<_>>()[..] {
        [from, to, unit] => is_point(from) && is_point(to) && ["ms", "us", "ns"].contains(&unit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_envoy_knows_is_taken() {
        for value in [
            "",
            "100%% of %DOWNSTREAM_REMOTE_ADDRESS%",
            "%REQ(X-B?:PATH):10%",
            "%START_TIME(%Y)%",
            "%START_TIME%",
            "%PROTOCOL()%",
            "%GRPC_STATUS(NUMBER)%",
            "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%",
            "%DYNAMIC_METADATA(a:b):3%",
        ] {
            assert_eq!(check(value), Ok(()), "{value}");
        }
    }

    #[test]
    fn what_envoy_refuses_is_named() {
        for (value, reason) in [
            ("%NO_SUCH_OPERATOR%", "%NO_SUCH_OPERATOR% is none"),
            ("%REQ()%", "%REQ% wants an argument"),
            ("%REQ(a?b?c)%", "%REQ% wants a header"),
            ("%PROTOCOL(x)%", "%PROTOCOL% takes neither"),
            ("%RESPONSE_CODE:3%", "%RESPONSE_CODE% takes neither"),
            ("%START_TIME:3%", "%START_TIME% takes no length"),
            ("%GRPC_STATUS(x)%", "%GRPC_STATUS% does not know"),
            ("%COMMON_DURATION(a:b:c)%", "%COMMON_DURATION% does not know"),
            ("%CEL(1 +)%", "%CEL% has an argument"),
            ("100%", "begins no operator"),
            ("%lower%", "begins no operator"),
            ("% %", "begins no operator"),
            ("%REQ(x%", "begins no operator"),
            ("a\nb", "line break"),
        ] {
            let error = check(value).expect_err(value);
            assert!(error.contains(reason), "{value}: {error}");
        }
    }
}
