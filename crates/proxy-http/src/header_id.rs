//! Interned names of the header fields that the proxy itself touches.
//!
//! A known name costs one hash of its length and three of its bytes when a head is parsed; from then on
//! every look-up by [`HeaderId`] is one load from the message's index (see [`crate::Headers`]).

/// Declares [`HeaderId`] and its table of names from one list.
macro_rules! header_ids {
    ($($variant:ident = $name:literal,)*) => {
        /// The identity of a well-known header field. Names are in lower case, as HTTP/2 writes them.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum HeaderId {
            $(
                #[doc = concat!("`", $name, "`")]
                $variant,
            )*
        }

        /// Names in the order of [`HeaderId`].
        const NAMES: &[&str] = &[$($name,)*];

        /// The ids in order, so that an index becomes an id without unsafe code.
        const IDS: &[HeaderId] = &[$(HeaderId::$variant,)*];
    };
}

header_ids! {
    Method = ":method",
    Path = ":path",
    Authority = ":authority",
    Scheme = ":scheme",
    Status = ":status",
    Protocol = ":protocol",
    Host = "host",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Connection = "connection",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Te = "te",
    Trailer = "trailer",
    Upgrade = "upgrade",
    Http2Settings = "http2-settings",
    Expect = "expect",
    Date = "date",
    Server = "server",
    Via = "via",
    UserAgent = "user-agent",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    Authorization = "authorization",
    CacheControl = "cache-control",
    ContentEncoding = "content-encoding",
    ContentType = "content-type",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    Etag = "etag",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    Range = "range",
    Referer = "referer",
    RetryAfter = "retry-after",
    Vary = "vary",
    WwwAuthenticate = "www-authenticate",
    AccessControlAllowCredentials = "access-control-allow-credentials",
    AccessControlAllowHeaders = "access-control-allow-headers",
    AccessControlAllowMethods = "access-control-allow-methods",
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlExposeHeaders = "access-control-expose-headers",
    AccessControlMaxAge = "access-control-max-age",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    SecWebsocketKey = "sec-websocket-key",
    SecWebsocketAccept = "sec-websocket-accept",
    SecWebsocketVersion = "sec-websocket-version",
    SecWebsocketProtocol = "sec-websocket-protocol",
    SecWebsocketExtensions = "sec-websocket-extensions",
    XRequestId = "x-request-id",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedClientCert = "x-forwarded-client-cert",
    Forwarded = "forwarded",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDegraded = "x-envoy-degraded",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyIsTimeoutRetry = "x-envoy-is-timeout-retry",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOriginalUrl = "x-envoy-original-url",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyPeerMetadata = "x-envoy-peer-metadata",
    XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id",
    XEnvoyRatelimited = "x-envoy-ratelimited",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamCanary = "x-envoy-upstream-canary",
    XEnvoyUpstreamHealthcheckedCluster = "x-envoy-upstream-healthchecked-cluster",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",
    XOtSpanContext = "x-ot-span-context",
    XB3TraceId = "x-b3-traceid",
    XB3SpanId = "x-b3-spanid",
    XB3ParentSpanId = "x-b3-parentspanid",
    XB3Sampled = "x-b3-sampled",
    XB3Flags = "x-b3-flags",
    B3 = "b3",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Baggage = "baggage",
    XClientTraceId = "x-client-trace-id",
    GrpcStatus = "grpc-status",
    GrpcMessage = "grpc-message",
    GrpcTimeout = "grpc-timeout",
    GrpcAcceptEncoding = "grpc-accept-encoding",
}

/// How many ids there are; sizes the per-message index.
pub(crate) const ID_COUNT: usize = NAMES.len();

/// Slots of the name table: a power of two, several times the number of names, so that probes are short.
const SLOTS: usize = 1024;

/// A slot that holds no id.
const EMPTY: u8 = u8::MAX;

/// Name table: open addressing over [`slot_of`], built by the compiler.
static TABLE: [u8; SLOTS] = build_table();

const _: () = assert!(ID_COUNT < EMPTY as usize, "an id must fit in a byte beside EMPTY");

/// Hashes a lower-case name by its length and three of its bytes, which tells the known names apart well.
const fn slot_of(name: &[u8]) -> usize {
    let length = name.len();
    if length == 0 {
        return 0;
    }
    let (first, middle, last) = (
        name[0] as usize,
        name[length / 2] as usize,
        name[length - 1] as usize,
    );
    let penultimate = name[length * 3 / 4] as usize;
    (length * 67 + first * 5 + middle * 131 + last * 29 + penultimate * 257) % SLOTS
}

const fn build_table() -> [u8; SLOTS] {
    let mut table = [EMPTY; SLOTS];
    let mut id = 0;
    while id < ID_COUNT {
        let mut slot = slot_of(NAMES[id].as_bytes());
        while table[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = id as u8;
        id += 1;
    }
    table
}

impl HeaderId {
    /// The id of a lower-case field name, or `None` when the name is not a well-known one.
    #[inline]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let mut slot = slot_of(name);
        loop {
            let id = TABLE[slot];
            if id == EMPTY {
                return None;
            }
            if NAMES[id as usize].as_bytes() == name {
                return Some(IDS[id as usize]);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// The field name in lower case.
    #[inline]
    pub const fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// True for the names that begin with a colon: they are carried in the request or status line under HTTP/1.
    #[inline]
    pub const fn is_pseudo(self) -> bool {
        (self as u8) <= (HeaderId::Protocol as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_own_id() {
        for (index, name) in NAMES.iter().enumerate() {
            assert_eq!(HeaderId::from_name(name.as_bytes()), Some(IDS[index]), "{name}");
            assert_eq!(*name, name.to_ascii_lowercase(), "names are kept in lower case");
        }
    }

    #[test]
    fn names_that_are_not_listed_have_no_id() {
        for name in [
            "",
            "x",
            "hosts",
            "hos",
            "x-request-ie",
            "content-lengtH",
            ":methods",
        ] {
            assert_eq!(HeaderId::from_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn the_name_table_needs_few_probes() {
        let longest = NAMES
            .iter()
            .map(|name| {
                let mut probes = 1;
                let mut slot = slot_of(name.as_bytes());
                while NAMES[TABLE[slot] as usize] != *name {
                    slot = (slot + 1) % SLOTS;
                    probes += 1;
                }
                probes
            })
            .max();
        assert!(
            longest <= Some(4),
            "the hash no longer spreads the names: {longest:?} probes"
        );
    }
}
