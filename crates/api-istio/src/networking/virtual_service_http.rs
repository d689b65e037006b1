//! HTTP routes of a VirtualService: `networking/v1alpha3/virtual_service.proto`, from `HTTPRoute` downwards.

use std::collections::BTreeMap;

use super::{Destination, StringMatch};
use crate::proto::{Bytes, Duration, message, proto_enum};

message! {
    /// Conditions on an HTTP request and what happens to it.
    pub struct HttpRoute {
        /// Name of the route, shown in access logs together with the name of the condition that matched.
        pub name: String,
        /// Conditions, any of which is enough; none means every request.
        pub r#match: Vec<HttpMatchRequest>,
        /// Destinations with their shares.
        pub route: Vec<HttpRouteDestination>,
        /// Answers with a redirect instead of forwarding.
        pub redirect: Option<HttpRedirect>,
        /// Answers with a fixed response instead of forwarding.
        pub direct_response: Option<HttpDirectResponse>,
        /// Another VirtualService, without hosts, whose routes take over here; nothing but conditions of the request may
        /// stand beside it.
        pub delegate: Option<Delegate>,
        /// Changes path or authority before forwarding.
        pub rewrite: Option<HttpRewrite>,
        /// Longest time for the whole response, retries included; none by default.
        pub timeout: Option<Duration>,
        /// When and how often a failed request is tried again.
        pub retries: Option<HttpRetry>,
        /// Faults to inject, to test how clients cope.
        pub fault: Option<HttpFaultInjection>,
        /// Sends a copy of each request here; the answer to the copy is thrown away.
        pub mirror: Option<Destination>,
        /// Sends copies to several destinations, each with its own share.
        pub mirrors: Vec<HttpMirrorPolicy>,
        /// Deprecated: use mirrorPercentage.
        pub mirror_percent: Option<u32> as "mirrorPercent" or "mirror_percent" [Nullable],
        /// Share of requests that is mirrored; all by default.
        pub mirror_percentage: Option<Percent>,
        /// Cross-origin resource sharing.
        pub cors_policy: Option<CorsPolicy>,
        /// Changes to headers of request and response.
        pub headers: Option<Headers>,
    }
}

message! {
    /// Names a VirtualService that takes over.
    pub struct Delegate {
        /// Its name.
        pub name: String,
        /// Its namespace; that of the delegating object by default.
        pub namespace: String,
    }
}

message! {
    /// Changes to headers.
    pub struct Headers {
        /// Before the request goes to the destination.
        pub request: Option<HeaderOperations>,
        /// Before the response goes back to the client.
        pub response: Option<HeaderOperations>,
    }
}

message! {
    /// Changes to the headers of one message.
    pub struct HeaderOperations {
        /// Headers that get this value, whatever they had.
        pub set: BTreeMap<String, String>,
        /// Headers that get this value beside those they have.
        pub add: BTreeMap<String, String>,
        /// Headers that are taken away.
        pub remove: Vec<String>,
    }
}

message! {
    /// Conditions on an HTTP request, all of which must hold.
    pub struct HttpMatchRequest {
        /// Name of the condition, shown in access logs.
        pub name: String,
        /// The path, without query.
        pub uri: Option<StringMatch>,
        /// The scheme, http or https.
        pub scheme: Option<StringMatch>,
        /// The method.
        pub method: Option<StringMatch>,
        /// The authority, which HTTP/1.1 calls Host.
        pub authority: Option<StringMatch>,
        /// Headers by lower-case name; an empty condition asks only that the header is present.
        pub headers: BTreeMap<String, StringMatch>,
        /// Port of the service or gateway.
        pub port: u32,
        /// Labels that the client workload must have.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways that the condition is for, in place of the list at the top.
        pub gateways: Vec<String>,
        /// Query parameters by name.
        pub query_params: BTreeMap<String, StringMatch>,
        /// Compares the path without regard to case; not for regular expressions.
        pub ignore_uri_case: bool,
        /// Headers that must not match; an empty condition asks that the header is absent.
        pub without_headers: BTreeMap<String, StringMatch>,
        /// Namespace that the client workload must be in.
        pub source_namespace: String,
        /// Prefix of the route's own statistics.
        pub stat_prefix: String,
    }
}

message! {
    /// A destination of HTTP requests, its share, and header changes of its own.
    pub struct HttpRouteDestination {
        /// Where requests go.
        pub destination: Destination [Required],
        /// Share relative to the sum of all weights; a single destination needs none.
        pub weight: i32,
        /// Changes to headers for this destination only.
        pub headers: Option<Headers>,
    }
}

message! {
    /// A redirect answer.
    pub struct HttpRedirect [OneOf(&["port", "derivePort"])] {
        /// Replaces path and query; `%PREFIX()%` is the part that a prefix condition matched.
        pub uri: String,
        /// Replaces the authority.
        pub authority: String,
        /// Replaces the port.
        pub port: Option<u32>,
        /// Takes the port from elsewhere.
        pub derive_port: Option<RedirectPortSelection>,
        /// Replaces the scheme.
        pub scheme: String,
        /// Status of the answer: 301 by default.
        pub redirect_code: u32,
        /// Replaces the part of the path that a prefix condition matched.
        pub prefix_rewrite: String,
    }
}

proto_enum! {
    /// Where a redirect takes its port from.
    pub enum RedirectPortSelection {
        /// 80 for http, 443 for https.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT" = 0,
        /// The port of the request.
        FromRequestPort = "FROM_REQUEST_PORT" = 1,
    }
}

message! {
    /// A fixed answer.
    pub struct HttpDirectResponse {
        /// Status code.
        pub status: u32 [Required],
        /// Body; none by default. Add a content-type through headers.
        pub body: Option<HttpBody>,
    }
}

message! {
    /// Body of a fixed answer.
    pub struct HttpBody [OneOf(&["string", "bytes"])] {
        /// As text.
        pub string: Option<String>,
        /// As base64.
        pub bytes: Option<Bytes>,
    }
}

message! {
    /// Changes to path and authority.
    pub struct HttpRewrite {
        /// Replaces the path, or the part of it that a prefix condition matched.
        pub uri: String,
        /// Replaces the authority.
        pub authority: String,
        /// Replaces what a regular expression finds in the path.
        pub uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// Replaces by regular expression.
    pub struct RegexRewrite {
        /// RE2 expression to find.
        pub r#match: String,
        /// What is put in its place; `\1` and so on are its groups.
        pub rewrite: String,
    }
}

message! {
    /// When and how a failed request is tried again.
    pub struct HttpRetry {
        /// Retries at most; 0 turns them off.
        pub attempts: i32,
        /// Longest time of one try, the first included; that of the route by default.
        pub per_try_timeout: Option<Duration>,
        /// What is tried again: names of conditions and status codes, separated by commas.
        pub retry_on: String,
        /// Whether endpoints of other localities may be tried.
        pub retry_remote_localities: Option<bool> [Nullable],
        /// Whether endpoints that were already tried are left out; true by default.
        pub retry_ignore_previous_hosts: Option<bool> [Nullable],
        /// Shortest pause before a retry, which grows with each; 25 ms by default.
        pub backoff: Option<Duration>,
    }
}

message! {
    /// Cross-origin resource sharing.
    pub struct CorsPolicy {
        /// Deprecated: use allowOrigins.
        pub allow_origin: Vec<String>,
        /// Origins that may read answers.
        pub allow_origins: Vec<StringMatch>,
        /// Methods for access-control-allow-methods.
        pub allow_methods: Vec<String>,
        /// Headers that a request may carry.
        pub allow_headers: Vec<String>,
        /// Headers that the caller may read.
        pub expose_headers: Vec<String>,
        /// How long a preflight answer may be kept.
        pub max_age: Option<Duration>,
        /// Whether requests may carry credentials.
        pub allow_credentials: Option<bool> [Nullable],
        /// What happens to preflights whose origin is not allowed.
        pub unmatched_preflights: UnmatchedPreflights,
    }
}

proto_enum! {
    /// What happens to preflights whose origin is not allowed.
    pub enum UnmatchedPreflights {
        /// Forward.
        Unspecified = "UNSPECIFIED" = 0,
        /// They go to the destination.
        Forward = "FORWARD" = 1,
        /// They are answered without access-control headers.
        Ignore = "IGNORE" = 2,
    }
}

message! {
    /// Faults to inject.
    pub struct HttpFaultInjection {
        /// Waits before forwarding.
        pub delay: Option<FaultDelay>,
        /// Answers with an error instead of forwarding.
        pub abort: Option<FaultAbort>,
    }
}

message! {
    /// A pause before forwarding.
    pub struct FaultDelay [OneOf(&["fixedDelay", "exponentialDelay"])] {
        /// Deprecated: use percentage.
        pub percent: i32,
        /// Length of the pause.
        pub fixed_delay: Option<Duration>,
        /// Not supported.
        pub exponential_delay: Option<Duration>,
        /// Share of requests that wait.
        pub percentage: Option<Percent>,
    }
}

message! {
    /// An error answer instead of forwarding.
    pub struct FaultAbort [OneOf(&["httpStatus", "grpcStatus", "http2Error"])] {
        /// HTTP status.
        pub http_status: Option<i32>,
        /// gRPC status by name, such as UNAVAILABLE.
        pub grpc_status: Option<String>,
        /// Not supported.
        pub http2_error: Option<String>,
        /// Share of requests that fail.
        pub percentage: Option<Percent>,
    }
}

message! {
    /// A destination of copies and its share.
    pub struct HttpMirrorPolicy {
        /// Where copies go.
        pub destination: Destination [Required],
        /// Share of requests that is copied; all by default.
        pub percentage: Option<Percent>,
    }
}

message! {
    /// A share in percent.
    pub struct Percent {
        /// From 0 to 100; the smallest step is 0.0001.
        pub value: f64,
    }
}
