//! Field-by-field comparison of resources in JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Without;

/// Differences listed per resource type; one cause often shows everywhere.
const MAX_DIFFERENCES: usize = 40;
/// Characters of a value shown in a difference.
const MAX_SHOWN: usize = 300;

/// Lists without order, and how to find the partner of an element: by these fields, or by the whole value.
const SETS: &[(&str, &[&str])] = &[
    ("domains", &[]),
    ("endpoints", &["locality", "priority"]),
    ("lbEndpoints", &["endpoint"]),
    ("headers", &["name"]),
    ("queryParameters", &["name"]),
    ("virtualHosts", &["name"]),
    ("clusters", &["name"]),
    ("ips", &[]),
    ("matchSubjectAltNames", &[]),
    ("serverNames", &[]),
    ("rules", &[]),
    ("responseHeadersToAdd", &["header"]),
    ("requestHeadersToAdd", &["header"]),
    ("responseHeadersToRemove", &[]),
    ("requestHeadersToRemove", &[]),
    ("prefixRanges", &[]),
];

/// Filters and fields of telemetry.
const TELEMETRY_FILTERS: &[&str] = &[
    "istio.stats",
    "istio.metadata_exchange",
    "envoy.filters.http.grpc_stats",
];
const TELEMETRY_FIELDS: &[&str] = &["tracing", "accessLog", "requestIdExtension"];
/// Fields of mutual TLS.
const MTLS_FIELDS: &[&str] = &[
    "transportSocket",
    "transportSocketMatches",
    "envoy.transport_socket_match",
];
const MTLS_FILTERS: &[&str] = &["istio.alpn"];

/// Where two lists of resources differ.
pub(super) fn resources(type_: &str, recorded: Value, ours: Vec<Value>, without: &[Without]) -> Vec<String> {
    let key = if type_ == "eds" { "clusterName" } else { "name" };
    let index = |list: Vec<Value>| -> BTreeMap<String, Value> {
        list.into_iter()
            .map(|mut resource| {
                strip(&mut resource, without);
                let name = resource
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or("table")
                    .to_owned();
                (name, resource)
            })
            .collect()
    };
    let recorded = index(recorded.as_array().cloned().unwrap_or_default());
    let ours = index(ours);
    let mut differences = Vec::new();
    for (name, resource) in &recorded {
        match ours.get(name) {
            None => differences.push(format!("{name}: missing")),
            Some(own) => values(name, resource, own, &mut differences),
        }
    }
    differences.extend(
        ours.keys()
            .filter(|n| !recorded.contains_key(*n))
            .map(|n| format!("{n}: not recorded")),
    );
    if differences.len() > MAX_DIFFERENCES {
        let rest = differences.len() - MAX_DIFFERENCES;
        differences.truncate(MAX_DIFFERENCES);
        differences.push(format!("and {rest} more"));
    }
    differences
}

/// Removes what is not to be compared, from both sides alike.
fn strip(value: &mut Value, without: &[Without]) {
    let mtls = without.contains(&Without::Mtls);
    let telemetry = without.contains(&Without::Telemetry);
    match value {
        Value::Object(map) => {
            if mtls {
                MTLS_FIELDS.iter().for_each(|f| drop(map.remove(*f)));
            }
            if telemetry {
                TELEMETRY_FIELDS.iter().for_each(|f| drop(map.remove(*f)));
            }
            for (key, value) in map.iter_mut() {
                if let Value::Array(list) = value {
                    list.retain(|element| !left_out(key, element, mtls, telemetry));
                }
                strip(value, without);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| strip(v, without)),
        // 100.0 and 100 are the same number.
        #[allow(clippy::cast_possible_truncation)]
        Value::Number(number) => {
            if let Some(whole) = number
                .as_f64()
                .filter(|n| number.is_f64() && n.fract() == 0.0 && n.abs() < 1e15)
            {
                *number = (whole as i64).into();
            }
        }
        _ => {}
    }
    if let Value::Object(map) = value {
        // A list that held nothing else would differ from one that was never there.
        map.retain(|key, value| {
            let filters = matches!(
                key.as_str(),
                "filters" | "httpFilters" | "listenerFilters" | "accessLog"
            );
            !(filters && value.as_array().is_some_and(Vec::is_empty))
        });
    }
}

fn left_out(list: &str, element: &Value, mtls: bool, telemetry: bool) -> bool {
    let name = element.get("name").and_then(Value::as_str).unwrap_or_default();
    if telemetry && TELEMETRY_FILTERS.contains(&name) || mtls && MTLS_FILTERS.contains(&name) {
        return true;
    }
    // Inbound chains that differ from others by mutual TLS only.
    mtls && list == "filterChains"
        && element
            .pointer("/filterChainMatch/transportProtocol")
            .and_then(Value::as_str)
            == Some("tls")
}

fn values(path: &str, recorded: &Value, ours: &Value, differences: &mut Vec<String>) {
    match (recorded, ours) {
        (Value::Object(recorded), Value::Object(ours)) => objects(path, recorded, ours, differences),
        (Value::Array(recorded), Value::Array(ours)) => lists(path, recorded, ours, differences),
        _ if recorded == ours => {}
        _ => differences.push(format!(
            "{path}: recorded {}, ours {}",
            shown(recorded),
            shown(ours)
        )),
    }
}

fn objects(
    path: &str,
    recorded: &Map<String, Value>,
    ours: &Map<String, Value>,
    differences: &mut Vec<String>,
) {
    for (key, value) in recorded {
        match ours.get(key) {
            Some(own) => values(&format!("{path}.{key}"), value, own, differences),
            None => differences.push(format!("{path}.{key}: recorded {}, ours absent", shown(value))),
        }
    }
    for (key, value) in ours.iter().filter(|(key, _)| !recorded.contains_key(*key)) {
        differences.push(format!("{path}.{key}: recorded absent, ours {}", shown(value)));
    }
}

fn lists(path: &str, recorded: &[Value], ours: &[Value], differences: &mut Vec<String>) {
    let name = path.rsplit('.').next().unwrap_or(path);
    if let Some((_, keys)) = SETS.iter().find(|(set, _)| *set == name) {
        sets(path, keys, recorded, ours, differences);
        return;
    }
    for (index, pair) in recorded.iter().zip(ours).enumerate() {
        values(&format!("{path}[{index}]"), pair.0, pair.1, differences);
    }
    for (index, value) in recorded.iter().enumerate().skip(ours.len()) {
        differences.push(format!("{path}[{index}]: recorded {}, ours absent", shown(value)));
    }
    for (index, value) in ours.iter().enumerate().skip(recorded.len()) {
        differences.push(format!("{path}[{index}]: recorded absent, ours {}", shown(value)));
    }
}

fn sets(path: &str, keys: &[&str], recorded: &[Value], ours: &[Value], differences: &mut Vec<String>) {
    let same = |a: &Value, b: &Value| {
        if keys.is_empty() {
            a == b
        } else {
            keys.iter().all(|key| a.get(key) == b.get(key))
        }
    };
    let mut rest: Vec<&Value> = ours.iter().collect();
    for value in recorded {
        // Of several partners the equal one is the partner.
        let partner = rest
            .iter()
            .position(|own| *own == value)
            .or_else(|| rest.iter().position(|own| same(value, own)));
        match partner {
            Some(position) => {
                let own = rest.swap_remove(position);
                let label = keys
                    .first()
                    .and_then(|k| value.get(k))
                    .map(shown)
                    .unwrap_or_default();
                values(&format!("{path}[{label}]"), value, own, differences);
            }
            None => differences.push(format!("{path}: recorded {}, ours absent", shown(value))),
        }
    }
    differences.extend(
        rest.into_iter()
            .map(|own| format!("{path}: recorded absent, ours {}", shown(own))),
    );
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    format!("{}…", text.chars().take(MAX_SHOWN).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_counts_only_where_it_has_meaning() {
        let recorded =
            json!([{"name": "r", "domains": ["a", "b"], "routes": [{"name": "1"}, {"name": "2"}]}]);
        let domains = json!({"name": "r", "domains": ["b", "a"], "routes": [{"name": "1"}, {"name": "2"}]});
        assert_eq!(
            resources("rds", recorded.clone(), vec![domains], &[]),
            Vec::<String>::new()
        );
        let routes = json!({"name": "r", "domains": ["a", "b"], "routes": [{"name": "2"}, {"name": "1"}]});
        assert_eq!(
            resources("rds", recorded, vec![routes], &[]),
            [
                "r.routes[0].name: recorded \"1\", ours \"2\"",
                "r.routes[1].name: recorded \"2\", ours \"1\""
            ]
        );
    }

    #[test]
    fn missing_and_surplus_resources_are_differences() {
        let recorded = json!([{"name": "a"}]);
        assert_eq!(
            resources("cds", recorded, vec![json!({"name": "b"})], &[]),
            ["a: missing", "b: not recorded"]
        );
    }
}
