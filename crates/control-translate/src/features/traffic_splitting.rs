//! Destinations with weights (`http[].route`).

use api_envoy::envoy::config::route::v3::{
    Route, RouteAction, WeightedCluster, route_action,
    weighted_cluster::{ClusterWeight, cluster_weight},
};
use api_istio::networking::{Destination, HttpRouteDestination};

use super::header_operations;

/// Sets the destinations of a route: one cluster, or several by weight; of several, those of weight 0 get nothing.
pub(crate) fn apply(
    route: &mut Route,
    action: &mut RouteAction,
    destinations: &[HttpRouteDestination],
    cluster: impl Fn(&Destination) -> String,
) {
    if let [only] = destinations {
        let operations = header_operations::translate(only.headers.as_ref());
        route.request_headers_to_add.extend(operations.request_add);
        route.request_headers_to_remove.extend(operations.request_remove);
        route.response_headers_to_add.extend(operations.response_add);
        route
            .response_headers_to_remove
            .extend(operations.response_remove);
        if let Some(authority) = operations.authority
            && action.host_rewrite_specifier.is_none()
        {
            let literal = route_action::HostRewriteSpecifier::HostRewriteLiteral(authority);
            action.host_rewrite_specifier = Some(literal);
        }
        let name = cluster(&only.destination);
        action.cluster_specifier = Some(route_action::ClusterSpecifier::Cluster(name));
        return;
    }
    let clusters = destinations
        .iter()
        .filter(|d| d.weight > 0)
        .map(|d| weighted(d, cluster(&d.destination)));
    let weighted = WeightedCluster {
        clusters: clusters.collect(),
        ..WeightedCluster::default()
    };
    action.cluster_specifier = Some(route_action::ClusterSpecifier::WeightedClusters(weighted));
}

fn weighted(destination: &HttpRouteDestination, name: String) -> ClusterWeight {
    let operations = header_operations::translate(destination.headers.as_ref());
    ClusterWeight {
        name,
        weight: Some(u32::try_from(destination.weight).unwrap_or(0)),
        request_headers_to_add: operations.request_add,
        request_headers_to_remove: operations.request_remove,
        response_headers_to_add: operations.response_add,
        response_headers_to_remove: operations.response_remove,
        host_rewrite_specifier: operations
            .authority
            .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..ClusterWeight::default()
    }
}
