//! Telemetry: `telemetry/v1alpha1/telemetry.proto`.

use std::collections::BTreeMap;

use crate::proto::{Duration, message, proto_enum};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    /// Says what proxies measure, trace and log.
    pub struct Telemetry [
        Cel("(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
            "only one of targetRefs or selector can be set"),
    ] {
        /// Workloads that this is for; all of the namespace by default.
        pub selector: Option<WorkloadSelector>,
        /// One gateway or service that this is for.
        pub target_ref: Option<PolicyTargetReference>,
        /// Gateways or services that this is for.
        pub target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Tracing.
        pub tracing: Vec<Tracing>,
        /// Metrics.
        pub metrics: Vec<Metrics>,
        /// Access logs.
        pub access_logging: Vec<AccessLogging>,
    }
}

message! {
    /// How requests are traced.
    pub struct Tracing {
        /// Which traffic.
        pub r#match: Option<ModeSelector>,
        /// Where spans go; the mesh's default by default.
        pub providers: Vec<ProviderRef>,
        /// Share of requests that are traced when nobody decided yet, in percent.
        pub random_sampling_percentage: Option<f64> [Nullable, Minimum(0), Maximum(100)],
        /// Whether spans are only passed on and not reported.
        pub disable_span_reporting: Option<bool> [Nullable],
        /// Further tags of spans, by name.
        pub custom_tags: BTreeMap<String, CustomTag>,
        /// Whether x-request-id decides about sampling.
        pub use_request_id_for_trace_sampling: Option<bool> [Nullable],
        /// Whether Istio's own tags are added; true by default.
        pub enable_istio_tags: Option<bool> [Nullable],
        /// Whether the context is not passed on.
        pub disable_context_propagation: Option<bool> [Nullable],
    }
}

message! {
    /// Chooses traffic by the workload's side.
    pub struct ModeSelector {
        /// The side.
        pub mode: WorkloadMode,
    }
}

proto_enum! {
    /// Which side of a connection a workload is on.
    pub enum WorkloadMode {
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER" = 0,
        /// The workload opens the connection.
        Client = "CLIENT" = 1,
        /// The workload accepts the connection.
        Server = "SERVER" = 2,
    }
}

message! {
    /// A tag of spans.
    pub struct CustomTag [OneOf(&["literal", "environment", "header", "formatter"])] {
        /// A fixed value.
        pub literal: Option<TagLiteral>,
        /// The value of an environment variable of the proxy.
        pub environment: Option<TagLookup>,
        /// The value of a request header.
        pub header: Option<TagLookup>,
        /// A text with Envoy's command operators.
        pub formatter: Option<TagLiteral>,
    }
}

message! {
    /// A value that is given.
    pub struct TagLiteral {
        /// The value.
        pub value: String [Required, MinLength(1)],
    }
}

message! {
    /// A value that is looked up.
    pub struct TagLookup {
        /// Name of the variable or header.
        pub name: String [Required, MinLength(1)],
        /// Value when there is none.
        pub default_value: String,
    }
}

message! {
    /// Names a provider of MeshConfig.
    pub struct ProviderRef {
        /// Name among the extension providers.
        pub name: String [Required, MinLength(1)],
    }
}

message! {
    /// What is measured.
    pub struct Metrics {
        /// Where metrics go; the mesh's default by default.
        pub providers: Vec<ProviderRef>,
        /// Changes to metrics and their tags.
        pub overrides: Vec<MetricsOverrides>,
        /// Time between reports of TCP metrics; 15 s by default.
        pub reporting_interval: Option<Duration>,
    }
}

message! {
    /// Chooses metrics.
    pub struct MetricSelector [OneOf(&["metric", "customMetric"])] {
        /// One of Istio's.
        pub metric: Option<IstioMetric>,
        /// Any other, by name.
        pub custom_metric: Option<String> [MinLength(1)],
        /// Which traffic.
        pub mode: WorkloadMode,
    }
}

proto_enum! {
    /// A metric of Istio's.
    pub enum IstioMetric {
        /// All of them.
        AllMetrics = "ALL_METRICS" = 0,
        /// istio_requests_total.
        RequestCount = "REQUEST_COUNT" = 1,
        /// istio_request_duration_milliseconds.
        RequestDuration = "REQUEST_DURATION" = 2,
        /// istio_request_bytes.
        RequestSize = "REQUEST_SIZE" = 3,
        /// istio_response_bytes.
        ResponseSize = "RESPONSE_SIZE" = 4,
        /// istio_tcp_connections_opened_total.
        TcpOpenedConnections = "TCP_OPENED_CONNECTIONS" = 5,
        /// istio_tcp_connections_closed_total.
        TcpClosedConnections = "TCP_CLOSED_CONNECTIONS" = 6,
        /// istio_tcp_sent_bytes_total.
        TcpSentBytes = "TCP_SENT_BYTES" = 7,
        /// istio_tcp_received_bytes_total.
        TcpReceivedBytes = "TCP_RECEIVED_BYTES" = 8,
        /// istio_request_messages_total.
        GrpcRequestMessages = "GRPC_REQUEST_MESSAGES" = 9,
        /// istio_response_messages_total.
        GrpcResponseMessages = "GRPC_RESPONSE_MESSAGES" = 10,
    }
}

message! {
    /// Changes to metrics.
    pub struct MetricsOverrides {
        /// Which metrics; all by default.
        pub r#match: Option<MetricSelector>,
        /// Whether they are left out.
        pub disabled: Option<bool> [Nullable],
        /// Changes to tags, by name.
        pub tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    /// A change to a tag.
    pub struct TagOverride [
        Cel("((has(self.operation) ? self.operation : \"\") == \"UPSERT\") ? (self.value != \"\") : true",
            "value must be set when operation is UPSERT"),
        Cel("((has(self.operation) ? self.operation : \"\") == \"REMOVE\") ? !has(self.value) : true",
            "value must not be set when operation is REMOVE"),
    ] {
        /// What is done.
        pub operation: TagOverrideOperation,
        /// A CEL expression for the value.
        pub value: String,
    }
}

proto_enum! {
    /// What is done to a tag.
    pub enum TagOverrideOperation {
        /// It gets the value.
        Upsert = "UPSERT" = 0,
        /// It is left out.
        Remove = "REMOVE" = 1,
    }
}

message! {
    /// What is logged.
    pub struct AccessLogging {
        /// Which traffic.
        pub r#match: Option<ModeSelector>,
        /// Where logs go; the mesh's default by default.
        pub providers: Vec<ProviderRef>,
        /// Whether nothing is logged.
        pub disabled: Option<bool> [Nullable],
        /// Which requests are logged; all by default.
        pub filter: Option<AccessLoggingFilter>,
    }
}

message! {
    /// Chooses requests.
    pub struct AccessLoggingFilter {
        /// A CEL expression that is true for those that are logged.
        pub expression: String,
    }
}
