use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use proxy_http::RequestHead;

use super::{Context, Format, ProcessInfo};
use crate::connection::ConnectionInfo;
use crate::response_flags::ResponseFlag;
use crate::stream_info::StreamInfo;

/// Istio's default text format.
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \"%REQ(USER-AGENT)%\" \
\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %DOWNSTREAM_REMOTE_ADDRESS%\n";

fn info() -> StreamInfo<'static> {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap().into();
    let time = UNIX_EPOCH + Duration::from_millis(1_795_258_668_123);
    let connection = ConnectionInfo::new(7, address("10.0.0.1:1234"), address("10.0.0.2:80"), time);
    StreamInfo::new(Rc::new(connection), time, Instant::now())
}

fn render(format: &str, info: &StreamInfo<'_>, request: &RequestHead) -> String {
    let process = ProcessInfo {
        hostname: "here".into(),
    };
    let context = Context {
        info,
        request: Some(request),
        response: None,
        trailers: None,
        process: &process,
    };
    let mut out = Vec::new();
    Format::parse(format).unwrap().write(&context, b"-", &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn istios_default_line_is_written() {
    let mut info = info();
    info.response_code = Some(503);
    info.flag(ResponseFlag::NoHealthyUpstream);
    info.response_code_details = Some(Cow::Borrowed("no_healthy_upstream"));
    info.timing.end = Some(Duration::from_micros(2_900));
    let request = RequestHead::with("GET", "http", "reviews:9080", "/reviews/0?a=b");
    assert_eq!(
        render(ISTIO, &info, &request),
        "[2026-11-21T10:57:48.123Z] \"GET /reviews/0?a=b -\" 503 UH no_healthy_upstream 0 0 2 \"-\" \"reviews:9080\" \"-\" - \
         10.0.0.1:1234\n"
    );
}

#[test]
fn several_flags_are_joined_by_commas() {
    let mut info = info();
    info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
    info.flag(ResponseFlag::UpstreamConnectionFailure);
    assert_eq!(
        render(
            "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
            &info,
            &RequestHead::default()
        ),
        "URX,UF UpstreamRetryLimitExceeded,UpstreamConnectionFailure"
    );
}

#[test]
fn lengths_alternatives_and_percent_signs() {
    let request = RequestHead::with("GET", "http", "a", "/0123456789?q");
    assert_eq!(render("%REQ(X?:PATH):4%", &info(), &request), "/012");
    assert_eq!(
        render("100%% %REQ_WITHOUT_QUERY(:PATH)%", &info(), &request),
        "100% /0123456789"
    );
    assert_eq!(
        render("%START_TIME(%s.%3f|%F %T)%", &info(), &request),
        "1795258668.123|2026-11-21 10:57:48"
    );
    assert_eq!(
        render(
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %HOSTNAME%",
            &info(),
            &request
        ),
        "10.0.0.1 80 here"
    );
}

#[test]
fn an_unknown_operator_is_refused_by_name() {
    assert!(
        Format::parse("%NONSENSE%")
            .unwrap_err()
            .to_string()
            .contains("%NONSENSE%")
    );
    assert!(Format::parse("%REQ(a").is_err());
    assert!(Format::parse("%PROTOCOL(x)%").is_err());
    assert!(Format::parse("%GRPC_STATUS(x)%").is_err());
    assert!(Format::parse("%REQ(a?b?c)%").is_err());
    assert!(Format::parse("%START_TIME(%Q)%").is_err());
}

#[test]
fn what_tls_tells_is_missing_without_tls_and_unknown_facts_are_refused() {
    let request = RequestHead::with("GET", "http", "a", "/");
    let format = "%DOWNSTREAM_TLS_VERSION% %UPSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_CERT_V_START(%F)% \
                  %DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%";
    assert_eq!(render(format, &info(), &request), "- - - - -");
    for unknown in [
        "DOWNSTREAM_LOCAL_ISSUER",
        "UPSTREAM_PEER_HEIGHT",
        "DOWNSTREAM_LOCAL_CERT_V_END",
    ] {
        assert!(Format::parse(&format!("%{unknown}%")).is_err(), "{unknown}");
    }
}

#[test]
fn reasons_of_failures_are_one_word() {
    let mut info = info();
    info.upstream.transport_failure_reason = "no common version".into();
    let request = RequestHead::with("GET", "http", "a", "/");
    assert_eq!(
        render("%UPSTREAM_TRANSPORT_FAILURE_REASON%", &info, &request),
        "no_common_version"
    );
}

#[test]
fn a_text_without_operators_is_a_literal() {
    assert_eq!(Format::parse("a%%b").unwrap().literal(), Some("a%b"));
    assert!(Format::parse("%PROTOCOL%").unwrap().single().is_some());
}

#[test]
fn a_grpc_request_has_a_grpc_status_even_when_its_answer_has_none() {
    let mut info = info();
    info.response_code = Some(503);
    let mut request = RequestHead::with("POST", "http", "a", "/s/m");
    let format = "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%";
    assert_eq!(render(format, &info, &request), "- - - -");
    request.headers.set("content-type", b"application/grpc");
    assert_eq!(render(format, &info, &request), "Unavailable UNAVAILABLE 14 14");
    info.response_code = Some(400);
    assert_eq!(render("%GRPC_STATUS%", &info, &request), "Internal");
}
