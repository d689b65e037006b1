//! Parses and writes a typical request and response head over and over, for `valgrind --tool=callgrind`:
//! the instruction count divided by the rounds is the codec's cost per exchange.
//!
//! `cargo build --release --example instructions -p proxy-http`, then run with the number of rounds.

use proxy_http::{
    HeadLimits, HeadParser, HeaderId, RequestHead, ResponseHead, request_framing, response_framing,
    write_request_head, write_response_head,
};

const REQUEST: &[u8] = b"GET /api/v1/products/0/reviews?lang=en HTTP/1.1\r\n\
Host: reviews.default.svc.cluster.local:9080\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Encoding: gzip, deflate, br\r\n\
X-Request-Id: 2f1d2f8e-6a3b-4b64-9c3c-1a2b3c4d5e6f\r\n\
Cookie: session=eyJ1c2VyIjoiamFzb24ifQ.ZmFrZQ\r\n\
\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.22.1\r\n\
Date: Sat, 21 Nov 2026 10:00:00 GMT\r\n\
Content-Type: application/json\r\n\
Content-Length: 1024\r\n\
Last-Modified: Sat, 21 Nov 2026 09:00:00 GMT\r\n\
Connection: keep-alive\r\n\
ETag: \"65cd1234-400\"\r\n\
Accept-Ranges: bytes\r\n\
\r\n";

fn main() {
    let rounds: usize = std::env::args()
        .nth(1)
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(100_000);
    let (mut request_parser, mut response_parser) = (
        HeadParser::new(HeadLimits::default()),
        HeadParser::new(HeadLimits::default()),
    );
    let (mut request, mut response) = (RequestHead::new(), ResponseHead::new());
    let mut out = Vec::with_capacity(4096);
    let mut written = 0;
    for _ in 0..rounds {
        let parsed = request_parser
            .request(REQUEST, &mut request)
            .expect("a valid request");
        assert_eq!(parsed.consumed, REQUEST.len(), "one whole request");
        request_framing(&request).expect("no body");
        request
            .headers
            .append_to_list(&HeaderId::XForwardedFor, b",", b"127.0.0.1");
        request.headers.set(&HeaderId::XForwardedProto, b"http");
        out.clear();
        write_request_head(&mut out, &request);
        written += out.len();

        let parsed = response_parser
            .response(RESPONSE, &mut response)
            .expect("a valid response");
        assert_eq!(parsed.consumed, RESPONSE.len(), "one whole response");
        response_framing(&response, false).expect("a length");
        response.headers.remove(&HeaderId::Connection);
        response.headers.set(&HeaderId::Server, b"istio-envoy");
        response.headers.set(&HeaderId::XEnvoyUpstreamServiceTime, b"1");
        out.clear();
        write_response_head(&mut out, &response);
        written += out.len();
    }
    // The result is used, so that nothing is optimised away.
    std::process::exit(i32::from(written == 0));
}
