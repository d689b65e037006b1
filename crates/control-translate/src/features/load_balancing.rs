//! Load balancing (`trafficPolicy.loadBalancer`): policy, slow start, panic threshold, localities.

use api_envoy::envoy::config::cluster::v3::{
    Cluster,
    cluster::{
        CommonLbConfig, DiscoveryType, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig,
        RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
        common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
    },
};
use api_envoy::envoy::config::core::v3::RuntimeDouble;
use api_envoy::envoy::r#type::v3::Percent;
use api_envoy::wkt;
use api_istio::networking::{ConsistentHashLb, LoadBalancerSettings, SimpleLb, TrafficPolicy};
use control_snapshot::{Mesh, Service, spread};

/// The ring size where nothing says otherwise.
const DEFAULT_RING_SIZE: u64 = 1024;

/// Sets the policy and what goes with it.
pub(crate) fn apply(cluster: &mut Cluster, policy: &TrafficPolicy, service: &Service, mesh: &Mesh) {
    let settings = policy.load_balancer.as_ref();
    cluster.common_lb_config = Some(common(policy, service, mesh));
    match settings.and_then(|s| s.consistent_hash.as_ref()) {
        Some(hash) => consistent_hash(cluster, hash),
        None => simple(cluster, settings),
    }
}

/// `PASSTHROUGH` means the address the application dialled, whatever the service's own discovery is.
pub(crate) fn discovery(policy: &TrafficPolicy, of_service: DiscoveryType) -> DiscoveryType {
    let passthrough = policy
        .load_balancer
        .as_ref()
        .is_some_and(|lb| lb.simple == Some(SimpleLb::Passthrough));
    if passthrough {
        DiscoveryType::OriginalDst
    } else {
        of_service
    }
}

fn simple(cluster: &mut Cluster, settings: Option<&LoadBalancerSettings>) {
    let slow_start = settings.and_then(slow_start);
    let policy = match settings.and_then(|s| s.simple).unwrap_or_default() {
        SimpleLb::RoundRobin => LbPolicy::RoundRobin,
        SimpleLb::Random => LbPolicy::Random,
        SimpleLb::Passthrough => LbPolicy::ClusterProvided,
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => LbPolicy::LeastRequest,
    };
    cluster.lb_policy = policy.into();
    cluster.lb_config = slow_start.and_then(|slow_start| {
        let slow_start_config = Some(slow_start);
        match policy {
            LbPolicy::RoundRobin => Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
                slow_start_config,
            })),
            LbPolicy::LeastRequest => Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                slow_start_config,
                ..LeastRequestLbConfig::default()
            })),
            _ => None,
        }
    });
}

/// Runtime keys under which an operator could override slow start; never set by us, but the field wants one.
const AGGRESSION_RUNTIME_KEY: &str = "aggression";

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    if let Some(warmup) = &settings.warmup {
        return Some(SlowStartConfig {
            slow_start_window: Some(wkt::duration(warmup.duration.0)),
            aggression: warmup.aggression.map(|default_value| RuntimeDouble {
                default_value,
                runtime_key: AGGRESSION_RUNTIME_KEY.to_owned(),
            }),
            min_weight_percent: warmup.minimum_percent.map(|value| Percent { value }),
        });
    }
    let window = settings.warmup_duration_secs?;
    Some(SlowStartConfig {
        slow_start_window: Some(wkt::duration(window.0)),
        ..SlowStartConfig::default()
    })
}

fn consistent_hash(cluster: &mut Cluster, hash: &ConsistentHashLb) {
    if let Some(maglev) = &hash.maglev {
        cluster.lb_policy = LbPolicy::Maglev.into();
        let table_size = Some(maglev.table_size).filter(|n| *n > 0);
        cluster.lb_config =
            table_size.map(|n| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(n) }));
        return;
    }
    let ring = hash
        .ring_hash
        .as_ref()
        .map(|r| r.minimum_ring_size)
        .filter(|n| *n > 0);
    let deprecated = Some(hash.minimum_ring_size).filter(|n| *n > 0);
    cluster.lb_policy = LbPolicy::RingHash.into();
    cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: Some(ring.or(deprecated).unwrap_or(DEFAULT_RING_SIZE)),
        ..RingHashLbConfig::default()
    }));
}

/// Unhealthy endpoints are part of EDS, so "panic" (using them all the same) must be off unless it is asked for.
fn common(policy: &TrafficPolicy, service: &Service, mesh: &Mesh) -> CommonLbConfig {
    let minimum = policy
        .outlier_detection
        .as_ref()
        .map_or(0, |o| o.min_health_percent);
    let locality = policy
        .load_balancer
        .as_ref()
        .and_then(|lb| lb.locality_lb_setting.as_ref());
    let by_locality = spread::setting(service, locality, mesh).is_some();
    CommonLbConfig {
        healthy_panic_threshold: Some(Percent {
            value: f64::from(minimum.max(0)),
        }),
        locality_config_specifier: by_locality.then_some(LocalityConfigSpecifier::LocalityWeightedLbConfig(
            LocalityWeightedLbConfig {},
        )),
        ..CommonLbConfig::default()
    }
}
