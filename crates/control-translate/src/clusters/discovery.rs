//! How a cluster finds its endpoints: EDS, DNS, or the address that was dialled.

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3::{
    Cluster,
    cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy},
};
use api_envoy::envoy::config::core::v3::TypedExtensionConfig;
use api_envoy::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use api_envoy::wkt;
use control_snapshot::{Endpoint, EndpointView, Mesh, ProxyKind, Resolution, ServiceView, Spread};
use std::time::Duration;

use crate::extension::ads;
use crate::{endpoints, limits};

/// How a service is discovered by a proxy. Gateways dial nobody's original destination, so they use endpoints instead.
pub(super) fn kind(client: ProxyKind, service: &ServiceView) -> DiscoveryType {
    match service.service.resolution {
        Resolution::Endpoints => DiscoveryType::Eds,
        Resolution::Passthrough if client == ProxyKind::Gateway && service.service.headless => {
            DiscoveryType::Eds
        }
        Resolution::Passthrough => DiscoveryType::OriginalDst,
        Resolution::Dns => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
        // Without the dynamic forward proxy such a host cannot be resolved; it goes where the application dialled.
        Resolution::DynamicDns => DiscoveryType::OriginalDst,
    }
}

/// Sets discovery; `false` when the cluster could never have an endpoint and is better left out.
pub(super) fn apply(
    cluster: &mut Cluster,
    kind: DiscoveryType,
    endpoints: Vec<Endpoint>,
    mesh: &Mesh,
) -> bool {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    match kind {
        DiscoveryType::Eds => {
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: cluster.name.clone(),
            });
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            if endpoints.is_empty() {
                return false;
            }
            resolver(cluster, mesh);
            let view = EndpointView {
                cluster: cluster.name.as_str().into(),
                endpoints,
                spread: Spread::Even,
                mutual_tls: true,
            };
            cluster.load_assignment = Some(endpoints::build(&view));
        }
        _ => cluster.lb_policy = LbPolicy::ClusterProvided.into(),
    }
    true
}

#[allow(deprecated)] // The successor of these fields is a cluster type that older proxies of the mesh do not know.
fn resolver(cluster: &mut Cluster, mesh: &Mesh) {
    cluster.dns_lookup_family = DnsLookupFamily::V4Only.into();
    cluster.dns_refresh_rate = mesh.dns_refresh_rate.map(|d| wkt::duration(d.0));
    cluster.dns_jitter = Some(wkt::duration(Duration::from_millis(
        limits::DNS_JITTER_MILLISECONDS,
    )));
    cluster.respect_dns_ttl = true;
    let config = CaresDnsResolverConfig {
        udp_max_queries: Some(limits::DNS_UDP_MAX_QUERIES),
        ..CaresDnsResolverConfig::default()
    };
    cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any::pack(&config)),
    });
}
