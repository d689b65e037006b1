//! `/config_dump` with `resource`, `mask`, `name_regex` and `include_eds` (`envoy.admin.v3.ConfigDump`).

use std::time::{SystemTime, UNIX_EPOCH};

use api_envoy::any::pack;
use api_envoy::envoy::admin::v3::{
    BootstrapConfigDump, ClustersConfigDump, EndpointsConfigDump, ListenersConfigDump, RoutesConfigDump,
    ScopedRoutesConfigDump, SecretsConfigDump, UpdateFailureState, clusters_config_dump as cds,
    endpoints_config_dump as eds, listeners_config_dump as lds, routes_config_dump as rds,
    secrets_config_dump as sds,
};
use api_envoy::json::{Schema, Style};
use api_envoy::{Any, Timestamp};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::redaction::redact;
use super::reply::{Query, Reply, pretty};
use super::source::{AdminSource, DumpEntry, Phase, Refusal};

/// Renders the dump.
#[must_use]
pub fn config_dump(source: &dyn AdminSource, query: &Query) -> Reply {
    let name_regex = match query
        .get("name_regex")
        .filter(|r| !r.is_empty())
        .map(|r| Regex::new(&format!("^(?:{r})$")))
    {
        None => None,
        Some(Ok(regex)) => Some(regex),
        Some(Err(error)) => return Reply::error(400, format!("Error while parsing name_regex: {error}\n")),
    };
    let parts = parts(source, name_regex.as_ref(), query.has("include_eds"));
    let schema = Schema::get();
    let printed: Result<Vec<Value>, _> = parts
        .iter()
        .map(|any| schema.print_any(any, Style::Envoy))
        .collect();
    let mut configs = match printed {
        Ok(configs) => configs,
        Err(error) => return Reply::error(500, format!("{error}\n")),
    };
    configs.iter_mut().for_each(redact);
    if let Some(resource) = query.get("resource").filter(|r| !r.is_empty()) {
        match field_of(&configs, resource) {
            Some(entries) => configs = entries,
            None => return Reply::error(404, format!("{resource} not found in config dump")),
        }
    }
    if let Some(mask) = query.get("mask").filter(|m| !m.is_empty()) {
        configs = configs
            .iter()
            .map(|config| masked(config, mask))
            .filter(has_content)
            .collect();
    }
    Reply::json(pretty(&json!({ "configs": configs })))
}

/// The parts of the dump in Envoy's order.
fn parts(source: &dyn AdminSource, names: Option<&Regex>, include_eds: bool) -> Vec<Any> {
    let config = source.config();
    let keep = |entries: Vec<DumpEntry>| -> Vec<DumpEntry> {
        entries
            .into_iter()
            .filter(|e| names.is_none_or(|n| n.is_match(&e.name)))
            .collect()
    };
    let bootstrap = BootstrapConfigDump {
        bootstrap: Some(source.bootstrap()),
        last_updated: Some(timestamp(source.started_at())),
    };
    let mut parts = vec![pack(&bootstrap), pack(&clusters(keep(config.clusters)))];
    if include_eds {
        parts.push(pack(&endpoints(keep(config.endpoints))));
    }
    parts.push(pack(&listeners(keep(config.listeners))));
    parts.push(pack(&ScopedRoutesConfigDump::default()));
    parts.push(pack(&routes(keep(config.routes))));
    parts.push(pack(&secrets(keep(config.secrets))));
    parts
}

fn clusters(entries: Vec<DumpEntry>) -> ClustersConfigDump {
    let mut dump = ClustersConfigDump {
        version_info: version(&entries),
        ..ClustersConfigDump::default()
    };
    for entry in entries {
        let last_updated = Some(timestamp(entry.last_updated));
        if entry.phase == Phase::Static {
            dump.static_clusters.push(cds::StaticCluster {
                cluster: entry.resource,
                last_updated,
            });
            continue;
        }
        let dynamic = cds::DynamicCluster {
            version_info: entry.version,
            cluster: entry.resource,
            last_updated,
            error_state: entry.error.map(failure),
            ..cds::DynamicCluster::default()
        };
        match entry.phase {
            Phase::Warming => dump.dynamic_warming_clusters.push(dynamic),
            _ => dump.dynamic_active_clusters.push(dynamic),
        }
    }
    dump
}

fn listeners(entries: Vec<DumpEntry>) -> ListenersConfigDump {
    let mut dump = ListenersConfigDump {
        version_info: version(&entries),
        ..ListenersConfigDump::default()
    };
    for entry in entries {
        let last_updated = Some(timestamp(entry.last_updated));
        if entry.phase == Phase::Static {
            dump.static_listeners.push(lds::StaticListener {
                listener: entry.resource,
                last_updated,
            });
            continue;
        }
        // One entry for all versions of a listener.
        let known = dump.dynamic_listeners.iter().position(|l| l.name == entry.name);
        let at = known.unwrap_or_else(|| {
            dump.dynamic_listeners.push(lds::DynamicListener {
                name: entry.name,
                ..lds::DynamicListener::default()
            });
            dump.dynamic_listeners.len() - 1
        });
        let dynamic = &mut dump.dynamic_listeners[at];
        if let Some(refusal) = entry.error {
            dynamic.error_state = Some(failure(refusal));
        }
        let state = entry.resource.map(|listener| lds::DynamicListenerState {
            version_info: entry.version,
            listener: Some(listener),
            last_updated,
        });
        match entry.phase {
            Phase::Static | Phase::Active => dynamic.active_state = state,
            Phase::Warming => dynamic.warming_state = state,
            Phase::Draining => dynamic.draining_state = state,
            Phase::Refused => {}
        }
    }
    dump
}

fn routes(entries: Vec<DumpEntry>) -> RoutesConfigDump {
    let mut dump = RoutesConfigDump::default();
    for entry in entries {
        let last_updated = Some(timestamp(entry.last_updated));
        if entry.phase == Phase::Static {
            dump.static_route_configs.push(rds::StaticRouteConfig {
                route_config: entry.resource,
                last_updated,
            });
            continue;
        }
        dump.dynamic_route_configs.push(rds::DynamicRouteConfig {
            version_info: entry.version,
            route_config: entry.resource,
            last_updated,
            error_state: entry.error.map(failure),
            ..rds::DynamicRouteConfig::default()
        });
    }
    dump
}

fn endpoints(entries: Vec<DumpEntry>) -> EndpointsConfigDump {
    let mut dump = EndpointsConfigDump::default();
    for entry in entries {
        let last_updated = Some(timestamp(entry.last_updated));
        if entry.phase == Phase::Static {
            let config = eds::StaticEndpointConfig {
                endpoint_config: entry.resource,
                last_updated,
            };
            dump.static_endpoint_configs.push(config);
            continue;
        }
        dump.dynamic_endpoint_configs.push(eds::DynamicEndpointConfig {
            version_info: entry.version,
            endpoint_config: entry.resource,
            last_updated,
            error_state: entry.error.map(failure),
            ..eds::DynamicEndpointConfig::default()
        });
    }
    dump
}

fn secrets(entries: Vec<DumpEntry>) -> SecretsConfigDump {
    let mut dump = SecretsConfigDump::default();
    for entry in entries {
        let last_updated = Some(timestamp(entry.last_updated));
        if entry.phase == Phase::Static {
            dump.static_secrets.push(sds::StaticSecret {
                name: entry.name,
                last_updated,
                secret: entry.resource,
            });
            continue;
        }
        let dynamic = sds::DynamicSecret {
            name: entry.name,
            version_info: entry.version,
            last_updated,
            secret: entry.resource,
            error_state: entry.error.map(failure),
            ..sds::DynamicSecret::default()
        };
        match entry.phase {
            Phase::Warming => dump.dynamic_warming_secrets.push(dynamic),
            _ => dump.dynamic_active_secrets.push(dynamic),
        }
    }
    dump
}

/// The version of the newest dynamic resource, as Envoy shows one for the whole type.
fn version(entries: &[DumpEntry]) -> String {
    let dynamic = entries
        .iter()
        .filter(|e| ![Phase::Static, Phase::Refused].contains(&e.phase));
    dynamic
        .max_by_key(|e| e.last_updated)
        .map(|e| e.version.clone())
        .unwrap_or_default()
}

/// Envoy fills this in for listeners, without the version; for other resources its API has the place, and Envoy is silent.
fn failure(refusal: Refusal) -> UpdateFailureState {
    UpdateFailureState {
        failed_configuration: refusal.resource,
        last_update_attempt: Some(timestamp(refusal.at)),
        details: refusal.details,
        version_info: refusal.version,
    }
}

/// Milliseconds are enough, as in Envoy.
fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = since.subsec_millis();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis * 1_000_000).unwrap_or(0),
    }
}

/// The entries of a repeated field of any part, each with the type of its message.
fn field_of(configs: &[Value], field: &str) -> Option<Vec<Value>> {
    const FIELDS: &[(&str, &str)] = &[
        ("static_clusters", "ClustersConfigDump.StaticCluster"),
        ("dynamic_active_clusters", "ClustersConfigDump.DynamicCluster"),
        ("dynamic_warming_clusters", "ClustersConfigDump.DynamicCluster"),
        ("static_listeners", "ListenersConfigDump.StaticListener"),
        ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
        ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
        ("dynamic_route_configs", "RoutesConfigDump.DynamicRouteConfig"),
        (
            "static_endpoint_configs",
            "EndpointsConfigDump.StaticEndpointConfig",
        ),
        (
            "dynamic_endpoint_configs",
            "EndpointsConfigDump.DynamicEndpointConfig",
        ),
        ("static_secrets", "SecretsConfigDump.StaticSecret"),
        ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
        ("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret"),
    ];
    let (_, message) = FIELDS.iter().find(|(name, _)| *name == field)?;
    let entries = configs.iter().filter_map(|c| c.get(field)?.as_array()).flatten();
    let typed = entries.map(|entry| {
        let mut map = Map::new();
        map.insert(
            "@type".to_owned(),
            format!("type.googleapis.com/envoy.admin.v3.{message}").into(),
        );
        map.extend(
            entry
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        Value::Object(map)
    });
    Some(typed.collect())
}

/// A field mask (`a.b,c`) applied to JSON; `@type` always stays.
fn masked(value: &Value, mask: &str) -> Value {
    let Some(object) = value.as_object() else {
        return value.clone();
    };
    let mut out = Map::new();
    if let Some(kind) = object.get("@type") {
        out.insert("@type".to_owned(), kind.clone());
    }
    for path in mask.split(',') {
        let (head, tail) = path.split_once('.').map_or((path, None), |(h, t)| (h, Some(t)));
        if let Some(field) = object.get(head) {
            let kept = match (tail, field) {
                (None, field) => field.clone(),
                (Some(tail), Value::Array(items)) => items.iter().map(|i| masked(i, tail)).collect(),
                (Some(tail), field) => masked(field, tail),
            };
            out.insert(head.to_owned(), kept);
        }
    }
    Value::Object(out)
}

fn has_content(value: &Value) -> bool {
    value.as_object().is_none_or(|o| o.keys().any(|k| k != "@type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_keeps_the_type_and_what_it_names() {
        let value = json!({ "@type": "t", "a": [{ "b": 1, "c": 2 }], "d": 3 });
        assert_eq!(masked(&value, "a.b"), json!({ "@type": "t", "a": [{ "b": 1 }] }));
        assert!(!has_content(&masked(&value, "x")));
    }

    #[test]
    fn versions_of_one_listener_are_one_entry() {
        let entry = |phase, version: &str| DumpEntry {
            name: "a".to_owned(),
            phase,
            version: version.to_owned(),
            resource: Some(Any::default()),
            last_updated: UNIX_EPOCH,
            error: None,
        };
        let dump = listeners(vec![
            entry(Phase::Active, "2"),
            entry(Phase::Warming, "3"),
            entry(Phase::Draining, "1"),
        ]);
        let [dynamic] = &*dump.dynamic_listeners else {
            panic!("{dump:?}")
        };
        let version =
            |state: &Option<lds::DynamicListenerState>| state.as_ref().unwrap().version_info.clone();
        assert_eq!(
            [
                &dynamic.active_state,
                &dynamic.warming_state,
                &dynamic.draining_state
            ]
            .map(version),
            ["2", "3", "1"]
        );
    }

    #[test]
    fn a_refused_update_is_shown_beside_the_one_in_force() {
        let entry = DumpEntry {
            name: "a".to_owned(),
            phase: Phase::Active,
            version: "7".to_owned(),
            resource: None,
            last_updated: UNIX_EPOCH,
            error: Some(Refusal {
                resource: None,
                version: "8".to_owned(),
                details: "x: no".to_owned(),
                at: UNIX_EPOCH,
            }),
        };
        let dump = clusters(vec![entry]);
        let dynamic = &dump.dynamic_active_clusters[0];
        assert_eq!(dynamic.error_state.as_ref().unwrap().details, "x: no");
    }

    #[test]
    fn a_listener_that_was_never_taken_is_shown_with_its_refusal_alone() {
        let refused = DumpEntry {
            name: "a".to_owned(),
            phase: Phase::Refused,
            version: String::new(),
            resource: None,
            last_updated: UNIX_EPOCH,
            error: Some(Refusal {
                resource: Some(Any::default()),
                version: "8".to_owned(),
                details: "x: no".to_owned(),
                at: UNIX_EPOCH,
            }),
        };
        let dump = listeners(vec![refused]);
        assert_eq!(
            dump.version_info, "",
            "what was refused is not the version in force"
        );
        let [dynamic] = &*dump.dynamic_listeners else {
            panic!("{dump:?}")
        };
        assert_eq!(dynamic.name, "a");
        assert!(dynamic.active_state.is_none() && dynamic.warming_state.is_none());
        let error = dynamic.error_state.as_ref().unwrap();
        assert!(error.failed_configuration.is_some() && error.last_update_attempt.is_some());
        assert_eq!((&*error.details, &*error.version_info), ("x: no", "8"));
    }
}
