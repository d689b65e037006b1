//! Fields of Istio's kinds that are accepted, as the API has them, and change nothing here. Whoever sets one is told.

use serde_json::Value;

use crate::kind::Kind;

/// Kind and field. The field may stand anywhere in the spec: policies have several places.
const FIELDS: [(Kind, &str); 6] = [
    (Kind::DestinationRule, "backendUtilization"),
    (Kind::DestinationRule, "outlierDetectionHttpErrorCodes"),
    (Kind::DestinationRule, "zoneAwareLbSetting"),
    (Kind::VirtualService, "exponentialDelay"),
    (Kind::VirtualService, "http2Error"),
    (Kind::VirtualService, "sourceSubnet"),
];

/// The paths of such fields that a spec sets.
pub(crate) fn paths(kind: Kind, spec: &Value) -> Vec<String> {
    let fields: Vec<&str> = FIELDS
        .iter()
        .filter(|(of, _)| *of == kind)
        .map(|(_, field)| *field)
        .collect();
    let mut found = Vec::new();
    if !fields.is_empty() {
        walk(&fields, spec, "spec", &mut found);
    }
    found
}

fn walk(fields: &[&str], value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                if fields.contains(&key.as_str()) && is_set(value) {
                    found.push(path);
                } else {
                    walk(fields, value, &path, found);
                }
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                walk(fields, value, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// Absent, `null` and empty mean the same in protobuf's JSON.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_is_found_wherever_it_stands_and_only_when_it_is_set() {
        let spec =
            json!({"tcp": [{"match": [{"sourceSubnet": ""}, {"sourceSubnet": "10.0.0.0/8", "port": 1}]}]});
        assert_eq!(
            paths(Kind::VirtualService, &spec),
            ["spec.tcp[0].match[1].sourceSubnet"]
        );
        assert_eq!(paths(Kind::DestinationRule, &spec), Vec::<String>::new());
        let policy = json!({"loadBalancer": {"zoneAwareLbSetting": {}}});
        let spec = json!({"host": "a", "subsets": [{"name": "v1", "trafficPolicy": policy}]});
        assert_eq!(
            paths(Kind::DestinationRule, &spec),
            ["spec.subsets[0].trafficPolicy.loadBalancer.zoneAwareLbSetting"]
        );
    }
}
