//! ClusterLoadAssignments (EDS, and the inline ones of DNS clusters).

use std::collections::BTreeMap;

use api_envoy::envoy::config::core::v3::{self as core, HealthStatus, Metadata};
use api_envoy::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
    lb_endpoint::HostIdentifier,
};
use api_envoy::wkt;
use control_snapshot::spread::{
    HOSTNAME_KEY, NETWORK_KEY, REGION_KEY, SUBZONE_KEY, ZONE_KEY, locality_matches,
};
use control_snapshot::{
    Address, Endpoint, EndpointView, FailoverSpread, Health, Locality, Spread, Workload, canonical_name,
    canonical_revision,
};
use serde_json::json;

use crate::extension::socket_address;

/// The load assignment of a view: endpoints grouped by locality and priority, sorted.
pub(crate) fn build(view: &EndpointView) -> ClusterLoadAssignment {
    // Sorted as Istio does: by `region/zone/subzone` as text, the unknown locality first.
    let mut groups: BTreeMap<(String, u32), Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in &view.endpoints {
        let priority = match &view.spread {
            Spread::Failover(failover) => distance(failover, &endpoint.workload),
            Spread::Even | Spread::Distribute(_) => 0,
        };
        groups
            .entry((endpoint.workload.locality.to_string(), priority))
            .or_default()
            .push(endpoint);
    }
    let used: std::collections::BTreeSet<u32> = groups.keys().map(|(_, priority)| *priority).collect();
    // Envoy wants priorities without gaps.
    let rank = |priority: u32| {
        u32::try_from(used.iter().position(|p| *p == priority).unwrap_or_default()).unwrap_or(0)
    };
    let mut localities: Vec<LocalityLbEndpoints> = groups
        .into_iter()
        .map(|((_, priority), list)| group(view, &list, rank(priority)))
        .collect();
    if let Spread::Distribute(shares) = &view.spread {
        distribute(&mut localities, shares);
    }
    ClusterLoadAssignment {
        cluster_name: view.cluster.to_string(),
        endpoints: localities,
        ..ClusterLoadAssignment::default()
    }
}

fn group(view: &EndpointView, endpoints: &[&Endpoint], priority: u32) -> LocalityLbEndpoints {
    let locality = endpoints.first().map(|e| &e.workload.locality);
    let weight = endpoints.iter().fold(0u32, |sum, e| sum.saturating_add(e.weight));
    LocalityLbEndpoints {
        locality: locality.map(|l| core::Locality {
            region: l.region.to_string(),
            zone: l.zone.to_string(),
            sub_zone: l.sub_zone.to_string(),
        }),
        lb_endpoints: endpoints
            .iter()
            .map(|e| lb_endpoint(e, view.mutual_tls))
            .collect(),
        load_balancing_weight: Some(weight),
        priority,
        ..LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(endpoint: &Endpoint, mutual_tls: bool) -> LbEndpoint {
    let address = match &endpoint.address {
        Address::Socket(host, port) => socket_address(host, *port),
        Address::Pipe(path) => core::Address {
            address: Some(core::address::Address::Pipe(core::Pipe {
                path: path.to_string(),
                mode: 0,
            })),
        },
    };
    let health = match endpoint.health {
        Health::Unknown => HealthStatus::Unknown,
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    LbEndpoint {
        health_status: health.into(),
        metadata: Some(metadata(&endpoint.workload, mutual_tls && endpoint.mutual_tls)),
        load_balancing_weight: Some(endpoint.weight),
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(address),
            ..EnvoyEndpoint::default()
        })),
    }
}

/// Whether the endpoint takes mutual TLS, and who it is: `name;namespace;canonical name;revision;cluster`.
fn metadata(workload: &Workload, mutual_tls: bool) -> Metadata {
    let revision = Some(canonical_revision(&workload.labels))
        .filter(|r| *r != "latest")
        .unwrap_or_default();
    let canonical = canonical_name(&workload.labels, &workload.name);
    let text = format!(
        "{};{};{canonical};{revision};{}",
        workload.name, workload.namespace, workload.cluster
    );
    let mut filter_metadata: BTreeMap<_, _> =
        [("istio".to_owned(), wkt::structure(&json!({"workload": text})))].into();
    if mutual_tls {
        let socket = wkt::structure(&json!({"tlsMode": "istio"}));
        filter_metadata.insert("envoy.transport_socket_match".to_owned(), socket);
    }
    Metadata {
        filter_metadata,
        ..Metadata::default()
    }
}

/// How far a workload is, 0 being nearest.
fn distance(failover: &FailoverSpread, workload: &Workload) -> u32 {
    if !failover.labels.is_empty() {
        let mut agreeing = 0;
        for (key, value) in &failover.labels {
            if *place_label(workload, key) != **value {
                break;
            }
            agreeing += 1;
        }
        return u32::try_from(failover.labels.len() - agreeing).unwrap_or(u32::MAX);
    }
    let (from, to) = (&failover.from, &workload.locality);
    if from.region == to.region && from.zone == to.zone && from.sub_zone == to.sub_zone {
        0
    } else if from.region == to.region && from.zone == to.zone {
        1
    } else if from.region == to.region {
        2
    } else {
        let chosen = failover.regions.iter().find(|(region, _)| *region == from.region);
        match chosen {
            Some((_, region)) if *region == to.region => 3,
            Some(_) => 4,
            None => 3,
        }
    }
}

/// The value of a failover priority's label; some keys stand for the workload's place.
fn place_label<'a>(workload: &'a Workload, key: &str) -> &'a str {
    match key {
        REGION_KEY => &workload.locality.region,
        ZONE_KEY => &workload.locality.zone,
        SUBZONE_KEY => &workload.locality.sub_zone,
        NETWORK_KEY => &workload.network,
        HOSTNAME_KEY => &workload.node,
        key => workload.labels.get(key).map(String::as_str).unwrap_or_default(),
    }
}

/// Sets weights of localities so that each share gets its percentage; localities without a share lose their endpoints.
fn distribute(localities: &mut [LocalityLbEndpoints], shares: &[(std::sync::Arc<str>, u32)]) {
    let place = |l: &LocalityLbEndpoints| {
        let l = l.locality.clone().unwrap_or_default();
        Locality {
            region: l.region.into(),
            zone: l.zone.into(),
            sub_zone: l.sub_zone.into(),
        }
    };
    let mut assigned = vec![false; localities.len()];
    for (pattern, percent) in shares {
        let members: Vec<usize> = (0..localities.len())
            .filter(|i| !assigned[*i] && locality_matches(pattern, &place(&localities[*i])))
            .collect();
        let total: u64 = members
            .iter()
            .map(|i| u64::from(localities[*i].load_balancing_weight.unwrap_or(0)))
            .sum();
        for index in members {
            assigned[index] = true;
            let weight = u64::from(localities[index].load_balancing_weight.unwrap_or(0));
            let scaled = (weight * u64::from(*percent)).div_ceil(total.max(1));
            localities[index].load_balancing_weight = Some(u32::try_from(scaled).unwrap_or(u32::MAX));
        }
    }
    for (index, locality) in localities.iter_mut().enumerate() {
        if !assigned[index] {
            locality.lb_endpoints.clear();
        }
    }
}
