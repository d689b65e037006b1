//! Heads on their way between HTTP/1 and HTTP/2, as the connection manager sends them, for the fuzz targets.

use proxy_http::{RequestHead, ResponseHead};

use super::http2::convert;

/// A request as it goes to an HTTP/2 host; `None` where HTTP/2 cannot say it.
#[must_use]
pub fn request_to_http2(head: &RequestHead) -> Option<http::Request<()>> {
    convert::request(head)
}

/// A request of an HTTP/2 client; false where it is malformed and goes nowhere.
#[must_use]
pub fn request_from_http2(parts: &http::request::Parts, head: &mut RequestHead) -> bool {
    convert::read_request(parts, head);
    convert::is_well_formed(parts)
}

/// A response as it goes to an HTTP/2 client; `None` where HTTP/2 cannot say it.
#[must_use]
pub fn response_to_http2(head: &ResponseHead) -> Option<http::Response<()>> {
    convert::response(head)
}

/// A response of an HTTP/2 host.
pub fn response_from_http2(parts: &http::response::Parts, head: &mut ResponseHead) {
    convert::read_response(parts.status, &parts.headers, head);
}
