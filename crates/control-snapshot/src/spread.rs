//! How a proxy spreads traffic over localities: DestinationRule, then the service's `trafficDistribution`, then
//! MeshConfig (`LocalityLoadBalancerSetting`).

use std::borrow::Cow;
use std::sync::Arc;

use api_istio::networking::{LocalityLoadBalancerSetting, SimpleLb, TrafficPolicy};

use crate::destination_rules::Rule;
use crate::mesh::Mesh;
use crate::proxy::Proxy;
use crate::service::{Locality, Service, TrafficDistribution};
use crate::view::{FailoverSpread, ServiceView, Spread};

/// Label keys of failover priorities that stand for the place of a workload instead of a label of it.
pub const REGION_KEY: &str = "topology.kubernetes.io/region";
/// The zone, as [`REGION_KEY`].
pub const ZONE_KEY: &str = "topology.kubernetes.io/zone";
/// The subzone, as [`REGION_KEY`].
pub const SUBZONE_KEY: &str = "topology.istio.io/subzone";
/// The network, as [`REGION_KEY`].
pub const NETWORK_KEY: &str = "topology.istio.io/network";
/// The node, as [`REGION_KEY`].
pub const HOSTNAME_KEY: &str = "kubernetes.io/hostname";

/// The locality setting that applies to a service, and whether it fails over without outlier detection.
#[must_use]
pub fn setting<'a>(
    service: &Service,
    policy: Option<&'a LocalityLoadBalancerSetting>,
    mesh: &'a Mesh,
) -> Option<(Cow<'a, LocalityLoadBalancerSetting>, bool)> {
    if let Some(policy) = policy {
        return enabled(policy).then_some((Cow::Borrowed(policy), false));
    }
    let keys: &[&str] = match service.traffic_distribution {
        TrafficDistribution::Any => {
            let mesh = mesh.locality_lb_setting.as_ref();
            return mesh
                .filter(|s| enabled(s) && says_how(s))
                .map(|s| (Cow::Borrowed(s), false));
        }
        TrafficDistribution::PreferClose => &[NETWORK_KEY, REGION_KEY, ZONE_KEY, SUBZONE_KEY],
        TrafficDistribution::PreferSameZone => &[NETWORK_KEY, REGION_KEY, ZONE_KEY],
        TrafficDistribution::PreferSameNode => {
            &[NETWORK_KEY, REGION_KEY, ZONE_KEY, SUBZONE_KEY, HOSTNAME_KEY]
        }
    };
    let failover_priority = keys.iter().map(|k| (*k).to_owned()).collect();
    Some((
        Cow::Owned(LocalityLoadBalancerSetting {
            failover_priority,
            ..Default::default()
        }),
        true,
    ))
}

fn enabled(setting: &LocalityLoadBalancerSetting) -> bool {
    setting.enabled.unwrap_or(true)
}

/// Whether a setting is more than Istio's default, which only says "on".
fn says_how(setting: &LocalityLoadBalancerSetting) -> bool {
    !(setting.distribute.is_empty() && setting.failover.is_empty() && setting.failover_priority.is_empty())
}

/// The traffic policy for one port and subset: the subset's over the rule's, the port's over both.
#[must_use]
pub fn effective_policy(rule: Option<&Rule>, subset: &str, port: u32) -> TrafficPolicy {
    let Some(rule) = rule else {
        return TrafficPolicy::default();
    };
    let spec = &rule.config.spec;
    let mut policy = for_port(spec.traffic_policy.as_ref(), port);
    let subset = spec
        .subsets
        .iter()
        .find(|s| !subset.is_empty() && s.name == subset);
    if let Some(of_subset) = subset.and_then(|s| s.traffic_policy.as_ref()) {
        let over = for_port(Some(of_subset), port);
        policy.load_balancer = over.load_balancer.or(policy.load_balancer);
        policy.connection_pool = over.connection_pool.or(policy.connection_pool);
        policy.outlier_detection = over.outlier_detection.or(policy.outlier_detection);
        policy.tls = over.tls.or(policy.tls);
        policy.tunnel = over.tunnel.or(policy.tunnel);
        policy.proxy_protocol = over.proxy_protocol.or(policy.proxy_protocol);
        policy.retry_budget = over.retry_budget.or(policy.retry_budget);
    }
    policy
}

/// A policy at one port: port-level settings replace the four that they can hold, as a whole.
fn for_port(policy: Option<&TrafficPolicy>, port: u32) -> TrafficPolicy {
    let Some(policy) = policy else {
        return TrafficPolicy::default();
    };
    let mut out = policy.clone();
    out.port_level_settings.clear();
    let settings = policy
        .port_level_settings
        .iter()
        .find(|s| s.port.as_ref().is_some_and(|p| p.number == port));
    if let Some(settings) = settings {
        out.load_balancer.clone_from(&settings.load_balancer);
        out.connection_pool.clone_from(&settings.connection_pool);
        out.outlier_detection.clone_from(&settings.outlier_detection);
        out.tls.clone_from(&settings.tls);
    }
    out
}

/// Whether a rule asks anywhere for connections to the address that the application dialled (`PASSTHROUGH`).
pub(crate) fn dials_original_destination(rule: &Rule) -> bool {
    let spec = &rule.config.spec;
    let subsets = spec.subsets.iter().filter_map(|s| s.traffic_policy.as_ref());
    let mut balancers = spec.traffic_policy.iter().chain(subsets).flat_map(|policy| {
        let ports = policy.port_level_settings.iter();
        policy
            .load_balancer
            .iter()
            .chain(ports.filter_map(|p| p.load_balancer.as_ref()))
    });
    balancers.any(|lb| lb.simple == Some(SimpleLb::Passthrough))
}

/// Whether the proxy's own locality changes the cluster itself (and not only its EDS answer).
pub(crate) fn matters_to_cluster(view: &ServiceView) -> bool {
    let policies = view.rule.iter().flat_map(|r| {
        let subsets = r
            .config
            .spec
            .subsets
            .iter()
            .filter_map(|s| s.traffic_policy.as_ref());
        r.config.spec.traffic_policy.iter().chain(subsets)
    });
    let mut balancers = policies.filter_map(|p| p.load_balancer.as_ref());
    !view.dns_endpoints.is_empty() && balancers.any(|lb| lb.locality_lb_setting.is_some())
}

/// How traffic to one cluster is spread, seen from one proxy.
pub(crate) fn of(
    proxy: &Proxy,
    service: &Service,
    rule: Option<&Rule>,
    subset: &str,
    port: u32,
    mesh: &Mesh,
) -> Spread {
    let policy = effective_policy(rule, subset, port);
    let outlier = policy.outlier_detection.is_some() || mesh.default_outlier_detection().is_some();
    let place = Place {
        locality: &proxy.locality,
        network: &proxy.network,
        node: &proxy.node_name,
        labels: &proxy.profile.labels,
    };
    let own = policy
        .load_balancer
        .as_ref()
        .and_then(|lb| lb.locality_lb_setting.as_ref());
    place.spread(service, own, outlier, mesh)
}

/// Where the one stands who asks.
struct Place<'a> {
    locality: &'a Locality,
    network: &'a str,
    node: &'a str,
    labels: &'a crate::kubernetes::Labels,
}

impl Place<'_> {
    fn spread(
        &self,
        service: &Service,
        policy: Option<&LocalityLoadBalancerSetting>,
        outlier: bool,
        mesh: &Mesh,
    ) -> Spread {
        let chosen = setting(service, policy, mesh).or_else(|| {
            // Nothing said but "on": nearer endpoints come first once failing ones are found out.
            let on = policy.is_none() && mesh.locality_lb_setting.as_ref().is_none_or(enabled);
            on.then(|| (Cow::Owned(LocalityLoadBalancerSetting::default()), false))
        });
        let Some((setting, forced)) = chosen else {
            return Spread::Even;
        };
        if self.locality.is_empty() {
            return Spread::Even;
        }
        if !setting.distribute.is_empty() {
            let mut rules = setting.distribute.iter();
            let rule = rules.find(|d| locality_matches(&d.from, self.locality));
            return rule.map_or(Spread::Even, |rule| {
                Spread::Distribute(
                    rule.to
                        .iter()
                        .map(|(to, percent)| (to.as_str().into(), *percent))
                        .collect(),
                )
            });
        }
        if !(outlier || forced) {
            return Spread::Even;
        }
        let regions = setting
            .failover
            .iter()
            .map(|f| (f.from.as_str().into(), f.to.as_str().into()));
        Spread::Failover(FailoverSpread {
            from: self.locality.clone(),
            labels: setting
                .failover_priority
                .iter()
                .map(|key| self.priority(key))
                .collect(),
            regions: regions.collect(),
        })
    }

    /// The value the proxy has for a priority label; `key=value` gives the value itself.
    fn priority(&self, key: &str) -> (Arc<str>, Arc<str>) {
        if let Some((key, value)) = key.split_once('=') {
            return (key.into(), value.into());
        }
        let value: Arc<str> = match key {
            REGION_KEY => Arc::clone(&self.locality.region),
            ZONE_KEY => Arc::clone(&self.locality.zone),
            SUBZONE_KEY => Arc::clone(&self.locality.sub_zone),
            NETWORK_KEY => self.network.into(),
            HOSTNAME_KEY => self.node.into(),
            key => self
                .labels
                .get(key)
                .map(String::as_str)
                .unwrap_or_default()
                .into(),
        };
        (key.into(), value)
    }
}

/// Whether `region/zone/subzone` with `*` for the rest covers a locality.
#[must_use]
pub fn locality_matches(pattern: &str, locality: &Locality) -> bool {
    let parts = [&*locality.region, &*locality.zone, &*locality.sub_zone];
    for (pattern, part) in pattern.split('/').zip(parts) {
        match pattern {
            "*" => return true,
            pattern if pattern != part => return false,
            _ => {}
        }
    }
    true
}
