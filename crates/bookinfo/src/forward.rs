//! Which request headers travel on to the next service, so that one user's request stays one trace.

use hyper::HeaderMap;
use hyper::header::HeaderName;

/// The headers that bookinfo forwards: request id, the trace contexts of every common tracer, and who is asking.
const FORWARDED: &[&str] = &[
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// The headers of `incoming` that the next request carries.
pub(crate) fn forwarded(incoming: &HeaderMap) -> HeaderMap {
    let mut outgoing = HeaderMap::new();
    for name in FORWARDED {
        for value in incoming.get_all(*name) {
            outgoing.append(HeaderName::from_static(name), value.clone());
        }
    }
    outgoing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_headers_travel_and_hop_headers_do_not() {
        let mut incoming = HeaderMap::new();
        for name in [
            "x-request-id",
            "x-b3-traceid",
            "end-user",
            "host",
            "content-length",
            "x-internal",
        ] {
            incoming.insert(HeaderName::from_static(name), "1".parse().unwrap());
        }
        let outgoing = forwarded(&incoming);
        assert_eq!(outgoing.len(), 3);
        assert!(outgoing.contains_key("x-b3-traceid"));
    }
}
