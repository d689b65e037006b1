//! Sizes of hash tables in DestinationRules that no proxy takes. A proxy refuses the cluster for one, which would be lost
//! with it; so such a size is left out, and the default holds.

use api_istio::networking::{ConsistentHashLb, DestinationRule, LoadBalancerSettings, TrafficPolicy};
use diagnostics::{Code, Diagnostic, ResourceRef};

use crate::limits::{MAX_MAGLEV_TABLE_SIZE, MAX_RING_SIZE};

/// Leaves sizes out of `spec`, and says so.
pub(crate) fn keep_servable(
    spec: &mut DestinationRule,
    resource: &ResourceRef,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut check = |path: String, settings: Option<&mut LoadBalancerSettings>| {
        let hash = settings.and_then(|settings| settings.consistent_hash.as_mut());
        for (field, message) in hash.into_iter().flat_map(leave_out) {
            diagnostics.push(
                Diagnostic::new(Code::SchemaValidationError, resource.clone(), message)
                    .at(format!("{path}.loadBalancer.consistentHash.{field}"))
                    .hint("the default is used instead"),
            );
        }
    };
    let subsets = spec.subsets.iter_mut().enumerate();
    let policies: Vec<(String, &mut TrafficPolicy)> = subsets
        .filter_map(|(index, subset)| {
            let policy = subset.traffic_policy.as_mut()?;
            Some((format!("spec.subsets[{index}].trafficPolicy"), policy))
        })
        .chain(
            spec.traffic_policy
                .as_mut()
                .map(|policy| ("spec.trafficPolicy".to_owned(), policy)),
        )
        .collect();
    for (path, policy) in policies {
        for (index, port) in policy.port_level_settings.iter_mut().enumerate() {
            check(
                format!("{path}.portLevelSettings[{index}]"),
                port.load_balancer.as_mut(),
            );
        }
        check(path, policy.load_balancer.as_mut());
    }
}

/// The fields that were left out, and why.
fn leave_out(hash: &mut ConsistentHashLb) -> Vec<(&'static str, String)> {
    let mut left_out = Vec::new();
    let mut keep = |field, size: &mut u64, refusal: Option<String>| {
        if let Some(refusal) = refusal {
            *size = 0;
            left_out.push((field, refusal));
        }
    };
    if let Some(maglev) = &mut hash.maglev {
        let refusal = maglev_refusal(maglev.table_size);
        keep("maglev.tableSize", &mut maglev.table_size, refusal);
    }
    if let Some(ring) = &mut hash.ring_hash {
        let refusal = ring_refusal(ring.minimum_ring_size);
        keep("ringHash.minimumRingSize", &mut ring.minimum_ring_size, refusal);
    }
    let refusal = ring_refusal(hash.minimum_ring_size);
    keep("minimumRingSize", &mut hash.minimum_ring_size, refusal);
    left_out
}

/// Why a table cannot have this size; 0 is the default.
fn maglev_refusal(size: u64) -> Option<String> {
    if size > MAX_MAGLEV_TABLE_SIZE {
        return Some(format!(
            "{size} entries are more than the {MAX_MAGLEV_TABLE_SIZE} that a table may have"
        ));
    }
    let is_prime = size >= 2
        && (2..)
            .take_while(|d| d * d <= size)
            .all(|d| !size.is_multiple_of(d));
    (size != 0 && !is_prime).then(|| format!("{size} is no prime number, which the size of a table must be"))
}

fn ring_refusal(size: u64) -> Option<String> {
    (size > MAX_RING_SIZE)
        .then(|| format!("{size} points are more than the {MAX_RING_SIZE} that a ring may have"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(spec: serde_json::Value) -> (DestinationRule, Vec<String>) {
        let mut spec: DestinationRule = serde_json::from_value(spec).unwrap();
        let mut diagnostics = Vec::new();
        let resource = ResourceRef::new("DestinationRule", "default", "a");
        keep_servable(&mut spec, &resource, &mut diagnostics);
        let fields = diagnostics.iter().map(|d| d.field.clone());
        (spec, fields.collect())
    }

    #[test]
    fn a_size_that_no_proxy_takes_is_left_out_wherever_it_stands() {
        let hash = |hash: serde_json::Value| json!({"consistentHash": hash});
        let (spec, fields) = checked(json!({
            "host": "a",
            "trafficPolicy": {
                "loadBalancer": hash(json!({"useSourceIp": true, "maglev": {"tableSize": 1000}})),
                "portLevelSettings": [
                    {"port": {"number": 80}, "loadBalancer": hash(json!({"maglev": {"tableSize": 5_000_077}}))},
                    {"port": {"number": 81}, "loadBalancer": hash(json!({"maglev": {"tableSize": 5_000_011}}))},
                ],
            },
            "subsets": [{"name": "v1", "trafficPolicy": {
                "loadBalancer": hash(json!({"ringHash": {"minimumRingSize": 9_000_000}, "minimumRingSize": 9_000_000})),
            }}],
        }));
        assert_eq!(
            fields,
            [
                "spec.subsets[0].trafficPolicy.loadBalancer.consistentHash.ringHash.minimumRingSize",
                "spec.subsets[0].trafficPolicy.loadBalancer.consistentHash.minimumRingSize",
                "spec.trafficPolicy.portLevelSettings[0].loadBalancer.consistentHash.maglev.tableSize",
                "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
            ]
        );
        let policy = spec.traffic_policy.unwrap();
        let size = |settings: &Option<LoadBalancerSettings>| {
            let hash = settings.as_ref()?.consistent_hash.as_ref()?;
            Some(hash.maglev.as_ref()?.table_size)
        };
        assert_eq!(size(&policy.load_balancer), Some(0));
        let ports = policy
            .port_level_settings
            .iter()
            .map(|port| size(&port.load_balancer));
        assert_eq!(ports.collect::<Vec<_>>(), [Some(0), Some(5_000_011)]);
    }

    #[test]
    fn sizes_that_proxies_take_are_kept() {
        for size in [0, 2, 3, 65_537, MAX_MAGLEV_TABLE_SIZE] {
            assert_eq!(maglev_refusal(size), None, "{size}");
        }
        for size in [1, 4, 65_535, MAX_MAGLEV_TABLE_SIZE + 1] {
            assert!(maglev_refusal(size).is_some(), "{size}");
        }
        assert_eq!((ring_refusal(MAX_RING_SIZE), ring_refusal(0)), (None, None));
    }
}
