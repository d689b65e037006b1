//! `envoy.config.cluster.v3.Cluster` compiled for the workers: immutable, `Send + Sync`, read by index.
//!
//! A field that changes traffic and is not enforced here is refused by name.

mod discovery;
mod http;
mod http2;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::envoy::config::core::v3 as core;
use api_envoy::{any, wkt};
use prost_types::value::Kind;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use telemetry::stats::Registry;

pub use crate::transport::{Transport, TransportSelection};
pub use discovery::{Discovery, DnsConfig, LookupFamily, OriginalDstConfig, refuse_resolver};
pub use http::{HttpOptions, HttpProtocol, ServerNameOptions};
pub use http2::{Http2Keepalive, Http2Options};

use crate::circuit_breaker::CircuitBreakers;
use crate::http2_stats::Http2Stats;
use crate::load_balancer::LbConfig;
use crate::metadata_exchange::{self, MetadataExchange};
use crate::outlier::{Detector, OutlierConfig};
use crate::secrets::{SecretStore, Sources};
use crate::stats::ClusterStats;
use crate::{Assignment, limits};

/// A compiled cluster.
#[derive(Debug)]
pub struct ClusterConfig {
    /// `Cluster.name`.
    pub name: Arc<str>,
    /// The name in statistics: `alt_stat_name`, else the name.
    pub stat_name: Arc<str>,
    /// Where the endpoints come from.
    pub discovery: Discovery,
    /// The endpoints in `load_assignment`: those of a `STATIC` cluster, the host names of a DNS one.
    pub static_endpoints: Arc<Assignment>,
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
    /// `per_connection_buffer_limit_bytes`: bytes that may be buffered per connection and direction.
    pub buffer_limit_bytes: u32,
    /// The load balancing policy.
    pub lb: LbConfig,
    /// How much may be in use at once, all workers together.
    pub circuit_breakers: CircuitBreakers,
    /// HTTP settings of upstream connections.
    pub http: HttpOptions,
    /// Which transport socket a host gets.
    pub transport: TransportSelection,
    /// Local address and socket options of upstream connections.
    pub bind: Option<BindConfig>,
    /// TCP keepalive of upstream connections; absent means off.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Passive health checking, shared by all workers.
    pub outlier_detector: Option<Detector>,
    /// Whether `istio.alpn` leaves its connections alone.
    pub refuses_alpn_override: bool,
    /// Whether its hosts are outside of the mesh, by what Istio says of it.
    pub is_external: bool,
    /// Whether proxies tell each other of themselves on connections that carry bytes.
    pub metadata_exchange: Option<MetadataExchange>,
    /// Statistics, under `cluster.<stat name>.`.
    pub stats: ClusterStats,
    /// Statistics of HTTP/2, under `cluster.<stat name>.http2.`, where it may be spoken.
    pub http2_stats: Option<Http2Stats>,
}

/// `envoy.config.core.v3.BindConfig`: what a socket is bound to before it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindConfig {
    /// The local address for destinations of its family; port 0 lets the kernel choose.
    pub source: SocketAddr,
    /// The local address for destinations of the other family (`additional_source_addresses`).
    pub other_family: Option<SocketAddr>,
    /// Whether the address need not exist on this host (`IP_FREEBIND`).
    pub freebind: bool,
}

impl BindConfig {
    /// The address to bind to before connecting to `destination`.
    #[must_use]
    pub fn for_destination(&self, destination: SocketAddr) -> Option<SocketAddr> {
        let fits = |a: &SocketAddr| a.is_ipv4() == destination.is_ipv4();
        Some(self.source)
            .filter(fits)
            .or_else(|| self.other_family.filter(fits))
    }

    #[allow(deprecated)]
    fn compile(proto: &core::BindConfig) -> ConfigResult<Option<Self>> {
        refuse_unsupported(&[
            ("socket_options", !proto.socket_options.is_empty()),
            ("local_address_selector", proto.local_address_selector.is_some()),
        ])?;
        let Some(source) = &proto.source_address else {
            return Ok(None);
        };
        let source = bind_address(source).within("source_address")?;
        let other_family = match (
            &*proto.extra_source_addresses,
            &*proto.additional_source_addresses,
        ) {
            ([], []) => None,
            ([extra], []) => {
                refuse_unsupported(&[("socket_options", extra.socket_options.is_some())])
                    .within_index("extra_source_addresses", 0)?;
                let address = extra.address.as_ref().map(bind_address);
                address.transpose().within_index("extra_source_addresses", 0)?
            }
            ([], [address]) => Some(bind_address(address).within_index("additional_source_addresses", 0)?),
            _ => {
                return Err(ConfigError::at(
                    "extra_source_addresses",
                    "at most one more address is supported",
                ));
            }
        };
        Ok(Some(Self {
            source,
            other_family,
            freebind: proto.freebind.unwrap_or_default(),
        }))
    }
}

fn bind_address(proto: &core::SocketAddress) -> ConfigResult<SocketAddr> {
    let ip = proto
        .address
        .parse()
        .map_err(|_| ConfigError::at("address", "not an IP address"))?;
    Ok(SocketAddr::new(ip, crate::endpoints::port(proto)?))
}

/// `envoy.config.core.v3.TcpKeepalive`; what is absent is the operating system's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dropped.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

impl TcpKeepalive {
    fn compile(proto: &core::TcpKeepalive) -> Self {
        let seconds = |s: Option<u32>| s.filter(|s| *s > 0).map(|s| Duration::from_secs(s.into()));
        Self {
            probes: proto.keepalive_probes.filter(|n| *n > 0),
            time: seconds(proto.keepalive_time),
            interval: seconds(proto.keepalive_interval),
        }
    }
}

impl ClusterConfig {
    /// Compiles a cluster that names no secrets. Its statistics are registered in `registry`.
    ///
    /// # Errors
    /// A field that is malformed, or that would change traffic and is not enforced here.
    pub fn compile(proto: &pb::Cluster, registry: &Registry) -> ConfigResult<Self> {
        let mut none = SecretStore::new(registry, Sources::default());
        Self::compile_with(proto, registry, &mut none)
    }

    /// Compiles a cluster. Secrets that it names are asked of `secrets`.
    ///
    /// # Errors
    /// As [`ClusterConfig::compile`].
    pub fn compile_with(
        proto: &pb::Cluster,
        registry: &Registry,
        secrets: &mut SecretStore,
    ) -> ConfigResult<Self> {
        if proto.name.is_empty() {
            return Err(ConfigError::at("name", "must not be empty"));
        }
        refuse_what_is_not_enforced(proto)?;
        let stat_name = Some(&*proto.alt_stat_name)
            .filter(|n| !n.is_empty())
            .unwrap_or(&proto.name);
        let scope = registry.cluster_scope(stat_name);
        let transport = TransportSelection::compile(proto, &scope, secrets)?;
        let discovery = Discovery::compile(proto)?;
        let static_endpoints = static_endpoints(proto, &discovery, &transport)?;
        let http = HttpOptions::compile(proto)?;
        let bind = proto.upstream_bind_config.as_ref().map(BindConfig::compile);
        let keepalive = proto
            .upstream_connection_options
            .as_ref()
            .and_then(|o| o.tcp_keepalive.as_ref());
        let outlier = proto.outlier_detection.as_ref().map(OutlierConfig::compile);
        Ok(Self {
            name: proto.name.as_str().into(),
            stat_name: stat_name.into(),
            lb: LbConfig::compile(proto, matches!(discovery, Discovery::OriginalDst(_)))?,
            discovery,
            static_endpoints: Arc::new(static_endpoints),
            connect_timeout: connect_timeout(proto)?,
            buffer_limit_bytes: proto
                .per_connection_buffer_limit_bytes
                .unwrap_or(limits::DEFAULT_BUFFER_LIMIT_BYTES),
            circuit_breakers: CircuitBreakers::compile(proto.circuit_breakers.as_ref())
                .within("circuit_breakers")?,
            http2_stats: (http.protocol != HttpProtocol::Http1).then(|| Http2Stats::new(&scope, "http2.")),
            http,
            transport,
            bind: bind.transpose().within("upstream_bind_config")?.flatten(),
            tcp_keepalive: keepalive.map(TcpKeepalive::compile),
            outlier_detector: outlier
                .transpose()
                .within("outlier_detection")?
                .map(Detector::new),
            refuses_alpn_override: proto.metadata.as_ref().is_some_and(refuses_alpn_override),
            is_external: is_external(proto),
            metadata_exchange: metadata_exchange(&proto.filters)?,
            stats: ClusterStats::new(scope),
        })
    }

    /// The endpoints to begin with, or `None` when they must be discovered first (EDS, DNS).
    #[must_use]
    pub fn initial_endpoints(&self) -> Option<Arc<Assignment>> {
        match self.discovery {
            Discovery::Static | Discovery::OriginalDst(_) => Some(Arc::clone(&self.static_endpoints)),
            Discovery::Eds { .. } | Discovery::StrictDns(_) | Discovery::LogicalDns(_) => None,
        }
    }
}

/// Metadata `istio` with `alpn_override: "false"`: Istio marks so the clusters that speak TLS to servers outside of the
/// mesh.
fn refuses_alpn_override(metadata: &core::Metadata) -> bool {
    let Some(istio) = metadata.filter_metadata.get("istio") else {
        return false;
    };
    let value = istio
        .fields
        .get("alpn_override")
        .and_then(|value| value.kind.as_ref());
    matches!(value, Some(Kind::StringValue(text)) if text == "false")
}

/// Metadata `istio` with `external: true`, or what goes to wherever the client wanted to.
fn is_external(proto: &pb::Cluster) -> bool {
    let istio = proto
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.filter_metadata.get("istio"));
    let external = istio.and_then(|istio| istio.fields.get("external")?.kind.as_ref());
    proto.name == "PassthroughCluster" || matches!(external, Some(Kind::BoolValue(true)))
}

fn connect_timeout(proto: &pb::Cluster) -> ConfigResult<Duration> {
    let Some(timeout) = &proto.connect_timeout else {
        return Ok(limits::DEFAULT_CONNECT_TIMEOUT);
    };
    let timeout = wkt::std_duration(timeout);
    if timeout.is_zero() {
        return Err(ConfigError::at("connect_timeout", "must be positive"));
    }
    Ok(timeout)
}

fn static_endpoints(
    proto: &pb::Cluster,
    discovery: &Discovery,
    transport: &TransportSelection,
) -> ConfigResult<Assignment> {
    let Some(load_assignment) = &proto.load_assignment else {
        return match discovery {
            Discovery::StrictDns(_) | Discovery::LogicalDns(_) => Err(ConfigError::at(
                "load_assignment",
                "a DNS cluster needs the names to resolve",
            )),
            _ => Ok(Assignment::default()),
        };
    };
    match discovery {
        Discovery::Eds { .. } | Discovery::OriginalDst(_) => Err(ConfigError::at(
            "load_assignment",
            "has no meaning for this discovery type",
        )),
        Discovery::Static => Assignment::compile(load_assignment, transport, None).within("load_assignment"),
        Discovery::StrictDns(_) | Discovery::LogicalDns(_) => {
            let names = Assignment::compile_names(load_assignment, transport).within("load_assignment")?;
            if matches!(discovery, Discovery::LogicalDns(_)) && names.hosts().count() != 1 {
                return Err(ConfigError::at(
                    "load_assignment",
                    "a LOGICAL_DNS cluster must have one endpoint",
                ));
            }
            Ok(names)
        }
    }
}

#[allow(deprecated)]
fn refuse_what_is_not_enforced(proto: &pb::Cluster) -> ConfigResult<()> {
    refuse_unsupported(&[
        (
            "transport_socket_matcher",
            proto.transport_socket_matcher.is_some(),
        ),
        (
            "per_connection_buffer_high_watermark_timeout",
            proto.per_connection_buffer_high_watermark_timeout.is_some(),
        ),
        ("health_checks", !proto.health_checks.is_empty()),
        (
            "lb_subset_config",
            proto
                .lb_subset_config
                .as_ref()
                .is_some_and(|s| !s.subset_selectors.is_empty()),
        ),
        (
            "close_connections_on_host_health_failure",
            proto.close_connections_on_host_health_failure,
        ),
        ("lrs_server", proto.lrs_server.is_some()),
        ("upstream_config", proto.upstream_config.is_some()),
        ("preconnect_policy", proto.preconnect_policy.is_some()),
        (
            "connection_pool_per_downstream_connection",
            proto.connection_pool_per_downstream_connection,
        ),
        ("queuing_policies", proto.queuing_policies.is_some()),
    ])
}

/// The filters of upstream connections that carry bytes: `istio.metadata_exchange`, or none. Connections of HTTP
/// agree on other application protocols, so it has nothing to do on them.
fn metadata_exchange(filters: &[pb::Filter]) -> ConfigResult<Option<MetadataExchange>> {
    let mut found = None;
    for (index, filter) in filters.iter().enumerate() {
        let typed = filter.typed_config.as_ref();
        let Some(typed) = typed.filter(|typed| any::message_of(typed) == metadata_exchange::MESSAGE) else {
            let reason = format!("no upstream network filter {:?}", filter.name);
            return Err(ConfigError::at("name", reason)).within_index("filters", index);
        };
        let compiled = MetadataExchange::compile(typed).within("typed_config");
        found = Some(compiled.within_index("filters", index)?);
    }
    Ok(found)
}
