//! Network filters of byte streams: statistics, protocol filters, and the TCP proxy with one or several clusters.

use api_envoy::envoy::config::listener::v3::Filter;
use api_envoy::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use api_envoy::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy,
    tcp_proxy::{ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight},
};
use api_istio::networking::{TrafficPolicy, TunnelSettings};
use control_snapshot::{Protocol, ProxyView};
use serde_json::json;

use crate::extension::{network_filter, network_filter_any, typed_struct};
use crate::role::Role;
use crate::{access_log, http_filters, names};

/// The filter's name.
pub(crate) const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

/// Where a stream goes: clusters with weights, at least one.
pub(crate) type Destinations = Vec<(String, u32)>;

/// A chain of network filters for a stream.
pub(crate) struct Stream<'a> {
    /// What the proxy sees.
    pub(crate) view: &'a ProxyView,
    /// From whose point of view.
    pub(crate) role: Role,
    /// What the port speaks.
    pub(crate) protocol: Protocol,
    /// The name in statistics.
    pub(crate) stat_prefix: String,
    /// Where it goes.
    pub(crate) destinations: Destinations,
    /// Whether connections are logged.
    pub(crate) logged: bool,
    /// The policy towards the destination, for its idle timeout and tunnel.
    pub(crate) policy: Option<&'a TrafficPolicy>,
}

impl Stream<'_> {
    /// The network filters in order.
    pub(crate) fn filters(self) -> Vec<Filter> {
        let mut filters = Vec::new();
        if self.role.is_inbound() {
            filters.extend(metadata_exchange(self.view));
        }
        if self.view.profile.istio_stats {
            filters.push(network_filter(
                "istio.stats",
                &http_filters::stats_config(self.role),
            ));
        }
        // The filter only counts; a proxy without it carries the same bytes.
        let counts = self.view.profile.counts_mongo && self.role == Role::SidecarOutbound;
        if self.protocol == Protocol::Mongo && counts {
            let config = MongoProxy {
                stat_prefix: self.stat_prefix.clone(),
                ..MongoProxy::default()
            };
            filters.push(network_filter("envoy.filters.network.mongo_proxy", &config));
        }
        filters.push(network_filter(TCP_PROXY, &self.proxy()));
        filters
    }

    fn proxy(self) -> TcpProxy {
        let idle = self
            .policy
            .and_then(|p| p.connection_pool.as_ref()?.tcp.as_ref()?.idle_timeout);
        // Without its tunnel a stream would lead to whoever was to carry it on.
        let tunnel = self.policy.and_then(|p| p.tunnel.as_ref());
        let destinations = match tunnel.is_some() && !self.view.profile.tunnels {
            true => vec![(names::BLACK_HOLE_CLUSTER.to_owned(), 1)],
            false => self.destinations,
        };
        let tunnel = tunnel.filter(|_| self.view.profile.tunnels).map(build_tunnel);
        TcpProxy {
            stat_prefix: self.stat_prefix,
            access_log: if self.logged {
                access_log::of_traffic(&self.view.mesh)
            } else {
                Vec::new()
            },
            idle_timeout: idle.map(|d| api_envoy::wkt::duration(d.0)),
            tunneling_config: tunnel,
            cluster_specifier: Some(specifier(destinations)),
            ..TcpProxy::default()
        }
    }
}

/// Streams are carried inside an HTTP request (`trafficPolicy.tunnel`): CONNECT, or POST where that is asked for.
fn build_tunnel(settings: &TunnelSettings) -> TunnelingConfig {
    TunnelingConfig {
        hostname: format!("{}:{}", settings.target_host, settings.target_port),
        use_post: settings.protocol.eq_ignore_ascii_case("POST"),
        ..TunnelingConfig::default()
    }
}

fn specifier(mut destinations: Destinations) -> ClusterSpecifier {
    if destinations.len() == 1 {
        return ClusterSpecifier::Cluster(destinations.swap_remove(0).0);
    }
    let weight = |(name, weight)| ClusterWeight {
        name,
        weight,
        ..ClusterWeight::default()
    };
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: destinations.into_iter().map(weight).collect(),
    })
}

/// Exchanges workload metadata at the start of mesh connections; for proxies that can.
pub(crate) fn metadata_exchange(view: &ProxyView) -> Option<Filter> {
    view.profile
        .exchanges_metadata
        .then(|| network_filter_any("istio.metadata_exchange", metadata_exchange_config()))
}

/// The configuration of `istio.metadata_exchange` on streams and in clusters.
pub(crate) fn metadata_exchange_config() -> api_envoy::Any {
    typed_struct(
        "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
        &json!({"enable_discovery": true, "protocol": "istio-peer-exchange"}),
    )
}
