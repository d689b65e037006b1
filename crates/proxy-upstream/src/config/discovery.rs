//! Where a cluster's endpoints come from (`Cluster.type` and the fields that belong to each type).

use std::time::Duration;

use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig,
};
use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use api_envoy::envoy::extensions::network::dns_resolver::getaddrinfo::v3::GetAddrInfoDnsResolverConfig;
use api_envoy::{any, wkt};
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

use crate::limits;

/// `Cluster.type`.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// The endpoints are in the cluster itself.
    Static,
    /// The endpoints come by EDS.
    Eds {
        /// The resource name: `eds_cluster_config.service_name`, else the cluster's name.
        service_name: String,
    },
    /// Every address that the names resolve to is a host.
    StrictDns(DnsConfig),
    /// The first address that the name resolves to, behind one logical host.
    LogicalDns(DnsConfig),
    /// The host is where the downstream connection was going.
    OriginalDst(OriginalDstConfig),
}

/// How names are resolved, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsConfig {
    /// Time between lookups.
    pub refresh_rate: Duration,
    /// Most that is added to it at random.
    pub jitter: Duration,
    /// Time to the next lookup after a failed one: at first, and at most.
    pub failure_refresh: (Duration, Duration),
    /// Whether the answer's TTL takes the place of the refresh rate.
    pub respect_ttl: bool,
    /// Which addresses are wanted.
    pub family: LookupFamily,
}

/// `Cluster.dns_lookup_family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv6, or IPv4 when there is none.
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4, or IPv6 when there is none.
    V4Preferred,
    /// Both.
    All,
}

/// How the destination of an `ORIGINAL_DST` cluster is found.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginalDstConfig {
    /// The header that overrides the destination, lower-cased; `None` unless `use_http_header`.
    pub header: Option<Box<str>>,
    /// Takes the place of the destination's port.
    pub port_override: Option<u16>,
    /// Hosts unused for this long are dropped.
    pub cleanup_interval: Duration,
}

/// The header that `use_http_header` reads when no name is given.
const ORIGINAL_DST_HEADER: &str = "x-envoy-original-dst-host";

impl Discovery {
    pub(super) fn compile(proto: &pb::Cluster) -> ConfigResult<Self> {
        let kind = match &proto.cluster_discovery_type {
            None => DiscoveryType::Static,
            Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind)
                .map_err(|_| ConfigError::at("type", format!("no discovery type {kind}")))?,
            Some(ClusterDiscoveryType::ClusterType(custom)) => {
                return Err(ConfigError::at(
                    "cluster_type",
                    format!("no cluster extension {:?}", custom.name),
                ));
            }
        };
        Ok(match kind {
            DiscoveryType::Static => Self::Static,
            DiscoveryType::Eds => Self::Eds {
                service_name: service_name(proto),
            },
            DiscoveryType::StrictDns => Self::StrictDns(DnsConfig::compile(proto)?),
            DiscoveryType::LogicalDns => Self::LogicalDns(DnsConfig::compile(proto)?),
            DiscoveryType::OriginalDst => Self::OriginalDst(OriginalDstConfig::compile(proto)?),
        })
    }
}

fn service_name(proto: &pb::Cluster) -> String {
    let configured = proto.eds_cluster_config.as_ref().map(|eds| &eds.service_name);
    configured
        .filter(|name| !name.is_empty())
        .unwrap_or(&proto.name)
        .clone()
}

impl DnsConfig {
    #[allow(deprecated)]
    fn compile(proto: &pb::Cluster) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("dns_resolvers", !proto.dns_resolvers.is_empty()),
            ("use_tcp_for_dns_lookups", proto.use_tcp_for_dns_lookups),
            ("dns_resolution_config", proto.dns_resolution_config.is_some()),
        ])?;
        refuse_resolver(proto.typed_dns_resolver_config.as_ref())?;
        let refresh_rate = proto
            .dns_refresh_rate
            .as_ref()
            .map_or(limits::DEFAULT_DNS_REFRESH_RATE, wkt::std_duration);
        if refresh_rate < limits::MIN_DNS_REFRESH_RATE {
            return Err(ConfigError::at("dns_refresh_rate", "must be at least 1ms"));
        }
        let family = match DnsLookupFamily::try_from(proto.dns_lookup_family) {
            Ok(DnsLookupFamily::Auto) => LookupFamily::Auto,
            Ok(DnsLookupFamily::V4Only) => LookupFamily::V4Only,
            Ok(DnsLookupFamily::V6Only) => LookupFamily::V6Only,
            Ok(DnsLookupFamily::V4Preferred) => LookupFamily::V4Preferred,
            Ok(DnsLookupFamily::All) => LookupFamily::All,
            Err(_) => return Err(ConfigError::at("dns_lookup_family", "not a lookup family")),
        };
        Ok(Self {
            refresh_rate,
            jitter: proto
                .dns_jitter
                .as_ref()
                .map_or(Duration::ZERO, wkt::std_duration),
            failure_refresh: failure_refresh(proto, refresh_rate)?,
            respect_ttl: proto.respect_dns_ttl,
            family,
        })
    }
}

#[allow(deprecated)]
fn failure_refresh(proto: &pb::Cluster, refresh_rate: Duration) -> ConfigResult<(Duration, Duration)> {
    let Some(rate) = &proto.dns_failure_refresh_rate else {
        return Ok((refresh_rate, refresh_rate));
    };
    let base = rate
        .base_interval
        .as_ref()
        .map_or(Duration::ZERO, wkt::std_duration);
    if base < limits::MIN_DNS_REFRESH_RATE {
        return Err(
            ConfigError::at("base_interval", "must be at least 1ms").within("dns_failure_refresh_rate")
        );
    }
    let max = rate.max_interval.as_ref().map_or(base * 10, wkt::std_duration);
    if max < base {
        return Err(ConfigError::at("max_interval", "must not be below base_interval")
            .within("dns_failure_refresh_rate"));
    }
    Ok((base, max))
}

/// Names are resolved by the system's resolver; a configuration that names other servers is refused. The field is
/// called `typed_dns_resolver_config` in a cluster and in a bootstrap.
///
/// # Errors
/// Another resolver, or other servers.
pub fn refuse_resolver(resolver: Option<&core::TypedExtensionConfig>) -> ConfigResult<()> {
    let Some(extension) = resolver else {
        return Ok(());
    };
    let Some(typed) = &extension.typed_config else {
        return Err(ConfigError::at("typed_config", "missing").within("typed_dns_resolver_config"));
    };
    if any::is::<GetAddrInfoDnsResolverConfig>(typed) {
        return Ok(());
    }
    let refuse = || -> ConfigResult<()> {
        let cares: CaresDnsResolverConfig =
            any::unpack(typed).map_err(|e| ConfigError::new(e.to_string()))?;
        let options = cares.dns_resolver_options.unwrap_or_default();
        refuse_unsupported(&[
            ("resolvers", !cares.resolvers.is_empty()),
            (
                "dns_resolver_options.use_tcp_for_dns_lookups",
                options.use_tcp_for_dns_lookups,
            ),
            (
                "dns_resolver_options.no_default_search_domain",
                options.no_default_search_domain,
            ),
        ])
    };
    refuse()
        .within("typed_config")
        .within("typed_dns_resolver_config")
}

impl OriginalDstConfig {
    fn compile(proto: &pb::Cluster) -> ConfigResult<Self> {
        let cleanup_interval = proto
            .cleanup_interval
            .as_ref()
            .map_or(limits::DEFAULT_CLEANUP_INTERVAL, wkt::std_duration);
        if cleanup_interval.is_zero() {
            return Err(ConfigError::at("cleanup_interval", "must be positive"));
        }
        let Some(LbConfig::OriginalDstLbConfig(config)) = &proto.lb_config else {
            return Ok(Self {
                header: None,
                port_override: None,
                cleanup_interval,
            });
        };
        refuse_unsupported(&[("metadata_key", config.metadata_key.is_some())])
            .within("original_dst_lb_config")?;
        let port_override = config
            .upstream_port_override
            .map(u16::try_from)
            .transpose()
            .map_err(|_| {
                ConfigError::at("upstream_port_override", "not a port number")
                    .within("original_dst_lb_config")
            })?;
        let name = Some(&*config.http_header_name)
            .filter(|n| !n.is_empty())
            .unwrap_or(ORIGINAL_DST_HEADER);
        let header = config.use_http_header.then(|| name.to_ascii_lowercase().into());
        Ok(Self {
            header,
            port_override,
            cleanup_interval,
        })
    }
}
