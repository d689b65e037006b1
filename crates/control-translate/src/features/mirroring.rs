//! Copies of requests to other destinations (`http[].mirror`, `http[].mirrors`).

use api_envoy::envoy::config::core::v3::RuntimeFractionalPercent;
use api_envoy::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use api_envoy::envoy::r#type::v3::FractionalPercent;
use api_istio::networking::{Destination, HttpRoute};

use super::fault_injection::{hundredths, millionths};

/// The mirrors of a route; `cluster` names the cluster of a destination.
pub(crate) fn build(route: &HttpRoute, cluster: impl Fn(&Destination) -> String) -> Vec<RequestMirrorPolicy> {
    let mut policies = Vec::new();
    if let Some(destination) = &route.mirror {
        let share = match (&route.mirror_percentage, route.mirror_percent) {
            (Some(percent), _) => (percent.value > 0.0).then(|| millionths(percent.value)),
            (None, Some(percent)) => (percent > 0).then(|| hundredths(percent)),
            (None, None) => Some(hundredths(100)),
        };
        policies.extend(share.map(|share| policy(cluster(destination), share)));
    }
    for mirror in &route.mirrors {
        let share = match &mirror.percentage {
            Some(percent) => (percent.value > 0.0).then(|| millionths(percent.value)),
            None => Some(hundredths(100)),
        };
        policies.extend(share.map(|share| policy(cluster(&mirror.destination), share)));
    }
    policies
}

/// Copies are not sampled for tracing, which would double every trace, and keep their host.
fn policy(cluster: String, share: FractionalPercent) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster,
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(share),
            ..Default::default()
        }),
        trace_sampled: Some(false),
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    }
}
