//! Parts of the proxies' settings: tracing, topology, headers and connections of `mesh/v1alpha1/proxy.proto`.

use std::collections::BTreeMap;

use super::TraceContext;
use crate::networking::ClientTlsSettings;
use crate::proto::{Duration, message, proto_enum};

message! {
    /// Tracing.
    pub struct Tracing {
        /// Zipkin.
        pub zipkin: Option<TracerAddress>,
        /// Lightstep.
        pub lightstep: Option<TracerLightstep>,
        /// Datadog.
        pub datadog: Option<TracerAddress>,
        /// Stackdriver.
        pub stackdriver: Option<TracerStackdriver>,
        /// OpenCensus.
        pub open_census_agent: Option<TracerOpenCensusAgent>,
        /// Further tags of spans.
        pub custom_tags: BTreeMap<String, ProxyCustomTag>,
        /// Longest path in a span; 256 by default.
        pub max_path_tag_length: u32,
        /// Share of requests that are traced, in percent.
        pub sampling: f64,
        /// TLS towards the tracer.
        pub tls_settings: Option<ClientTlsSettings>,
        /// Whether Istio's own tags are added.
        pub enable_istio_tags: Option<bool>,
    }
}

message! {
    /// A tracer that is known by its address.
    pub struct TracerAddress {
        /// Address, as `host:port`.
        pub address: String,
    }
}

message! {
    /// Lightstep.
    pub struct TracerLightstep {
        /// Address, as `host:port`.
        pub address: String,
        /// Token.
        pub access_token: String,
    }
}

message! {
    /// Stackdriver.
    pub struct TracerStackdriver {
        /// Prints spans.
        pub debug: bool,
        /// Attributes at most.
        pub max_number_of_attributes: Option<i32>,
        /// Annotations at most.
        pub max_number_of_annotations: Option<i32>,
        /// Message events at most.
        pub max_number_of_message_events: Option<i32>,
    }
}

message! {
    /// OpenCensus.
    pub struct TracerOpenCensusAgent {
        /// Address, as `dns:host:port`.
        pub address: String,
        /// Headers that carry the context.
        pub context: Vec<TraceContext>,
    }
}

message! {
    /// A tag of spans.
    pub struct ProxyCustomTag {
        /// A fixed value.
        pub literal: Option<ProxyTagLiteral>,
        /// The value of an environment variable.
        pub environment: Option<ProxyTagDefault>,
        /// The value of a request header.
        pub header: Option<ProxyTagDefault>,
    }
}

message! {
    /// A fixed value of a tag.
    pub struct ProxyTagLiteral {
        /// The value.
        pub value: String,
    }
}

message! {
    /// A value that is looked up.
    pub struct ProxyTagDefault {
        /// Name of the variable or header.
        pub name: String,
        /// Value when there is none.
        pub default_value: String,
    }
}

message! {
    /// What stands before a gateway.
    pub struct Topology {
        /// Trusted proxies before it, for the client's address.
        pub num_trusted_proxies: u32,
        /// What happens to x-forwarded-client-cert.
        pub forward_client_cert_details: ForwardClientCertDetails,
        /// Expects the PROXY protocol.
        pub proxy_protocol: Option<ProxyProtocolConfiguration>,
    }
}

message! {
    /// Expects the PROXY protocol; there is nothing to set.
    pub struct ProxyProtocolConfiguration {}
}

proto_enum! {
    /// What happens to the header x-forwarded-client-cert.
    pub enum ForwardClientCertDetails {
        /// The default of the proxy's role.
        Undefined = "UNDEFINED" = 0,
        /// It is removed.
        Sanitize = "SANITIZE" = 1,
        /// It is passed on when the connection is mutual TLS.
        ForwardOnly = "FORWARD_ONLY" = 2,
        /// The client's certificate is added when the connection is mutual TLS.
        AppendForward = "APPEND_FORWARD" = 3,
        /// The client's certificate replaces it when the connection is mutual TLS.
        SanitizeSet = "SANITIZE_SET" = 4,
        /// It is always passed on.
        AlwaysForwardOnly = "ALWAYS_FORWARD_ONLY" = 5,
    }
}

message! {
    /// Hardware that holds private keys.
    pub struct PrivateKeyProvider {
        /// Intel CryptoMB.
        pub cryptomb: Option<KeyAccelerator>,
        /// Intel QAT.
        pub qat: Option<KeyAccelerator>,
    }
}

message! {
    /// An accelerator of private key operations.
    pub struct KeyAccelerator {
        /// Time between looks at its queue.
        pub poll_delay: Option<Duration>,
        /// Whether software takes over where the hardware is absent.
        pub fallback: Option<bool>,
    }
}

message! {
    /// Headers that proxies set.
    pub struct ProxyHeaders {
        /// x-forwarded-client-cert.
        pub forwarded_client_cert: ForwardClientCertDetails,
        /// Parts of the client's certificate in x-forwarded-client-cert.
        pub set_current_client_cert_details: Option<SetCurrentClientCertDetails>,
        /// x-request-id.
        pub request_id: Option<DisableHeader>,
        /// server.
        pub server: Option<ServerHeader>,
        /// x-envoy-attempt-count.
        pub attempt_count: Option<DisableHeader>,
        /// x-envoy-decorator-operation and its like.
        pub envoy_debug_headers: Option<DisableHeader>,
        /// Metadata exchange.
        pub metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        /// Whether the case of HTTP/1.1 header names stays.
        pub preserve_http1_header_case: Option<bool>,
        /// x-forwarded-host.
        pub x_forwarded_host: Option<EnableHeader>,
        /// x-forwarded-port.
        pub x_forwarded_port: Option<EnableHeader>,
    }
}

message! {
    /// Turns a header off.
    pub struct DisableHeader {
        /// Whether it is off.
        pub disabled: Option<bool>,
    }
}

message! {
    /// Turns a header on.
    pub struct EnableHeader {
        /// Whether it is on.
        pub enabled: Option<bool>,
    }
}

message! {
    /// The header server.
    pub struct ServerHeader {
        /// Whether it is left as the upstream sent it.
        pub disabled: Option<bool>,
        /// Its value; istio-envoy by default.
        pub value: String,
    }
}

message! {
    /// Headers that exchange metadata between proxies.
    pub struct MetadataExchangeHeaders {
        /// When they are sent.
        pub mode: MetadataExchangeMode,
    }
}

proto_enum! {
    /// When metadata is exchanged.
    pub enum MetadataExchangeMode {
        /// Always.
        Undefined = "UNDEFINED" = 0,
        /// Only inside the mesh.
        InMesh = "IN_MESH" = 1,
    }
}

message! {
    /// Parts of the client's certificate that are forwarded.
    pub struct SetCurrentClientCertDetails {
        /// The subject.
        pub subject: Option<bool>,
        /// The certificate.
        pub cert: Option<bool>,
        /// The chain.
        pub chain: Option<bool>,
        /// The DNS names.
        pub dns: Option<bool>,
        /// The URIs.
        pub uri: Option<bool>,
    }
}

message! {
    /// Limits and timers of connections.
    pub struct ConnectionSettings {
        /// Where the limits start from.
        pub profile: ConnectionProfile,
        /// Bytes that a listener buffers per connection.
        pub listener_per_connection_buffer_limit_bytes: Option<i32>,
        /// Bytes that a cluster buffers per connection.
        pub cluster_per_connection_buffer_limit_bytes: Option<i32>,
        /// Longest time without a request on a connection.
        pub http_idle_timeout: Option<Duration>,
        /// Longest life of a connection.
        pub http_max_connection_duration: Option<Duration>,
        /// How long a connection drains.
        pub http_drain_timeout: Option<Duration>,
        /// Longest time for a whole request to arrive.
        pub http_request_timeout: Option<Duration>,
        /// Longest time for the headers of a request to arrive.
        pub http_request_headers_timeout: Option<Duration>,
        /// Longest silence in a request.
        pub http_stream_idle_timeout: Option<Duration>,
        /// Longest life of a request.
        pub http_max_stream_duration: Option<Duration>,
        /// Requests at the same time on a connection at most.
        pub http_max_concurrent_streams: Option<i32>,
        /// HTTP/2 window of a stream.
        pub http2_initial_stream_window_size: Option<i32>,
        /// HTTP/2 window of a connection.
        pub http2_initial_connection_window_size: Option<i32>,
        /// What happens to headers with an underscore in their name.
        pub http_headers_with_underscores_action: HeadersWithUnderscoresAction,
        /// Whether slashes in a row become one.
        pub http_merge_slashes: Option<bool>,
        /// What happens to paths with escaped slashes.
        pub http_path_with_escaped_slashes_action: PathWithEscapedSlashesAction,
        /// Connections of a listener at most.
        pub listener_connection_limit: Option<i32>,
        /// Connections of the proxy at most.
        pub global_downstream_connection_limit: Option<i32>,
    }
}

proto_enum! {
    /// Where limits start from.
    pub enum ConnectionProfile {
        /// Limits for a sidecar.
        Sidecar = "SIDECAR" = 0,
        /// Limits for a proxy that strangers talk to.
        Edge = "EDGE" = 1,
    }
}

proto_enum! {
    /// What happens to headers with an underscore in their name.
    pub enum HeadersWithUnderscoresAction {
        /// As the profile says.
        Unspecified = "HEADERS_WITH_UNDERSCORES_UNSPECIFIED" = 0,
        /// They pass.
        Allow = "HEADERS_WITH_UNDERSCORES_ALLOW" = 1,
        /// The request is refused.
        RejectRequest = "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST" = 2,
        /// They are removed.
        DropHeader = "HEADERS_WITH_UNDERSCORES_DROP_HEADER" = 3,
    }
}

proto_enum! {
    /// What happens to paths with escaped slashes.
    pub enum PathWithEscapedSlashesAction {
        /// As the profile says.
        Unspecified = "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED" = 0,
        /// They pass.
        KeepUnchanged = "KEEP_UNCHANGED" = 1,
        /// The request is refused.
        RejectRequest = "REJECT_REQUEST" = 2,
        /// The client is redirected to the unescaped path.
        UnescapeAndRedirect = "UNESCAPE_AND_REDIRECT" = 3,
        /// The path is unescaped.
        UnescapeAndForward = "UNESCAPE_AND_FORWARD" = 4,
    }
}
