//! MeshConfig (`mesh/v1alpha1/config.proto`), merged over Istio's defaults. Only what has an effect here is read; the
//! text itself is validated where it is stored.

use std::hash::{Hash, Hasher};

use api_istio::networking::{ConnectionPoolSettings, HttpRetry, LocalityLoadBalancerSetting, TcpKeepalive};
use api_istio::proto::Duration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// MeshConfig. Two are equal when their merged JSON is.
#[derive(Clone, Debug)]
pub struct Mesh {
    fields: MeshFields,
    canonical: String,
}

/// The fields of MeshConfig that have an effect here; names as in the proto.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshFields {
    /// `rootNamespace`.
    pub root_namespace: String,
    /// `trustDomain`.
    pub trust_domain: String,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Vec<String>,
    /// `meshMTLS`.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: MeshTls,
    /// `connectTimeout` of clusters.
    pub connect_timeout: Option<Duration>,
    /// `tcpKeepalive` of clusters.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `accessLogFile`, empty for none.
    pub access_log_file: String,
    /// `accessLogFormat`, empty for Istio's.
    pub access_log_format: String,
    /// `accessLogEncoding`.
    pub access_log_encoding: AccessLogEncoding,
    /// `disableEnvoyListenerLog`.
    pub disable_envoy_listener_log: bool,
    /// `outboundTrafficPolicy`.
    pub outbound_traffic_policy: OutboundPolicy,
    /// `inboundTrafficPolicy`.
    pub inbound_traffic_policy: InboundPolicy,
    /// `protocolDetectionTimeout`.
    pub protocol_detection_timeout: Option<Duration>,
    /// `dnsRefreshRate`.
    pub dns_refresh_rate: Option<Duration>,
    /// `enableAutoMtls`.
    pub enable_auto_mtls: Option<bool>,
    /// `enableTracing`.
    pub enable_tracing: bool,
    /// `h2UpgradePolicy`.
    pub h2_upgrade_policy: MeshH2Upgrade,
    /// `defaultServiceExportTo`.
    pub default_service_export_to: Vec<String>,
    /// `defaultVirtualServiceExportTo`.
    pub default_virtual_service_export_to: Vec<String>,
    /// `defaultDestinationRuleExportTo`.
    pub default_destination_rule_export_to: Vec<String>,
    /// `pathNormalization`.
    pub path_normalization: PathNormalization,
    /// `defaultHttpRetryPolicy`.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// `defaultTrafficPolicy`.
    pub default_traffic_policy: DefaultTrafficPolicy,
    /// `localityLbSetting`.
    pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
    /// `outboundClusterStatName`.
    pub outbound_cluster_stat_name: String,
    /// `inboundClusterStatName`.
    pub inbound_cluster_stat_name: String,
    /// `proxyListenPort`.
    pub proxy_listen_port: u32,
    /// `proxyInboundListenPort`.
    pub proxy_inbound_listen_port: u32,
    /// `proxyHttpPort`, 0 for none.
    pub proxy_http_port: u32,
    /// `defaultProviders`.
    pub default_providers: DefaultProviders,
    /// `defaultConfig`, the mesh-wide `ProxyConfig`.
    pub default_config: Value,
}

/// `MeshConfig.TLSConfig` of the mesh's own mutual TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshTls {
    /// The lowest version servers accept.
    pub min_protocol_version: MeshTlsVersion,
}

/// `MeshConfig.TLSConfig.TLSProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MeshTlsVersion {
    /// The default, 1.2.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

/// `MeshConfig.AccessLogEncoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AccessLogEncoding {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// `MeshConfig.OutboundTrafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboundPolicy {
    /// What happens to traffic that no service claims.
    pub mode: OutboundMode,
}

/// `MeshConfig.OutboundTrafficPolicy.Mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// It is refused.
    RegistryOnly,
    /// It goes where the application dialled.
    #[default]
    AllowAny,
    /// HTTP goes to the host it names, resolved by DNS; the rest as `ALLOW_ANY`.
    AllowAnyDynamicDns,
}

/// `MeshConfig.InboundTrafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InboundPolicy {
    /// Where the application listens.
    pub mode: InboundMode,
}

/// `MeshConfig.InboundTrafficPolicy.Mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundMode {
    /// On the address that was dialled.
    #[default]
    Passthrough,
    /// On loopback.
    Localhost,
}

/// `MeshConfig.H2UpgradePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MeshH2Upgrade {
    /// HTTP/1 stays HTTP/1.
    #[default]
    DoNotUpgrade,
    /// HTTP/1 is carried in HTTP/2 between proxies.
    Upgrade,
}

/// `MeshConfig.ProxyPathNormalization`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathNormalization {
    /// How paths are normalised before anything looks at them.
    pub normalization: Normalization,
}

/// `MeshConfig.ProxyPathNormalization.NormalizationType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// As `BASE`.
    #[default]
    Default,
    /// Not at all.
    None,
    /// RFC 3986.
    Base,
    /// `BASE`, and slashes are merged.
    MergeSlashes,
    /// `MERGE_SLASHES`, after escaped slashes are decoded.
    DecodeAndMergeSlashes,
}

/// `MeshConfig.DefaultTrafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultTrafficPolicy {
    /// Connection pools where no DestinationRule says otherwise.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Outlier detection where no DestinationRule says otherwise.
    pub outlier_detection: Option<api_istio::networking::OutlierDetection>,
}

/// `MeshConfig.DefaultProviders`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultProviders {
    /// Who gets metrics.
    pub metrics: Vec<String>,
    /// Who gets access logs.
    pub access_logging: Vec<String>,
    /// Who gets spans.
    pub tracing: Vec<String>,
}

/// Istio's defaults (`pkg/config/mesh`), as far as they are not the zero value of their field.
fn defaults() -> Value {
    serde_json::json!({
        "rootNamespace": "istio-system",
        "trustDomain": "cluster.local",
        "connectTimeout": "10s",
        "dnsRefreshRate": "60s",
        "protocolDetectionTimeout": "0s",
        "enableAutoMtls": true,
        "enableTracing": true,
        "accessLogFile": "",
        "proxyListenPort": 15001,
        "proxyInboundListenPort": 15006,
        "defaultServiceExportTo": ["*"],
        "defaultVirtualServiceExportTo": ["*"],
        "defaultDestinationRuleExportTo": ["*"],
        "outboundTrafficPolicy": {"mode": "ALLOW_ANY"},
        "inboundTrafficPolicy": {"mode": "PASSTHROUGH"},
    })
}

impl Mesh {
    /// Reads MeshConfig from YAML and merges it over the defaults: maps key by key, lists and scalars replaced.
    ///
    /// # Errors
    /// Text that is not YAML, or a field of a wrong type, with its path.
    pub fn from_yaml(yaml: &str) -> Result<Self, String> {
        let overrides: Value = if yaml.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?
        };
        Self::from_json(overrides)
    }

    /// As [`Mesh::from_yaml`], from JSON.
    ///
    /// # Errors
    /// A field of a wrong type, with its path.
    pub fn from_json(overrides: Value) -> Result<Self, String> {
        let mut merged = defaults();
        merge(&mut merged, overrides);
        let canonical = merged.to_string();
        let fields = serde_path_to_error::deserialize(merged).map_err(|error| error.to_string())?;
        Ok(Self { fields, canonical })
    }

    /// `connectTimeout`.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.fields.connect_timeout.unwrap_or(Duration::from_secs(10))
    }

    /// Whether clients offer mutual TLS to workloads that can speak it.
    #[must_use]
    pub fn auto_mtls(&self) -> bool {
        self.fields.enable_auto_mtls.unwrap_or(true)
    }
}

impl Default for Mesh {
    fn default() -> Self {
        let canonical = defaults();
        let text = canonical.to_string();
        Self {
            fields: serde_json::from_value(canonical).unwrap_or_default(),
            canonical: text,
        }
    }
}

impl std::ops::Deref for Mesh {
    type Target = MeshFields;

    fn deref(&self) -> &MeshFields {
        &self.fields
    }
}

impl PartialEq for Mesh {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Mesh {}

impl Hash for Mesh {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

/// Merges `over` into `base`: maps key by key, everything else replaced; `null` changes nothing.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_istios_default() {
        let mesh =
            Mesh::from_yaml("accessLogFile: /dev/stdout\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}")
                .expect("valid");
        assert_eq!(mesh.access_log_file, "/dev/stdout");
        assert_eq!(mesh.outbound_traffic_policy.mode, OutboundMode::RegistryOnly);
        assert_eq!(mesh.connect_timeout(), Duration::from_secs(10));
        assert_eq!(mesh.root_namespace, "istio-system");
    }

    #[test]
    fn the_defaults_parse() {
        assert_eq!(Mesh::from_yaml("").expect("valid"), Mesh::default());
        assert_eq!(Mesh::default().proxy_listen_port, 15001);
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_path() {
        let error = Mesh::from_yaml("outboundTrafficPolicy: {mode: MAYBE}").expect_err("refused");
        assert!(error.starts_with("outboundTrafficPolicy.mode: "), "{error}");
    }
}
