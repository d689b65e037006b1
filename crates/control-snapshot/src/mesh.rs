//! MeshConfig in force: [`api_istio::mesh`] reads and merges it, this makes it comparable and answers what its optional
//! fields leave open.

use std::hash::{Hash, Hasher};

use api_istio::mesh::{
    AccessLogEncoding, DefaultTrafficPolicy, InboundTrafficPolicyMode, MeshConfig,
    MeshOutboundTrafficPolicyMode, NormalizationType, TlsConfigProtocol,
};
use api_istio::networking::{ConnectionPoolSettings, OutlierDetection};
use api_istio::proto::Duration;
use serde_json::Value;

/// The longest that opening a connection takes where MeshConfig says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Fields that would change traffic or security and do not yet, as JSON pointers. Whoever sets one is told.
const WITHOUT_EFFECT: [&str; 20] = [
    "/ca",
    "/caCertificates",
    "/configSources",
    "/defaultConfig",
    "/defaultProviders/accessLogging",
    "/defaultProviders/tracing",
    "/discoverySelectors",
    "/enableEnvoyAccessLogService",
    "/extensionProviders",
    "/ingressClass",
    "/ingressControllerMode",
    "/ingressSelector",
    "/ingressService",
    "/meshMTLS/ecdhCurves",
    "/outboundTrafficPolicy/tls",
    "/proxyHttpPort",
    "/serviceEntryVisibility",
    "/serviceSettings",
    "/verifyCertificateAtClient",
    "/zoneAwareLbSetting",
];

/// The namespace that Istio calls the root one.
const ROOT_NAMESPACE: &str = "istio-system";

/// MeshConfig over Istio's defaults. Two are equal when their canonical JSON is.
#[derive(Clone, Debug)]
pub struct Mesh {
    config: MeshConfig,
    canonical: String,
    capture_port: u32,
    inbound_capture_port: u32,
}

impl Mesh {
    /// Reads MeshConfig from YAML and merges it over the defaults, of which `root_namespace` is one.
    ///
    /// # Errors
    /// Text that is not YAML, or a field of a wrong type or out of range, with its path.
    pub fn from_yaml(yaml: &str, root_namespace: &str) -> Result<Self, String> {
        let default = MeshConfig {
            root_namespace: root_namespace.to_owned(),
            ..MeshConfig::istio_default()
        };
        Self::new(default.merged(yaml).map_err(|error| error.to_string())?)
    }

    fn new(config: MeshConfig) -> Result<Self, String> {
        let port = |field: &str, number: i32| match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(u32::from(port)),
            _ => Err(format!("{field}: {number} is no port")),
        };
        Ok(Self {
            capture_port: port("proxyListenPort", config.proxy_listen_port)?,
            inbound_capture_port: port("proxyInboundListenPort", config.proxy_inbound_listen_port)?,
            canonical: serde_json::to_string(&config).map_err(|error| error.to_string())?,
            config,
        })
    }

    /// `connectTimeout`.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }

    /// Whether clients offer mutual TLS to workloads that can speak it.
    #[must_use]
    pub fn auto_mtls(&self) -> bool {
        self.config.enable_auto_mtls.unwrap_or(true)
    }

    /// The lowest version of TLS that servers of the mesh accept.
    #[must_use]
    pub fn min_tls_version(&self) -> TlsConfigProtocol {
        let tls = self.config.mesh_mtls.as_ref();
        tls.map(|tls| tls.min_protocol_version).unwrap_or_default()
    }

    /// Cipher suites of TLS 1.2 that servers of the mesh accept, where MeshConfig names some.
    #[must_use]
    pub fn mesh_cipher_suites(&self) -> Option<&[String]> {
        let suites = &self.config.mesh_mtls.as_ref()?.cipher_suites;
        (!suites.is_empty()).then_some(suites)
    }

    /// What happens to traffic that no service claims.
    #[must_use]
    pub fn outbound_mode(&self) -> MeshOutboundTrafficPolicyMode {
        let policy = self.config.outbound_traffic_policy.as_ref();
        policy.map_or(MeshOutboundTrafficPolicyMode::AllowAny, |policy| policy.mode)
    }

    /// Where the application listens.
    #[must_use]
    pub fn inbound_mode(&self) -> InboundTrafficPolicyMode {
        let policy = self.config.inbound_traffic_policy.as_ref();
        policy.map(|policy| policy.mode).unwrap_or_default()
    }

    /// How paths are normalised before anything looks at them.
    #[must_use]
    pub fn normalization(&self) -> NormalizationType {
        let paths = self.config.path_normalization.as_ref();
        paths.map(|paths| paths.normalization).unwrap_or_default()
    }

    /// Connection pools where no DestinationRule says otherwise.
    #[must_use]
    pub fn default_connection_pool(&self) -> Option<&ConnectionPoolSettings> {
        self.default_policy()?.connection_pool.as_ref()
    }

    /// Outlier detection where no DestinationRule says otherwise.
    #[must_use]
    pub fn default_outlier_detection(&self) -> Option<&OutlierDetection> {
        self.default_policy()?.outlier_detection.as_ref()
    }

    /// The port of the sidecar's outbound listener.
    #[must_use]
    pub fn capture_port(&self) -> u32 {
        self.capture_port
    }

    /// The port of the sidecar's inbound listener.
    #[must_use]
    pub fn inbound_capture_port(&self) -> u32 {
        self.inbound_capture_port
    }

    /// Paths of the fields that somebody has set and that have no effect.
    #[must_use]
    pub fn without_effect(&self) -> Vec<String> {
        let print = |config: &MeshConfig| serde_json::to_value(config).unwrap_or_default();
        let (own, default): (Value, Value) = (print(&self.config), print(&MeshConfig::istio_default()));
        let set = |pointer: &&str| own.pointer(pointer) != default.pointer(pointer);
        let path = |pointer: &str| pointer.trim_start_matches('/').replace('/', ".");
        let mut fields: Vec<String> = WITHOUT_EFFECT.into_iter().filter(set).map(path).collect();
        let format = &self.config.access_log_format;
        let json = || serde_json::from_str::<serde_json::Map<String, Value>>(format);
        if self.config.access_log_encoding == AccessLogEncoding::Json && !format.is_empty() && json().is_err()
        {
            fields.push("accessLogFormat (which is no JSON object)".to_owned());
        }
        fields
    }

    fn default_policy(&self) -> Option<&DefaultTrafficPolicy> {
        self.config.default_traffic_policy.as_ref()
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Self::from_yaml("", ROOT_NAMESPACE).expect("Istio's defaults have ports and print as JSON")
    }
}

impl std::ops::Deref for Mesh {
    type Target = MeshConfig;

    fn deref(&self) -> &MeshConfig {
        &self.config
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Mesh, String> {
        Mesh::from_yaml(yaml, ROOT_NAMESPACE)
    }

    #[test]
    fn what_is_not_said_has_istios_default() {
        let mesh =
            read("accessLogFile: /dev/stdout\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}").expect("valid");
        assert_eq!(mesh.access_log_file, "/dev/stdout");
        assert_eq!(mesh.outbound_mode(), MeshOutboundTrafficPolicyMode::RegistryOnly);
        assert_eq!(mesh.connect_timeout(), Duration::from_secs(10));
        assert_eq!(mesh.root_namespace, "istio-system");
        assert_eq!(read("").expect("valid"), Mesh::default());
        assert_eq!(Mesh::default().capture_port(), 15001);
    }

    #[test]
    fn a_wrong_type_or_port_is_refused_with_its_path() {
        for (yaml, start) in [
            (
                "outboundTrafficPolicy: {mode: MAYBE}",
                "outboundTrafficPolicy.mode: ",
            ),
            ("proxyListenPort: -1", "proxyListenPort: "),
            ("proxyInboundListenPort: 70000", "proxyInboundListenPort: "),
        ] {
            let error = read(yaml).expect_err("refused");
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn a_field_without_effect_is_named_when_it_is_set() {
        assert_eq!(Mesh::default().without_effect(), Vec::<String>::new());
        let mesh = read("proxyHttpPort: 15002\nmeshMTLS: {ecdhCurves: [P-256]}").expect("valid");
        assert_eq!(mesh.without_effect(), ["meshMTLS.ecdhCurves", "proxyHttpPort"]);
        let logs = |format: &str| format!("accessLogEncoding: JSON\naccessLogFormat: '{format}'");
        let broken = read(&logs("%PROTOCOL%")).expect("valid");
        assert_eq!(broken.without_effect().len(), 1);
        let sound = read(&logs("{\"protocol\": \"%PROTOCOL%\"}")).expect("valid");
        assert_eq!(sound.without_effect(), Vec::<String>::new());
    }
}
