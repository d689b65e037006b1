//! WorkloadGroup: `networking/v1alpha3/workload_group.proto`.

use std::collections::BTreeMap;

use super::WorkloadEntry;
use super::service_entry::{PORT, UDS_WITHOUT_PORTS};
use crate::proto::message;

message! {
    /// What workloads that are not Pods have in common, as a Deployment does for Pods; one that joins becomes a
    /// WorkloadEntry.
    pub struct WorkloadGroup {
        /// Metadata of each WorkloadEntry.
        pub metadata: Option<WorkloadGroupMetadata>,
        /// The WorkloadEntry of each workload; address and labels are completed when it joins.
        pub template: Option<WorkloadEntry> [Required, UDS_WITHOUT_PORTS],
        /// How the health of each workload is checked.
        pub probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Metadata of the WorkloadEntries of a group.
    pub struct WorkloadGroupMetadata {
        /// Labels.
        pub labels: BTreeMap<String, String> [MaxProperties(256)],
        /// Annotations.
        pub annotations: BTreeMap<String, String> [MaxProperties(256)],
    }
}

message! {
    /// How the health of a workload is checked.
    pub struct ReadinessProbe [OneOf(&["httpGet", "tcpSocket", "exec", "grpc"])] {
        /// Seconds from start to the first check.
        pub initial_delay_seconds: i32 [Minimum(0)],
        /// Seconds that one check may take; 1 by default.
        pub timeout_seconds: i32 [Minimum(0)],
        /// Seconds between checks; 10 by default.
        pub period_seconds: i32 [Minimum(0)],
        /// Successes in a row that make it healthy; 1 by default.
        pub success_threshold: i32 [Minimum(0)],
        /// Failures in a row that make it unhealthy; 3 by default.
        pub failure_threshold: i32 [Minimum(0)],
        /// By an HTTP request: 2xx and 3xx are healthy.
        pub http_get: Option<HttpHealthCheckConfig>,
        /// By opening a TCP connection.
        pub tcp_socket: Option<TcpHealthCheckConfig>,
        /// By running a command: exit code 0 is healthy.
        pub exec: Option<ExecHealthCheckConfig>,
        /// By gRPC's health service.
        pub grpc: Option<GrpcHealthCheckConfig>,
    }
}

message! {
    /// A check by an HTTP request.
    pub struct HttpHealthCheckConfig {
        /// Path of the request.
        pub path: String,
        /// Port of the workload.
        pub port: u32 [Required, PORT],
        /// Host to connect to; localhost by default.
        pub host: String,
        /// HTTP, which is the default, or HTTPS.
        pub scheme: String [Cel("self in [\"\", \"HTTP\", \"HTTPS\"]", "scheme must be one of [HTTP, HTTPS]")],
        /// Headers of the request.
        pub http_headers: Vec<HttpHeader>,
    }
}

message! {
    /// A header of a check.
    pub struct HttpHeader {
        /// Its name.
        pub name: String [Pattern("^[-_A-Za-z0-9]+$")],
        /// Its value.
        pub value: String,
    }
}

message! {
    /// A check by gRPC's health service.
    pub struct GrpcHealthCheckConfig {
        /// Port of the workload.
        pub port: u32 [PORT],
        /// Name of the service that is asked about; the server as a whole by default.
        pub service: String,
    }
}

message! {
    /// A check by opening a TCP connection.
    pub struct TcpHealthCheckConfig {
        /// Host to connect to; localhost by default.
        pub host: String,
        /// Port of the workload.
        pub port: u32 [Required, PORT],
    }
}

message! {
    /// A check by running a command.
    pub struct ExecHealthCheckConfig {
        /// The program and its arguments.
        pub command: Vec<String> [Required, Each(&[MinLength(1)])],
    }
}
