//! The clusters every proxy has: nowhere, and wherever the application dialled.

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3::{
    Cluster, cluster::ClusterDiscoveryType, cluster::CustomClusterType, cluster::DiscoveryType,
    cluster::LbPolicy,
};
use api_envoy::envoy::config::core::v3::{
    BindConfig, HttpProtocolOptions as CommonOptions, SocketAddress, socket_address,
};
use api_envoy::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
    ClusterConfig, cluster_config::ClusterImplementationSpecifier,
};
use api_envoy::wkt;
use api_istio::mesh::MeshOutboundTrafficPolicyMode as OutboundMode;
use control_snapshot::{ProxyKind, ProxyView};

use super::protocol;
use crate::extension::cluster_filter_any;
use crate::features::connection_pool;
use crate::{dynamic_forward_proxy, limits, names, tcp};

/// The built-in clusters of a proxy.
pub(super) fn build(view: &ProxyView) -> Vec<Cluster> {
    let mut clusters = vec![black_hole(view)];
    if view.profile.kind == ProxyKind::Sidecar {
        clusters.push(passthrough(view));
        clusters.push(inbound_passthrough(view));
        if view.outbound == OutboundMode::AllowAnyDynamicDns {
            clusters.push(dynamic_dns(view));
        }
    }
    clusters
}

/// A cluster without endpoints.
fn black_hole(view: &ProxyView) -> Cluster {
    let name = names::BLACK_HOLE_CLUSTER;
    Cluster {
        name: name.to_owned(),
        alt_stat_name: names::stat(name),
        connect_timeout: Some(wkt::duration(view.mesh.connect_timeout().0)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        ..Cluster::default()
    }
}

/// To the original destination, in the protocol of the request.
fn passthrough(view: &ProxyView) -> Cluster {
    let name = names::PASSTHROUGH_CLUSTER;
    let mut cluster = Cluster {
        name: name.to_owned(),
        alt_stat_name: names::stat(name),
        connect_timeout: Some(wkt::duration(view.mesh.connect_timeout().0)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        lb_policy: LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(connection_pool::circuit_breakers(None)),
        ..Cluster::default()
    };
    let idle_timeout = Some(wkt::seconds(limits::PASSTHROUGH_IDLE_TIMEOUT_SECONDS));
    let common = CommonOptions {
        idle_timeout,
        ..CommonOptions::default()
    };
    protocol::set(&mut cluster, Some(common), Some(protocol::as_downstream()));
    exchange_metadata(view.profile.exchanges_metadata, &mut cluster);
    cluster
}

/// As [`passthrough`], to the proxy's own application. It shares the statistics name, as in Istio.
fn inbound_passthrough(view: &ProxyView) -> Cluster {
    Cluster {
        name: names::INBOUND_PASSTHROUGH_CLUSTER.to_owned(),
        upstream_bind_config: Some(inbound_source()),
        filters: Vec::new(),
        ..passthrough(view)
    }
}

/// To the host a request names, resolved by DNS.
fn dynamic_dns(view: &ProxyView) -> Cluster {
    let name = names::DYNAMIC_DNS_CLUSTER;
    let config = ClusterConfig {
        allow_insecure_cluster_options: true,
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(
            dynamic_forward_proxy::dns_cache(),
        )),
        ..ClusterConfig::default()
    };
    Cluster {
        name: name.to_owned(),
        alt_stat_name: names::stat(name),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
            typed_config: Some(any::pack(&config)),
        })),
        ..passthrough(view)
    }
}

/// The source address of connections to the own application.
pub(super) fn inbound_source() -> BindConfig {
    BindConfig {
        source_address: Some(SocketAddress {
            address: names::INBOUND_SOURCE.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(0)),
            ..SocketAddress::default()
        }),
        ..BindConfig::default()
    }
}

/// Workload metadata is exchanged on upstream connections, by proxies that can.
pub(super) fn exchange_metadata(able: bool, cluster: &mut Cluster) {
    if able {
        cluster.filters.push(cluster_filter_any(
            "istio.metadata_exchange",
            tcp::metadata_exchange_config(),
        ));
    }
}
