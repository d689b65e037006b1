//! The proxies' settings: `ProxyConfig` of `mesh/v1alpha1/proxy.proto`.

use std::collections::BTreeMap;

use super::{ConnectionSettings, PrivateKeyProvider, ProxyHeaders, Topology, Tracing};
use crate::networking::{ClientTlsSettings, ProxyImage, ReadinessProbe, TcpKeepalive};
use crate::proto::{Duration, message, proto_enum};

message! {
    /// Settings of a proxy: of all, in MeshConfig; of one, in the annotation `proxy.istio.io/config`.
    pub struct ProxyConfig {
        /// Directory for generated configuration.
        pub config_path: String,
        /// The proxy's program.
        pub binary_path: String,
        /// Name of the proxy's service cluster.
        pub service_cluster: Option<String>,
        /// How the proxy's service is named in traces.
        pub tracing_service_name: Option<TracingServiceName>,
        /// How long connections may drain on a restart.
        pub drain_duration: Option<Duration>,
        /// Address of the control plane.
        pub discovery_address: String,
        /// Deprecated and not used.
        pub discovery_refresh_delay: Option<Duration>,
        /// Deprecated: use tracing.
        pub zipkin_address: String,
        /// Address of a statsd server.
        pub statsd_udp_address: String,
        /// Deprecated: use envoyMetricsService.
        pub envoy_metrics_service_address: String,
        /// Port of the admin interface.
        pub proxy_admin_port: i32,
        /// Deprecated and not used.
        pub availability_zone: String,
        /// How the control plane is authenticated.
        pub control_plane_auth_policy: AuthenticationPolicy,
        /// Bootstrap to use in place of the generated one.
        pub custom_config_file: String,
        /// Longest name of a cluster in statistics.
        pub stat_name_length: i32,
        /// Worker threads; 0 is one per core, none is as many as the CPU limit says.
        pub concurrency: Option<i32>,
        /// Template of the bootstrap.
        pub proxy_bootstrap_template_path: String,
        /// How inbound traffic is redirected.
        pub interception_mode: InboundInterceptionMode,
        /// Tracing.
        pub tracing: Option<Tracing>,
        /// Deprecated and not used.
        pub sds: Option<Sds>,
        /// Envoy's access log service.
        pub envoy_access_log_service: Option<RemoteService>,
        /// Envoy's metrics service.
        pub envoy_metrics_service: Option<RemoteService>,
        /// Environment variables, which also become node metadata.
        pub proxy_metadata: BTreeMap<String, String>,
        /// Envoy runtime flags.
        pub runtime_values: BTreeMap<String, String>,
        /// Port of the agent's health and metrics.
        pub status_port: i32,
        /// Further tags of statistics.
        pub extra_stat_tags: Vec<String>,
        /// What stands before a gateway.
        pub gateway_topology: Option<Topology>,
        /// How long connections may drain at the end.
        pub termination_drain_duration: Option<Duration>,
        /// Name of the mesh.
        pub mesh_id: String,
        /// How the health of the application is checked, outside Kubernetes.
        pub readiness_probe: Option<ReadinessProbe>,
        /// Statistics that are kept beside the usual ones.
        pub proxy_stats_matcher: Option<ProxyStatsMatcher>,
        /// Starts the application only when the proxy is ready.
        pub hold_application_until_proxy_starts: Option<bool>,
        /// Authorities, in PEM, that the control plane and others are trusted by.
        pub ca_certificates_pem: Vec<String>,
        /// The proxy's image.
        pub image: Option<ProxyImage>,
        /// Hardware that holds private keys.
        pub private_key_provider: Option<PrivateKeyProvider>,
        /// Headers that proxies set.
        pub proxy_headers: Option<ProxyHeaders>,
        /// How often access logs are written to their file.
        pub file_flush_interval: Option<Duration>,
        /// Kilobytes of access log that are written at once.
        pub file_flush_min_size_kb: u32,
        /// Whether the statistics port compresses.
        pub stats_compression: Option<bool>,
        /// Limits and timers of connections.
        pub connection_settings: Option<ConnectionSettings>,
    }
}

proto_enum! {
    /// How the proxy's service is named in traces.
    pub enum TracingServiceName {
        /// By the label app and the namespace.
        AppLabelAndNamespace = "APP_LABEL_AND_NAMESPACE" = 0,
        /// By the canonical name.
        CanonicalNameOnly = "CANONICAL_NAME_ONLY" = 1,
        /// By the canonical name and the namespace.
        CanonicalNameAndNamespace = "CANONICAL_NAME_AND_NAMESPACE" = 2,
    }
}

proto_enum! {
    /// How the control plane is authenticated.
    pub enum AuthenticationPolicy {
        /// Not at all.
        None = "NONE" = 0,
        /// By mutual TLS.
        MutualTls = "MUTUAL_TLS" = 1,
        /// As the parent says.
        Inherit = "INHERIT" = 1000,
    }
}

proto_enum! {
    /// How inbound traffic is redirected.
    pub enum InboundInterceptionMode {
        /// By NAT; the client's address is lost.
        Redirect = "REDIRECT" = 0,
        /// Transparently; the client's address stays.
        Tproxy = "TPROXY" = 1,
        /// Not at all.
        None = "NONE" = 2,
    }
}

message! {
    /// Deprecated and not used.
    pub struct Sds {
        /// Whether certificates came by SDS.
        pub enabled: bool,
        /// Where the token was.
        pub k8s_sa_jwt_path: String,
    }
}

message! {
    /// Statistics that are kept beside the usual ones.
    pub struct ProxyStatsMatcher {
        /// By the beginning of their name.
        pub inclusion_prefixes: Vec<String>,
        /// By the end of their name.
        pub inclusion_suffixes: Vec<String>,
        /// By regular expression.
        pub inclusion_regexps: Vec<String>,
    }
}

message! {
    /// A service outside the proxy.
    pub struct RemoteService {
        /// Its address, as `host:port`.
        pub address: String,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// Keep-alive probes towards it.
        pub tcp_keepalive: Option<TcpKeepalive>,
    }
}
