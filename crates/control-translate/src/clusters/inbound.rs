//! Clusters of the proxy's own application: one per port a service leads to.

use std::time::Duration;

use api_envoy::envoy::config::cluster::v3::{
    Cluster,
    cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType, LbPolicy},
};
use api_envoy::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use api_envoy::wkt;
use api_istio::mesh::InboundTrafficPolicyMode;
use control_snapshot::spread::effective_policy;
use control_snapshot::{InboundPort, ProxyView};

use super::{builtin, metadata, protocol};
use crate::extension::socket_address;
use crate::features::{cluster_names, connection_pool};
use crate::names;
use crate::role::Role;

/// Original destinations of the own application are never cleaned up: the longest interval Envoy takes, in seconds.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(9_223_372_035);

/// All inbound clusters.
pub(super) fn build(view: &ProxyView) -> Vec<Cluster> {
    view.inbound.iter().map(|port| cluster(view, port)).collect()
}

fn cluster(view: &ProxyView, inbound: &InboundPort) -> Cluster {
    let rule = inbound.rule.as_deref();
    // Of the own service's policy only the connection pool holds on this side.
    let mut policy = effective_policy(rule, "", inbound.port.port);
    policy.outlier_detection = None;
    let name = names::inbound(inbound.target_port);
    let mut cluster = Cluster {
        alt_stat_name: names::stat(&cluster_names::inbound(&view.mesh, inbound, &name)),
        name,
        connect_timeout: Some(wkt::duration(connection_pool::connect_timeout(
            &policy, &view.mesh,
        ))),
        circuit_breakers: Some(connection_pool::circuit_breakers(Some(&policy))),
        common_lb_config: Some(CommonLbConfig::default()),
        metadata: Some(metadata::of(
            &inbound.service,
            rule.filter(|r| r.config.spec.traffic_policy.is_some()),
            "",
        )),
        ..Cluster::default()
    };
    protocol::apply(
        &mut cluster,
        Role::SidecarInbound,
        inbound.port.protocol,
        &policy,
        &view.mesh,
    );
    match view.mesh.inbound_mode() {
        InboundTrafficPolicyMode::Passthrough => {
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into()));
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.cleanup_interval = Some(wkt::duration(CLEANUP_INTERVAL));
            cluster.upstream_bind_config = Some(builtin::inbound_source());
        }
        InboundTrafficPolicyMode::Localhost => {
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
            cluster.load_assignment = Some(localhost(&cluster.name, inbound.target_port));
        }
    }
    cluster
}

fn localhost(cluster: &str, port: u32) -> ClusterLoadAssignment {
    let address = Some(socket_address(names::LOCALHOST, port));
    let endpoint = HostIdentifier::Endpoint(Endpoint {
        address,
        ..Endpoint::default()
    });
    let lb_endpoint = LbEndpoint {
        host_identifier: Some(endpoint),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![lb_endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}
