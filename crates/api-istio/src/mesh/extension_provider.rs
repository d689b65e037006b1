//! Extension providers of MeshConfig: `MeshConfig.ExtensionProvider` of `mesh/v1alpha1/config.proto`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::proto::{Duration, message, proto_enum};

message! {
    /// Something outside the proxy that other objects refer to by name; exactly one kind is set.
    pub struct ExtensionProvider {
        /// Name that other objects use.
        pub name: String,
        /// External authorization over HTTP.
        pub envoy_ext_authz_http: Option<ExtAuthzHttpProvider>,
        /// External authorization over gRPC.
        pub envoy_ext_authz_grpc: Option<ExtAuthzGrpcProvider>,
        /// Traces to Zipkin.
        pub zipkin: Option<ZipkinTracingProvider>,
        /// Deprecated: traces to Lightstep.
        pub lightstep: Option<LightstepTracingProvider>,
        /// Traces to Datadog.
        pub datadog: Option<DatadogTracingProvider>,
        /// Traces, metrics and logs to Stackdriver.
        pub stackdriver: Option<StackdriverProvider>,
        /// Deprecated: traces to OpenCensus.
        pub opencensus: Option<OpenCensusAgentTracingProvider>,
        /// Traces to SkyWalking.
        pub skywalking: Option<SkyWalkingTracingProvider>,
        /// Traces to OpenTelemetry.
        pub opentelemetry: Option<OpenTelemetryTracingProvider>,
        /// Metrics for Prometheus.
        pub prometheus: Option<PrometheusMetricsProvider>,
        /// Access logs to a file.
        pub envoy_file_access_log: Option<FileAccessLogProvider>,
        /// HTTP access logs to Envoy's access log service.
        pub envoy_http_als: Option<HttpAlsProvider>,
        /// TCP access logs to Envoy's access log service.
        pub envoy_tcp_als: Option<TcpAlsProvider>,
        /// Access logs to OpenTelemetry.
        pub envoy_otel_als: Option<OtelAlsProvider>,
        /// Certificates from a service.
        pub sds: Option<SdsProvider>,
    }
}

message! {
    /// The part of a request's body that an authorization check gets.
    pub struct ExtAuthzRequestBody {
        /// Bytes at most.
        pub max_request_bytes: u32,
        /// Whether a part is enough.
        pub allow_partial_message: bool,
        /// Whether it is sent as bytes instead of as a string.
        pub pack_as_bytes: bool,
    }
}

message! {
    /// External authorization over HTTP.
    pub struct ExtAuthzHttpProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest time for an answer; 600 s by default.
        pub timeout: Option<Duration>,
        /// Put before the path of the check.
        pub path_prefix: String,
        /// Whether requests pass when the check fails.
        pub fail_open: bool,
        /// Whether routes are chosen again after the check.
        pub clear_route_cache: bool,
        /// Status when the check fails; 403 by default.
        pub status_on_error: String,
        /// Deprecated: use includeRequestHeadersInCheck.
        pub include_headers_in_check: Vec<String>,
        /// Request headers that the check gets.
        pub include_request_headers_in_check: Vec<String>,
        /// Further headers of the check.
        pub include_additional_headers_in_check: BTreeMap<String, String>,
        /// The part of the body that the check gets.
        pub include_request_body_in_check: Option<ExtAuthzRequestBody>,
        /// Headers of the answer that go upstream when it allows.
        pub headers_to_upstream_on_allow: Vec<String>,
        /// Headers of the answer that go to the client when it denies.
        pub headers_to_downstream_on_deny: Vec<String>,
        /// Headers of the answer that go to the client when it allows.
        pub headers_to_downstream_on_allow: Vec<String>,
    }
}

message! {
    /// External authorization over gRPC.
    pub struct ExtAuthzGrpcProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest time for an answer; 600 s by default.
        pub timeout: Option<Duration>,
        /// Whether requests pass when the check fails.
        pub fail_open: bool,
        /// Whether routes are chosen again after the check.
        pub clear_route_cache: bool,
        /// Status when the check fails; 403 by default.
        pub status_on_error: String,
        /// The part of the body that the check gets.
        pub include_request_body_in_check: Option<ExtAuthzRequestBody>,
    }
}

message! {
    /// Traces to Zipkin.
    pub struct ZipkinTracingProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest path in a span.
        pub max_tag_length: u32,
        /// Whether trace ids have 64 bits.
        pub enable_64bit_trace_id: bool as "enable64bitTraceId",
        /// Path of the collector; /api/v2/spans by default.
        pub path: String,
        /// Headers that carry the context.
        pub trace_context_option: ZipkinTraceContextOption,
        /// Longest time for an answer.
        pub timeout: Option<Duration>,
        /// Headers of the requests to the collector.
        pub headers: Vec<ProviderHttpHeader>,
    }
}

proto_enum! {
    /// Headers that carry the context.
    pub enum ZipkinTraceContextOption {
        /// B3.
        UseB3 = "USE_B3" = 0,
        /// B3 and W3C.
        UseB3WithW3cPropagation = "USE_B3_WITH_W3C_PROPAGATION" = 1,
    }
}

message! {
    /// Deprecated: traces to Lightstep.
    pub struct LightstepTracingProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Token.
        pub access_token: String,
        /// Longest path in a span.
        pub max_tag_length: u32,
    }
}

message! {
    /// Traces to Datadog.
    pub struct DatadogTracingProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest path in a span.
        pub max_tag_length: u32,
    }
}

message! {
    /// Traces to SkyWalking.
    pub struct SkyWalkingTracingProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Token.
        pub access_token: String,
    }
}

message! {
    /// Traces, metrics and logs to Stackdriver.
    pub struct StackdriverProvider {
        /// Deprecated: prints spans.
        pub debug: bool,
        /// Deprecated: attributes at most.
        pub max_number_of_attributes: Option<i32>,
        /// Deprecated: annotations at most.
        pub max_number_of_annotations: Option<i32>,
        /// Deprecated: message events at most.
        pub max_number_of_message_events: Option<i32>,
        /// Longest path in a span.
        pub max_tag_length: u32,
        /// Logs.
        pub logging: Option<StackdriverLogging>,
    }
}

message! {
    /// Logs to Stackdriver.
    pub struct StackdriverLogging {
        /// Labels, whose values are CEL expressions.
        pub labels: BTreeMap<String, String>,
    }
}

message! {
    /// Deprecated: traces to OpenCensus.
    pub struct OpenCensusAgentTracingProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Headers that carry the context.
        pub context: Vec<TraceContext>,
        /// Longest path in a span.
        pub max_tag_length: u32,
    }
}

proto_enum! {
    /// Headers that carry a trace's context.
    pub enum TraceContext {
        /// W3C.
        Unspecified = "UNSPECIFIED" = 0,
        /// traceparent.
        W3cTraceContext = "W3C_TRACE_CONTEXT" = 1,
        /// grpc-trace-bin.
        GrpcBin = "GRPC_BIN" = 2,
        /// x-cloud-trace-context.
        CloudTraceContext = "CLOUD_TRACE_CONTEXT" = 3,
        /// x-b3-*.
        B3 = "B3" = 4,
    }
}

message! {
    /// Metrics for Prometheus; there is nothing to set.
    pub struct PrometheusMetricsProvider {}
}

message! {
    /// Access logs to a file.
    pub struct FileAccessLogProvider {
        /// The file, such as /dev/stdout.
        pub path: String,
        /// Format; Istio's by default.
        pub log_format: Option<LogFormat>,
        /// Whether empty values are left out.
        pub omit_empty_values: bool,
    }
}

message! {
    /// Format of an access log; as text or as JSON.
    pub struct LogFormat {
        /// A line with Envoy's command operators.
        pub text: Option<String>,
        /// Fields of a JSON object, whose values carry Envoy's command operators.
        pub labels: Option<Map<String, Value>>,
    }
}

message! {
    /// HTTP access logs to Envoy's access log service.
    pub struct HttpAlsProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Name of the log; http_envoy_accesslog by default.
        pub log_name: String,
        /// Filter state that is logged.
        pub filter_state_objects_to_log: Vec<String>,
        /// Request headers that are logged.
        pub additional_request_headers_to_log: Vec<String>,
        /// Response headers that are logged.
        pub additional_response_headers_to_log: Vec<String>,
        /// Response trailers that are logged.
        pub additional_response_trailers_to_log: Vec<String>,
    }
}

message! {
    /// TCP access logs to Envoy's access log service.
    pub struct TcpAlsProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Name of the log; tcp_envoy_accesslog by default.
        pub log_name: String,
        /// Filter state that is logged.
        pub filter_state_objects_to_log: Vec<String>,
    }
}

message! {
    /// Access logs to OpenTelemetry.
    pub struct OtelAlsProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Name of the log; otel_envoy_accesslog by default.
        pub log_name: String,
        /// Body and attributes of a record.
        pub log_format: Option<LogFormat>,
    }
}

message! {
    /// Traces to OpenTelemetry.
    pub struct OpenTelemetryTracingProvider {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest path in a span.
        pub max_tag_length: u32,
        /// Sends over HTTP.
        pub http: Option<ProviderHttpService>,
        /// Sends over gRPC.
        pub grpc: Option<ProviderGrpcService>,
        /// Where attributes of the resource come from.
        pub resource_detectors: Option<ResourceDetectors>,
        /// How the service is named.
        pub service_attribute_enrichment: ServiceAttributeEnrichment,
        /// Sampling by Dynatrace.
        pub dynatrace_sampler: Option<DynatraceSampler>,
    }
}

proto_enum! {
    /// How the service of a span is named.
    pub enum ServiceAttributeEnrichment {
        /// By Istio's canonical name.
        IstioCanonical = "ISTIO_CANONICAL" = 0,
        /// By OpenTelemetry's conventions.
        OtelSemanticConventions = "OTEL_SEMANTIC_CONVENTIONS" = 1,
    }
}

message! {
    /// Sampling by Dynatrace.
    pub struct DynatraceSampler {
        /// Tenant.
        pub tenant: String,
        /// Cluster.
        pub cluster_id: i32,
        /// Traces that begin here per minute, when Dynatrace does not say.
        pub root_spans_per_minute: u32,
        /// Where Dynatrace is asked.
        pub http_service: Option<DynatraceApi>,
    }
}

message! {
    /// Where Dynatrace is asked.
    pub struct DynatraceApi {
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// The request.
        pub http: Option<ProviderHttpService>,
    }
}

message! {
    /// Certificates from a service.
    pub struct SdsProvider {
        /// Name that credentials use.
        pub name: String,
        /// Service, as `namespace/host` or `host`.
        pub service: String,
        /// Its port.
        pub port: u32,
    }
}

message! {
    /// A request over HTTP.
    pub struct ProviderHttpService {
        /// Path.
        pub path: String,
        /// Longest time for an answer.
        pub timeout: Option<Duration>,
        /// Headers.
        pub headers: Vec<ProviderHttpHeader>,
    }
}

message! {
    /// A header of a request to a provider.
    pub struct ProviderHttpHeader {
        /// Its name.
        pub name: String,
        /// Its value.
        pub value: Option<String>,
        /// Environment variable that holds its value.
        pub env_name: Option<String>,
    }
}

message! {
    /// A request over gRPC.
    pub struct ProviderGrpcService {
        /// Longest time for an answer.
        pub timeout: Option<Duration>,
        /// Metadata.
        pub initial_metadata: Vec<ProviderHttpHeader>,
    }
}

message! {
    /// Where attributes of the resource come from.
    pub struct ResourceDetectors {
        /// The environment variable OTEL_RESOURCE_ATTRIBUTES.
        pub environment: Option<EmptyDetector>,
        /// Dynatrace's files.
        pub dynatrace: Option<EmptyDetector>,
    }
}

message! {
    /// A detector; there is nothing to set.
    pub struct EmptyDetector {}
}
