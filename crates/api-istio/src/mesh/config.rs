//! MeshConfig: `mesh/v1alpha1/config.proto`.

use std::collections::BTreeMap;

use super::{ExtensionProvider, ProxyConfig};
use crate::networking::{
    ClientTlsSettings, ConnectionPoolSettings, HttpRetry, LocalityLoadBalancerSetting, OutlierDetection,
    TcpKeepalive, ZoneAwareLoadBalancerSetting,
};
use crate::proto::{Duration, message, proto_enum};

message! {
    /// Settings of the whole mesh; `default()` is protobuf's, [`MeshConfig::istio_default`] is Istio's.
    pub struct MeshConfig {
        /// Port of the sidecar's outbound listener.
        pub proxy_listen_port: i32,
        /// Port of the sidecar's inbound listener.
        pub proxy_inbound_listen_port: i32,
        /// Port on which sidecars act as an HTTP proxy; 0 is off.
        pub proxy_http_port: i32,
        /// Longest time for opening a connection.
        pub connect_timeout: Option<Duration>,
        /// Longest silence on an HBONE connection.
        pub hbone_idle_timeout: Option<Duration>,
        /// How long the first bytes are waited for when the protocol is not declared; 0 is for ever.
        pub protocol_detection_timeout: Option<Duration>,
        /// Keep-alive probes on upstream connections.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Ingress class that is served.
        pub ingress_class: String,
        /// Service of the ingress gateway, for the status of Ingresses.
        pub ingress_service: String,
        /// Which Ingresses are served.
        pub ingress_controller_mode: IngressControllerMode,
        /// Label `istio` of the gateway that serves Ingresses.
        pub ingress_selector: String,
        /// Whether requests are traced.
        pub enable_tracing: bool,
        /// File of the access log; empty is none.
        pub access_log_file: String,
        /// Format of the access log; Istio's by default.
        pub access_log_format: String,
        /// Encoding of the access log.
        pub access_log_encoding: AccessLogEncoding,
        /// Whether access logs go to Envoy's access log service.
        pub enable_envoy_access_log_service: bool,
        /// Turns off the log of connections that no filter chain accepted.
        pub disable_envoy_listener_log: bool,
        /// Settings of proxies, unless they say otherwise.
        pub default_config: Option<ProxyConfig>,
        /// What happens to traffic to unknown hosts.
        pub outbound_traffic_policy: Option<MeshOutboundTrafficPolicy>,
        /// Where inbound traffic goes inside the workload.
        pub inbound_traffic_policy: Option<InboundTrafficPolicy>,
        /// Further sources of configuration.
        pub config_sources: Vec<ConfigSource>,
        /// Whether mutual TLS is used wherever the other side can.
        pub enable_auto_mtls: Option<bool>,
        /// Trust domain of the mesh.
        pub trust_domain: String,
        /// Other trust domains that are treated as the same.
        pub trust_domain_aliases: Vec<String>,
        /// Further authorities that workloads are trusted by.
        pub ca_certificates: Vec<CertificateData>,
        /// exportTo of services that have none.
        pub default_service_export_to: Vec<String>,
        /// exportTo of VirtualServices that have none.
        pub default_virtual_service_export_to: Vec<String>,
        /// exportTo of DestinationRules that have none.
        pub default_destination_rule_export_to: Vec<String>,
        /// Namespace whose objects are for the whole mesh.
        pub root_namespace: String,
        /// Preference among localities.
        pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        /// Preference for the client's own zone.
        pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        /// How often names are resolved again when DNS gives no time to live.
        pub dns_refresh_rate: Option<Duration>,
        /// Whether HTTP/1.1 is carried as HTTP/2 between sidecars.
        pub h2_upgrade_policy: MeshH2UpgradePolicy,
        /// Pattern of the names of inbound clusters in statistics.
        pub inbound_cluster_stat_name: String,
        /// Pattern of the names of outbound clusters in statistics.
        pub outbound_cluster_stat_name: String,
        /// Deprecated: certificates that the control plane manages.
        pub certificates: Vec<Certificate>,
        /// Settings of services by host.
        pub service_settings: Vec<ServiceSettings>,
        /// Which services are visible to other clusters (ambient).
        pub service_scope_configs: Vec<ServiceScopeConfigs>,
        /// Whether the agent merges the metrics of proxy and application.
        pub enable_prometheus_merge: Option<bool>,
        /// Deprecated: whether clients verify servers with the system's authorities.
        pub verify_certificate_at_client: Option<bool>,
        /// An external authority that signs workload certificates.
        pub ca: Option<Ca>,
        /// Providers that other objects refer to by name.
        pub extension_providers: Vec<ExtensionProvider>,
        /// Providers that are used where none is named.
        pub default_providers: Option<DefaultProviders>,
        /// Namespaces that the control plane looks at; all by default.
        pub discovery_selectors: Vec<LabelSelector>,
        /// How paths are normalized before matching.
        pub path_normalization: Option<ProxyPathNormalization>,
        /// Retries of routes that have no policy.
        pub default_http_retry_policy: Option<HttpRetry>,
        /// TLS between workloads.
        pub mesh_mtls: Option<TlsConfig> as "meshMTLS" or "mesh_mTLS",
        /// TLS everywhere else.
        pub tls_defaults: Option<TlsConfig>,
        /// Traffic policy of services that no DestinationRule covers.
        pub default_traffic_policy: Option<DefaultTrafficPolicy>,
        /// Which ServiceEntries sidecars see.
        pub service_entry_visibility: Option<ServiceEntryVisibility>,
    }
}

proto_enum! {
    /// Which Ingresses are served.
    pub enum IngressControllerMode {
        /// As DEFAULT of the installation.
        Unspecified = "UNSPECIFIED" = 0,
        /// None.
        Off = "OFF" = 1,
        /// Those of the class, and those without class.
        Default = "DEFAULT" = 2,
        /// Those of the class.
        Strict = "STRICT" = 3,
    }
}

proto_enum! {
    /// Encoding of the access log.
    pub enum AccessLogEncoding {
        /// Lines of text.
        Text = "TEXT" = 0,
        /// A JSON object per line.
        Json = "JSON" = 1,
    }
}

message! {
    /// What happens to traffic to unknown hosts.
    pub struct MeshOutboundTrafficPolicy {
        /// The policy.
        pub mode: MeshOutboundTrafficPolicyMode,
        /// TLS towards unknown hosts; for ALLOW_ANY_DYNAMIC_DNS.
        pub tls: Option<ClientTlsSettings>,
    }
}

proto_enum! {
    /// What happens to traffic to unknown hosts.
    pub enum MeshOutboundTrafficPolicyMode {
        /// It is refused.
        RegistryOnly = "REGISTRY_ONLY" = 0,
        /// It goes where the workload sent it.
        AllowAny = "ALLOW_ANY" = 1,
        /// It goes to what DNS says of the request's host.
        AllowAnyDynamicDns = "ALLOW_ANY_DYNAMIC_DNS" = 3,
    }
}

message! {
    /// Where inbound traffic goes inside the workload.
    pub struct InboundTrafficPolicy {
        /// The policy.
        pub mode: InboundTrafficPolicyMode,
    }
}

proto_enum! {
    /// Where inbound traffic goes inside the workload.
    pub enum InboundTrafficPolicyMode {
        /// To the address that was called.
        Passthrough = "PASSTHROUGH" = 0,
        /// To localhost.
        Localhost = "LOCALHOST" = 1,
    }
}

message! {
    /// An authority that workloads are trusted by.
    pub struct CertificateData {
        /// Its certificate in PEM.
        pub pem: Option<String>,
        /// Where its SPIFFE bundle is fetched.
        pub spiffe_bundle_url: Option<String>,
        /// Signers that it is for.
        pub cert_signers: Vec<String>,
        /// Trust domains that it is for.
        pub trust_domains: Vec<String>,
    }
}

proto_enum! {
    /// Whether HTTP/1.1 is carried as HTTP/2 between sidecars.
    pub enum MeshH2UpgradePolicy {
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE" = 0,
        /// Yes.
        Upgrade = "UPGRADE" = 1,
    }
}

message! {
    /// Settings of services by host.
    pub struct ServiceSettings {
        /// The settings.
        pub settings: Option<ServiceSettingsValues>,
        /// Hosts, a wildcard as the first label allowed.
        pub hosts: Vec<String>,
    }
}

message! {
    /// Settings of a service.
    pub struct ServiceSettingsValues {
        /// Its clients reach only endpoints of their own cluster.
        pub cluster_local: bool,
    }
}

message! {
    /// Which services are visible to other clusters.
    pub struct ServiceScopeConfigs {
        /// Namespaces of the services.
        pub namespace_selector: Option<LabelSelector>,
        /// Labels of the services.
        pub services_selector: Option<LabelSelector>,
        /// How far they are visible.
        pub scope: ServiceScope,
    }
}

proto_enum! {
    /// How far a service is visible.
    pub enum ServiceScope {
        /// In its cluster.
        Local = "LOCAL" = 0,
        /// In all clusters.
        Global = "GLOBAL" = 1,
    }
}

message! {
    /// An external authority that signs workload certificates.
    pub struct Ca {
        /// Its address, as `host:port`.
        pub address: String,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// Longest time for an answer; 10 s by default.
        pub request_timeout: Option<Duration>,
        /// Whether the control plane, and not the agents, talks to it.
        pub istiod_side: bool,
    }
}

message! {
    /// Providers that are used where none is named.
    pub struct DefaultProviders {
        /// Of tracing.
        pub tracing: Vec<String>,
        /// Of metrics.
        pub metrics: Vec<String>,
        /// Of access logs.
        pub access_logging: Vec<String>,
    }
}

message! {
    /// How paths are normalized.
    pub struct ProxyPathNormalization {
        /// The normalization.
        pub normalization: NormalizationType,
    }
}

proto_enum! {
    /// A normalization of paths.
    pub enum NormalizationType {
        /// BASE.
        Default = "DEFAULT" = 0,
        /// None.
        None = "NONE" = 1,
        /// RFC 3986: dot segments and needless escapes are removed.
        Base = "BASE" = 2,
        /// BASE, and slashes in a row become one.
        MergeSlashes = "MERGE_SLASHES" = 3,
        /// MERGE_SLASHES, with escaped slashes decoded first.
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES" = 4,
    }
}

message! {
    /// Settings of TLS.
    pub struct TlsConfig {
        /// Lowest version.
        pub min_protocol_version: TlsConfigProtocol,
        /// Curves of the key exchange.
        pub ecdh_curves: Vec<String>,
        /// Cipher suites of TLS 1.2, by OpenSSL name.
        pub cipher_suites: Vec<String>,
    }
}

proto_enum! {
    /// A lowest version of TLS.
    pub enum TlsConfigProtocol {
        /// 1.2.
        TlsAuto = "TLS_AUTO" = 0,
        /// 1.2.
        TlsV1_2 = "TLSV1_2" = 1,
        /// 1.3.
        TlsV1_3 = "TLSV1_3" = 2,
    }
}

message! {
    /// Traffic policy of services that no DestinationRule covers.
    pub struct DefaultTrafficPolicy {
        /// Limits and timers of connections.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When failing endpoints are left out.
        pub outlier_detection: Option<OutlierDetection>,
    }
}

message! {
    /// Kubernetes' label selector.
    pub struct LabelSelector {
        /// Labels with these values.
        pub match_labels: BTreeMap<String, String>,
        /// Further conditions.
        pub match_expressions: Vec<LabelSelectorRequirement>,
    }
}

message! {
    /// A condition on a label.
    pub struct LabelSelectorRequirement {
        /// The label.
        pub key: String,
        /// In, NotIn, Exists or DoesNotExist.
        pub operator: String,
        /// Values for In and NotIn.
        pub values: Vec<String>,
    }
}

message! {
    /// Which ServiceEntries sidecars see.
    pub struct ServiceEntryVisibility {
        /// Where no policy matches.
        pub default_visibility: Visibility,
        /// Whether this is for sidecars too.
        pub apply_to_sidecars: bool,
        /// Policies, the first that matches is taken.
        pub policies: Vec<VisibilityPolicy>,
    }
}

proto_enum! {
    /// How far a ServiceEntry is seen.
    pub enum Visibility {
        /// As exportTo says.
        VisibilityUnspecified = "VISIBILITY_UNSPECIFIED" = 0,
        /// Nowhere.
        None = "NONE" = 1,
        /// In its namespace.
        Namespace = "NAMESPACE" = 2,
        /// Everywhere.
        Public = "PUBLIC" = 3,
    }
}

message! {
    /// Visibility of the ServiceEntries that a rule matches.
    pub struct VisibilityPolicy {
        /// The visibility.
        pub visibility: Visibility,
        /// Rules, any of which is enough.
        pub matching_rules: Vec<VisibilityMatchRule>,
    }
}

message! {
    /// Matches ServiceEntries.
    pub struct VisibilityMatchRule {
        /// Labels of their namespace.
        pub namespace_selector: Option<LabelSelector>,
    }
}

message! {
    /// A further source of configuration.
    pub struct ConfigSource {
        /// Its address: `fs:///path`, `xds://host:port` or `k8s://`.
        pub address: String,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// What is read from it.
        pub subscribed_resources: Vec<ConfigSourceResource>,
    }
}

proto_enum! {
    /// What is read from a source.
    pub enum ConfigSourceResource {
        /// Services.
        ServiceRegistry = "SERVICE_REGISTRY" = 0,
    }
}

message! {
    /// Deprecated: a certificate that the control plane manages.
    pub struct Certificate {
        /// Secret that it is put into.
        pub secret_name: String,
        /// Names that it is for.
        pub dns_names: Vec<String>,
    }
}
