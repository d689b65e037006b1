//! The bootstrap (`envoy.config.bootstrap.v3.Bootstrap`): read from a file, merged with text, and checked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::accesslog::v3::{AccessLog, access_log::ConfigType};
use api_envoy::envoy::config::bootstrap::v3::{
    Admin, Bootstrap, ClusterManager, bootstrap::DynamicResources,
};
use api_envoy::envoy::config::core::v3::{self as core, ConfigSource};
use api_envoy::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use api_envoy::json::{JsonError, Schema};
use api_envoy::{Message as _, any};
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use proxy_upstream::grpc_source::GrpcSource;
use proxy_upstream::secrets::Sources;

use crate::address::{BindAddress, bind_address};
use crate::context::{LocalNode, ads_source};
use crate::{filters, limits};

mod service;

pub use service::AdsTarget;

use service::service;

/// Why a bootstrap could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither a file nor text was given.
    #[error("a configuration is needed: --config-path FILE or --config-yaml TEXT")]
    Nothing,
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The path.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The name of the file does not say how to read it.
    #[error("cannot tell the format of {0}: its name should end in .yaml, .yml, .json or .pb")]
    Extension(String),
    /// The file is longer than [`limits::BOOTSTRAP_MAX_BYTES`].
    #[error("{0} is too long")]
    TooLong(String),
    /// The text does not parse, or a field is unknown.
    #[error("{origin}: {source}")]
    Json {
        /// The file, or the flag.
        origin: String,
        /// What is wrong.
        source: JsonError,
    },
    /// The file is no encoded bootstrap.
    #[error("{path} does not decode: {source}")]
    Binary {
        /// The path.
        path: String,
        /// What protobuf says.
        source: prost::DecodeError,
    },
}

/// What to do with a field that the schema does not have (`--allow-unknown-static-fields`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// Refuse the bootstrap.
    #[default]
    Refuse,
    /// Read on.
    Ignore,
}

/// Reads a bootstrap from a file, from text, or from both: the text is merged over the file, as Envoy merges
/// `--config-yaml` over `--config-path`: singular fields replace, repeated fields append.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: Option<&Path>, yaml: Option<&str>, unknown: UnknownFields) -> Result<Bootstrap, LoadError> {
    let mut bootstrap = match path {
        Some(path) => load_file(path, unknown)?,
        None if yaml.is_none() => return Err(LoadError::Nothing),
        None => Bootstrap::default(),
    };
    if let Some(yaml) = yaml {
        let origin = || "--config-yaml".to_owned();
        let json_error = |source| LoadError::Json {
            origin: origin(),
            source,
        };
        let over: Bootstrap = schema(unknown).parse_yaml(yaml).map_err(json_error)?;
        // Protobuf defines decoding after decoding as a merge.
        let merged = bootstrap.merge(over.encode_to_vec().as_slice());
        merged.map_err(|source| LoadError::Binary {
            path: origin(),
            source,
        })?;
    }
    Ok(bootstrap)
}

fn schema(unknown: UnknownFields) -> Schema {
    match unknown {
        UnknownFields::Refuse => Schema::get(),
        UnknownFields::Ignore => Schema::get().that_ignores_unknown_fields(),
    }
}

fn load_file(path: &Path, unknown: UnknownFields) -> Result<Bootstrap, LoadError> {
    let name = path.display().to_string();
    let file = |source| LoadError::File {
        path: name.clone(),
        source,
    };
    if std::fs::metadata(path).map_err(file)?.len() > limits::BOOTSTRAP_MAX_BYTES {
        return Err(LoadError::TooLong(name));
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("pb") => {
            let bytes = std::fs::read(path).map_err(file)?;
            Bootstrap::decode(bytes.as_slice()).map_err(|source| LoadError::Binary { path: name, source })
        }
        Some("yaml" | "yml" | "json") => {
            let text = std::fs::read_to_string(path).map_err(file)?;
            schema(unknown)
                .parse_yaml(&text)
                .map_err(|source| LoadError::Json { origin: name, source })
        }
        _ => Err(LoadError::Extension(name)),
    }
}

/// What the command line says of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeOverrides {
    /// `--service-node`.
    pub id: Option<String>,
    /// `--service-cluster`.
    pub cluster: Option<String>,
    /// `--service-zone`.
    pub zone: Option<String>,
}

/// A bootstrap that was checked.
#[derive(Debug)]
pub struct BootstrapConfig {
    /// The bootstrap, with the node as it is announced.
    pub proto: Bootstrap,
    /// Who this proxy is.
    pub local: LocalNode,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// The aggregated discovery service, if there is one.
    pub ads: Option<AdsConfig>,
    /// Where discovery services can be reached: the static clusters whose first endpoint has an address.
    pub services: HashMap<Arc<str>, AdsTarget>,
}

/// The aggregated discovery service.
#[derive(Clone, Debug, PartialEq)]
pub struct AdsConfig {
    /// Delta, or state of the world.
    pub delta: bool,
    /// The static cluster that it is reached through.
    pub cluster: Arc<str>,
    /// The address of the first endpoint of that cluster.
    pub target: AdsTarget,
    /// Whether listeners come from it, and how long the start waits for them (zero: for ever).
    pub listeners: Option<Duration>,
    /// Whether clusters come from it, and how long the start waits for them (zero: for ever).
    pub clusters: Option<Duration>,
}

impl BootstrapConfig {
    /// Checks a bootstrap. Static listeners and clusters are compiled later, by whoever runs them.
    ///
    /// # Errors
    /// A field that is malformed, or that is not enforced and would change traffic.
    pub fn compile(mut proto: Bootstrap, overrides: &NodeOverrides) -> ConfigResult<Self> {
        refuse(&proto)?;
        let node = announced_node(proto.node.take().unwrap_or_default(), overrides);
        let local = LocalNode {
            id: node.id.as_str().into(),
            cluster: node.cluster.as_str().into(),
            zone: node.locality.as_ref().map_or("", |l| l.zone.as_str()).into(),
        };
        proto.node = Some(node);
        let admin = proto
            .admin
            .as_ref()
            .map(admin)
            .transpose()
            .within("admin")?
            .flatten();
        let ads = match &proto.dynamic_resources {
            Some(dynamic) => ads(dynamic, &proto).within("dynamic_resources")?,
            None => None,
        };
        let clusters = proto.static_resources.iter().flat_map(|r| &r.clusters);
        let services = clusters.filter_map(|c| Some((c.name.as_str().into(), service(c).ok()?)));
        Ok(Self {
            local,
            admin,
            ads,
            services: services.collect(),
            proto,
        })
    }

    /// Where secrets can come from.
    #[must_use]
    pub fn secret_sources(&self) -> Sources {
        Sources {
            ads: self.ads.is_some(),
            clusters: self.services.keys().cloned().collect(),
        }
    }

    /// The node that discovery requests carry.
    #[must_use]
    pub fn node(&self) -> core::Node {
        self.proto.node.clone().unwrap_or_default()
    }
}

fn refuse(proto: &Bootstrap) -> ConfigResult<()> {
    refuse_unsupported(&[
        ("hds_config", proto.hds_config.is_some()),
        ("stats_sinks", !proto.stats_sinks.is_empty()),
        ("overload_manager", proto.overload_manager.is_some()),
        ("config_sources", !proto.config_sources.is_empty()),
        ("default_config_source", proto.default_config_source.is_some()),
        (
            "default_socket_interface",
            !proto.default_socket_interface.is_empty(),
        ),
        (
            "certificate_provider_instances",
            !proto.certificate_provider_instances.is_empty(),
        ),
        ("header_prefix", !proto.header_prefix.is_empty()),
        ("listener_manager", proto.listener_manager.is_some()),
        ("xds_delegate_extension", proto.xds_delegate_extension.is_some()),
        (
            "xds_config_tracker_extension",
            proto.xds_config_tracker_extension.is_some(),
        ),
    ])?;
    refuse_resolver(proto)?;
    if let Some(manager) = &proto.cluster_manager {
        refuse_of_cluster_manager(manager).within("cluster_manager")?;
    }
    for (i, extension) in proto.bootstrap_extensions.iter().enumerate() {
        if extension.name != "envoy.bootstrap.internal_listener" {
            let reason = format!("no bootstrap extension {}", extension.name);
            return Err(ConfigError::new(reason)).within_index("bootstrap_extensions", i);
        }
    }
    Ok(())
}

/// Where the admin interface listens, if it does.
fn admin(proto: &Admin) -> ConfigResult<Option<SocketAddr>> {
    refuse_unsupported(&[
        ("allow_paths", !proto.allow_paths.is_empty()),
        ("socket_options", !proto.socket_options.is_empty()),
    ])?;
    if proto.access_log.iter().any(goes_somewhere) {
        tracing::warn!("admin.access_log: requests of the admin interface are not logged");
    }
    let Some(address) = &proto.address else {
        return Ok(None);
    };
    match bind_address(Some(address)).within("address")? {
        BindAddress::Ip(address) => Ok(Some(address)),
        BindAddress::Pipe { .. } => Err(ConfigError::unsupported("pipe").within("address")),
    }
}

/// Whether an access log is written anywhere but to /dev/null, where Istio's bootstrap has that of the admin interface.
fn goes_somewhere(log: &AccessLog) -> bool {
    let Some(ConfigType::TypedConfig(typed)) = &log.config_type else {
        return true;
    };
    any::unpack::<FileAccessLog>(typed).map_or(true, |file| file.path != "/dev/null")
}

/// Names are resolved by the system's resolver; a bootstrap that names other servers is refused.
#[allow(deprecated, reason = "deprecated fields are refused like the others")]
fn refuse_resolver(proto: &Bootstrap) -> ConfigResult<()> {
    refuse_unsupported(&[
        ("use_tcp_for_dns_lookups", proto.use_tcp_for_dns_lookups),
        ("dns_resolution_config", proto.dns_resolution_config.is_some()),
    ])?;
    proxy_upstream::config::refuse_resolver(proto.typed_dns_resolver_config.as_ref())
}

/// Source addresses for all clusters, routing by zone and load reports: none of it is done.
fn refuse_of_cluster_manager(proto: &ClusterManager) -> ConfigResult<()> {
    refuse_unsupported(&[
        ("local_cluster_name", !proto.local_cluster_name.is_empty()),
        ("upstream_bind_config", proto.upstream_bind_config.is_some()),
        ("load_stats_config", proto.load_stats_config.is_some()),
    ])
}

fn announced_node(mut node: core::Node, overrides: &NodeOverrides) -> core::Node {
    if let Some(id) = &overrides.id {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &overrides.cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &overrides.zone {
        node.locality.get_or_insert_default().zone.clone_from(zone);
    }
    node.user_agent_name = "lateen".to_owned();
    node.extensions = filters::node_extensions();
    node
}

fn ads(dynamic: &DynamicResources, bootstrap: &Bootstrap) -> ConfigResult<Option<AdsConfig>> {
    refuse_unsupported(&[
        ("lds_resources_locator", !dynamic.lds_resources_locator.is_empty()),
        ("cds_resources_locator", !dynamic.cds_resources_locator.is_empty()),
    ])?;
    let wanted = |field: &str, source: &Option<ConfigSource>| {
        source
            .as_ref()
            .map(|source| ads_source(Some(source)).within(field))
            .transpose()
    };
    let listeners = wanted("lds_config", &dynamic.lds_config)?;
    let clusters = wanted("cds_config", &dynamic.cds_config)?;
    let Some(source) = &dynamic.ads_config else {
        if listeners.is_some() || clusters.is_some() {
            return Err(ConfigError::at(
                "ads_config",
                "resources are to come over ADS, and there is none",
            ));
        }
        return Ok(None);
    };
    let GrpcSource { delta, cluster } = GrpcSource::compile_aggregated(source).within("ads_config")?;
    let target = ads_target(&cluster, bootstrap).within("ads_config")?;
    Ok(Some(AdsConfig {
        delta,
        cluster,
        target,
        listeners,
        clusters,
    }))
}

fn ads_target(name: &str, bootstrap: &Bootstrap) -> ConfigResult<AdsTarget> {
    let clusters = bootstrap
        .static_resources
        .as_ref()
        .map_or(&[][..], |r| &r.clusters);
    let cluster = clusters.iter().find(|c| c.name == name);
    let cluster = cluster.ok_or_else(|| ConfigError::new(format!("there is no static cluster {name}")))?;
    service(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADS: &str = r#"
node: { id: "sidecar~1.2.3.4~a.b~c", cluster: app }
dynamic_resources:
  lds_config: { ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3 }
  cds_config: { ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3 }
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{ envoy_grpc: { cluster_name: xds-grpc } }]
static_resources:
  clusters:
  - name: xds-grpc
    load_assignment:
      cluster_name: xds-grpc
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: ./XDS } } } }] }]
"#;

    fn compile(path: Option<&Path>, yaml: &str) -> ConfigResult<BootstrapConfig> {
        BootstrapConfig::compile(
            load(path, Some(yaml), UnknownFields::Refuse).unwrap(),
            &NodeOverrides::default(),
        )
    }

    #[test]
    fn an_istio_bootstrap_names_its_discovery_service() {
        let config = compile(None, ADS).unwrap();
        let ads = config.ads.unwrap();
        assert!(ads.delta);
        assert_eq!(ads.target, AdsTarget::Unix("./XDS".to_owned()));
        assert_eq!(
            (ads.listeners, ads.clusters),
            (Some(Duration::ZERO), Some(Duration::ZERO))
        );
        assert!(!config.proto.node.unwrap().extensions.is_empty());
    }

    #[test]
    fn what_is_not_sent_to_the_discovery_service_is_refused() {
        let path = |from: &str, to: &str| {
            let yaml = ADS.replace(from, to);
            assert_ne!(yaml, ADS);
            compile(None, &yaml).unwrap_err().path().to_owned()
        };
        let at = |field: &str| format!("dynamic_resources.ads_config.{field}");
        let service = "envoy_grpc: { cluster_name: xds-grpc }";
        let with_metadata = format!("{service}, initial_metadata: [{{ key: a, value: b }}]");
        assert_eq!(
            path(service, &with_metadata),
            at("grpc_services[0].initial_metadata")
        );
        let twice = format!("{service} }}, {{ {service}");
        assert_eq!(path(service, &twice), at("grpc_services"));
        let version = "    transport_api_version: V3\n";
        assert_eq!(path(version, ""), at("transport_api_version"));
    }

    #[test]
    fn a_discovery_service_behind_a_transport_that_is_not_spoken_to_it_is_refused() {
        let with = |socket: &str| {
            let cluster = format!("- name: xds-grpc\n    transport_socket: {{ {socket} }}\n");
            compile(None, &ADS.replace("- name: xds-grpc\n", &cluster))
        };
        let typed = |name: &str, fields: &str| {
            format!(
                "name: t, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.{name}{fields} }}"
            )
        };
        let tls = "tls.v3.UpstreamTlsContext";
        assert!(with(&typed(tls, "")).is_ok());
        assert!(with(&typed("raw_buffer.v3.RawBuffer", "")).is_ok());
        assert!(with("name: envoy.transport_sockets.raw_buffer").is_ok());
        let inner = format!(", transport_socket: {{ {} }}", typed(tls, ""));
        let around = typed("proxy_protocol.v3.ProxyProtocolUpstreamTransport", &inner);
        let error = with(&around).unwrap_err();
        assert!(error.to_string().contains("plaintext nor TLS"), "{error}");
    }

    #[test]
    fn text_is_merged_over_the_file() {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), ADS).unwrap();
        let yaml = "node: { id: other }\nadmin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }\nstatic_resources: { clusters: [{ name: more }] }";
        let config = compile(Some(file.path()), yaml).unwrap();
        assert_eq!((&*config.local.id, &*config.local.cluster), ("other", "app"));
        assert!(config.admin.is_some());
        assert_eq!(config.proto.static_resources.unwrap().clusters.len(), 2);
    }

    #[test]
    fn the_format_is_told_by_the_name_of_the_file() {
        let file = tempfile::Builder::new().suffix(".conf").tempfile().unwrap();
        assert!(matches!(
            load(Some(file.path()), None, UnknownFields::Refuse),
            Err(LoadError::Extension(_))
        ));
        assert!(matches!(
            load(None, None, UnknownFields::Refuse),
            Err(LoadError::Nothing)
        ));
    }

    #[test]
    fn what_is_not_enforced_is_refused_by_name() {
        let error = compile(None, "overload_manager: { refresh_interval: 1s }").unwrap_err();
        assert_eq!(error.path(), "overload_manager");
        let error = compile(
            None,
            "dynamic_resources: { cds_config: { path_config_source: { path: /x } } }",
        );
        assert_eq!(
            error.unwrap_err().path(),
            "dynamic_resources.cds_config.path_config_source"
        );
    }

    #[test]
    fn an_admin_interface_that_is_not_at_an_ip_address_or_open_in_part_is_refused() {
        let path = |admin: &str| {
            let yaml = format!("admin: {{ {admin} }}");
            compile(None, &yaml).unwrap_err().path().to_owned()
        };
        assert_eq!(path("address: { pipe: { path: /tmp/a } }"), "admin.address.pipe");
        assert_eq!(path("allow_paths: [{ exact: /stats }]"), "admin.allow_paths");
        assert!(compile(None, "admin: {}").unwrap().admin.is_none());
    }

    #[test]
    fn an_access_log_of_the_admin_interface_that_goes_nowhere_is_no_finding() {
        let log = |path: &str| {
            let file = FileAccessLog {
                path: path.to_owned(),
                ..Default::default()
            };
            AccessLog {
                config_type: Some(ConfigType::TypedConfig(any::pack(&file))),
                ..Default::default()
            }
        };
        assert!(!goes_somewhere(&log("/dev/null")));
        assert!(goes_somewhere(&log("/dev/stdout")));
        assert!(goes_somewhere(&AccessLog::default()));
    }

    #[test]
    fn source_addresses_for_all_clusters_are_refused() {
        let yaml = "cluster_manager: { upstream_bind_config: { source_address: { address: 127.0.0.1, port_value: 0 } } }";
        assert_eq!(
            compile(None, yaml).unwrap_err().path(),
            "cluster_manager.upstream_bind_config"
        );
    }

    #[test]
    fn unknown_fields_are_refused_unless_they_are_allowed() {
        let yaml = "node: { id: a, colour: red }";
        assert!(matches!(
            load(None, Some(yaml), UnknownFields::Refuse),
            Err(LoadError::Json { .. })
        ));
        assert_eq!(
            load(None, Some(yaml), UnknownFields::Ignore)
                .unwrap()
                .node
                .unwrap()
                .id,
            "a"
        );
    }

    #[test]
    fn the_command_line_names_the_node() {
        let overrides = NodeOverrides {
            id: Some("n".into()),
            zone: Some("z".into()),
            cluster: None,
        };
        let config =
            BootstrapConfig::compile(load(None, Some(ADS), UnknownFields::Refuse).unwrap(), &overrides)
                .unwrap();
        assert_eq!((&*config.local.id, &*config.local.zone), ("n", "z"));
    }
}
