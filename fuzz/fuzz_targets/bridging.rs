//! Heads between HTTP/1 and HTTP/2: what a head says is the same on the other side, and what is written of it there is one
//! head and no more.
#![no_main]

use http::header::HeaderName;
use libfuzzer_sys::fuzz_target;
use proxy_http::{
    HeadLimits, HeadParser, Headers, RequestHead, ResponseHead, write_request_head, write_response_head,
};
use proxy_server::http::bridging::{
    request_from_http2, request_to_http2, response_from_http2, response_to_http2,
};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Fields that end with an HTTP/1 connection. `host` is the authority, and cookies are joined.
const DROPPED: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
    "cookie",
];

/// The fields that must arrive; `te` says nothing but `trailers`.
fn arriving(headers: &Headers) -> Fields {
    let fields = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
    let kept = fields.filter(|(name, value)| {
        let is_dropped = DROPPED.iter().any(|dropped| dropped.as_bytes() == name);
        !is_dropped && (name != b"te" || value == b"trailers")
    });
    let mut kept: Fields = kept.collect();
    // Fields of one name keep their order; that of different names has no meaning.
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    kept
}

fn without_fragment(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'#').next().unwrap_or_default()
}

/// Without percent encoding, in which characters go on that no URI has.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let value = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// A head that names its authority in its target may be as long as any; the `host` that is written of it comes on top.
fn with_host() -> HeadLimits {
    let limits = HeadLimits::default();
    HeadLimits {
        bytes: 2 * limits.bytes,
        fields: limits.fields + 1,
    }
}

/// Writes a request for an HTTP/1 host, and reads it as that does.
fn write_and_read_request(head: &RequestHead) {
    let mut text = Vec::new();
    write_request_head(&mut text, head);
    let shown = String::from_utf8_lossy(&text).into_owned();
    let mut again = RequestHead::new();
    let parsed = HeadParser::new(with_host()).request(&text, &mut again);
    let parsed = parsed.unwrap_or_else(|error| panic!("what we wrote is refused ({error}): {shown:?}"));
    assert!(
        parsed.complete && parsed.consumed == text.len(),
        "more than one head: {shown:?}"
    );
    assert_eq!(
        (head.method(), head.path(), head.authority()),
        (again.method(), again.path(), again.authority()),
        "{shown:?}"
    );
    assert_eq!(arriving(&head.headers), arriving(&again.headers), "{shown:?}");
}

fn request_of_http1(bytes: &[u8]) {
    let mut head = RequestHead::new();
    let parsed = HeadParser::new(HeadLimits::default()).request(bytes, &mut head);
    if !parsed.is_ok_and(|parsed| parsed.complete) || head.is_upgrade() {
        return;
    }
    let Some(request) = request_to_http2(&head) else {
        return;
    };
    let mut again = RequestHead::new();
    assert!(request_from_http2(&request.into_parts().0, &mut again));
    assert_eq!(head.method(), again.method());
    assert_eq!(head.authority(), again.authority());
    assert_eq!(decoded(without_fragment(head.path())), decoded(again.path()));
    assert_eq!(arriving(&head.headers), arriving(&again.headers));
    // An absolute target without authority is none that a client of HTTP/2 could send.
    if !again.authority().is_empty() {
        write_and_read_request(&again);
    }
}

fn response_of_http1(bytes: &[u8]) {
    let mut head = ResponseHead::new();
    let parsed = HeadParser::new(HeadLimits::default()).response(bytes, &mut head);
    if !parsed.is_ok_and(|parsed| parsed.complete) {
        return;
    }
    let Some(response) = response_to_http2(&head) else {
        return;
    };
    let mut again = ResponseHead::new();
    response_from_http2(&response.into_parts().0, &mut again);
    assert_eq!(head.status(), again.status());
    assert_eq!(arriving(&head.headers), arriving(&again.headers));
    write_and_read_response(&again);
}

fn write_and_read_response(head: &ResponseHead) {
    let mut text = Vec::new();
    write_response_head(&mut text, head);
    let shown = String::from_utf8_lossy(&text).into_owned();
    let mut again = ResponseHead::new();
    let parsed = HeadParser::new(HeadLimits::default()).response(&text, &mut again);
    let parsed = parsed.unwrap_or_else(|error| panic!("what we wrote is refused ({error}): {shown:?}"));
    assert!(
        parsed.complete && parsed.consumed == text.len(),
        "more than one head: {shown:?}"
    );
    assert_eq!(head.status(), again.status(), "{shown:?}");
    assert_eq!(arriving(&head.headers), arriving(&again.headers), "{shown:?}");
}

/// Fields as HTTP/2 carries them, a line each; what it forbids is left out, as `h2` refuses it.
fn fields_of_http2<'a>(lines: impl Iterator<Item = &'a [u8]>) -> http::HeaderMap {
    let mut fields = http::HeaderMap::new();
    for line in lines.take(32) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (HeaderName::from_lowercase(&line[..colon]), &line[colon + 1..]);
        let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) else {
            continue;
        };
        // Neither has a value that begins or ends with white space (RFC 9113, section 8.2.1).
        let is_framing =
            name == http::header::CONTENT_LENGTH || value.as_bytes().trim_ascii() != value.as_bytes();
        if !DROPPED.contains(&name.as_str()) && !is_framing {
            fields.append(name, value);
        }
    }
    fields
}

fn request_of_http2(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (Some(method), Some(authority), Some(path)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Ok(method) = http::Method::from_bytes(method) else {
        return;
    };
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(path);
    let Ok(uri) = uri.build() else { return };
    let mut request = http::Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    *request.headers_mut() = fields_of_http2(lines);
    let mut head = RequestHead::new();
    if !request_from_http2(&request.into_parts().0, &mut head) {
        return;
    }
    // The parser here knows the methods that Envoy's does; a host may know more.
    let is_known = [
        &b"GET"[..],
        b"HEAD",
        b"POST",
        b"PUT",
        b"DELETE",
        b"OPTIONS",
        b"TRACE",
        b"PATCH",
    ]
    .contains(&head.method());
    // What the connection manager refuses goes nowhere.
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(byte);
    if is_known && head.path().starts_with(b"/") && head.authority().iter().all(is_host) {
        write_and_read_request(&head);
    }
}

fn response_of_http2(bytes: &[u8]) {
    let Some((status, fields)) = bytes.split_at_checked(2) else {
        return;
    };
    let status = u16::from_be_bytes([status[0], status[1]]) % 400 + 200;
    let Ok(status) = http::StatusCode::from_u16(status) else {
        return;
    };
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields_of_http2(fields.split(|byte| *byte == b'\n'));
    let mut head = ResponseHead::new();
    response_from_http2(&response.into_parts().0, &mut head);
    write_and_read_response(&head);
}

// The first byte says what it is.
fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind & 3 {
        0 => request_of_http1(bytes),
        1 => response_of_http1(bytes),
        2 => request_of_http2(bytes),
        _ => response_of_http2(bytes),
    }
});
