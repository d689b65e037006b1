//! Every cluster, endpoint assignment, listener and route configuration that a real istiod generated is accepted.
//!
//! Left out are the filters of ambient mode's metadata exchange on connections, which our proxy does not have. Nobody
//! gives out secrets here, and nobody waits for them.

#[path = "../../proxy-router/tests/recordings/mod.rs"]
mod recordings;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::json::Schema;
use proxy_config::LocalNode;
use proxy_config::state::{ConfigState, Source, Waiting};
use proxy_core::ConfigResult;
use proxy_observe::LogFiles;
use proxy_server::http::HttpConfig;
use proxy_upstream::secrets::Sources;
use recordings::SCENARIOS;
use serde_json::Value;
use telemetry::stats::Registry;

/// The network filter and its upstream half that find out about peers in ambient mode.
const LEFT_OUT: &str = "envoy.extensions.network_filters.peer_metadata.";

/// Takes what is left out of every filter list.
fn strip(value: &mut Value) {
    let is_left_out = |filter: &Value| {
        let typed = &filter["typedConfig"];
        let urls = [&typed["typeUrl"], &typed["@type"]];
        urls.iter()
            .any(|url| url.as_str().is_some_and(|url| url.contains(LEFT_OUT)))
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if let Value::Array(filters) = field
                    && name == "filters"
                {
                    filters.retain(|filter| !is_left_out(filter));
                }
                strip(field);
            }
        }
        _ => {}
    }
}

fn resources(schema: &Schema, file: &Path) -> Vec<(String, Source)> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|_| "[]".to_owned());
    let mut list: Value = serde_json::from_str(&text).unwrap();
    strip(&mut list);
    let name = |json: &Value| {
        json["name"]
            .as_str()
            .or(json["clusterName"].as_str())
            .unwrap_or("?")
            .to_owned()
    };
    let source = |json: &Value| Source {
        resource: Arc::new(schema.parse_any(json).unwrap()),
        version: "1".into(),
        last_updated: SystemTime::UNIX_EPOCH,
    };
    list.as_array()
        .unwrap()
        .iter()
        .map(|json| (name(json), source(json)))
        .collect()
}

fn put_listener(state: &mut ConfigState<Arc<HttpConfig>>, source: Source) -> ConfigResult<()> {
    state.update_listener(
        source,
        &mut |proto, context| HttpConfig::compile(proto, context).map(Arc::new),
        &mut |_| Ok(()),
    )
}

/// Nobody gives out secrets here, so that nobody waits for them.
fn go_on_without_secrets(state: &mut ConfigState<Arc<HttpConfig>>) {
    let keys: Vec<_> = state.secrets().keys().cloned().collect();
    for key in keys {
        state.timed_out(&Waiting::Secret(key));
    }
}

#[test]
fn what_a_real_istiod_sends_is_accepted() {
    let Some(dir) = recordings::folder("what_a_real_istiod_sends_is_accepted") else {
        return;
    };
    let schema = Schema::get();
    let files = Arc::new(LogFiles::start(Duration::from_secs(1)).unwrap());
    let mut refused = Vec::new();
    let mut accepted = 0;
    for scenario in SCENARIOS {
        let proxies = std::fs::read_dir(dir.join(scenario))
            .unwrap()
            .filter_map(Result::ok);
        for proxy in proxies.filter(|entry| entry.path().is_dir()) {
            let mut state = ConfigState::new(Registry::new(), LocalNode::default(), Arc::clone(&files));
            let mut put = |file: &str, put: &mut dyn FnMut(Source) -> ConfigResult<()>| {
                for (name, source) in resources(&schema, &proxy.path().join(file)) {
                    match put(source) {
                        Ok(()) => accepted += 1,
                        Err(error) => {
                            let proxy = proxy.file_name().into_string().unwrap();
                            refused.push(format!("{scenario}/{proxy}/{file} {name}: {error}"));
                        }
                    }
                }
            };
            state.set_secret_sources(Sources {
                ads: true,
                clusters: ["sds-grpc".into()].into(),
            });
            put("cds.json", &mut |source| state.update_cluster(source));
            put("eds.json", &mut |source| state.update_endpoints(source));
            put("lds.json", &mut |source| put_listener(&mut state, source));
            put("rds.json", &mut |source| state.update_routes(source));
            go_on_without_secrets(&mut state);
            let cold: Vec<_> = state
                .clusters()
                .iter()
                .filter(|(_, c)| c.active.is_none())
                .map(|(n, _)| n)
                .collect();
            let by_name = |name: &&&Arc<str>| !is_resolved_by_name(&state, name);
            let cold: Vec<_> = cold.iter().filter(by_name).collect();
            assert!(cold.is_empty(), "{scenario}: still warming: {cold:?}");
        }
    }
    assert!(
        refused.is_empty(),
        "{} of {} refused:\n{}",
        refused.len(),
        accepted + refused.len(),
        refused.join("\n")
    );
    assert!(accepted > 1000, "only {accepted} resources were found");
}

/// Clusters that wait for DNS, which does not run here.
fn is_resolved_by_name(state: &ConfigState<Arc<HttpConfig>>, name: &str) -> bool {
    use proxy_upstream::config::Discovery;
    let warming = state.clusters()[name].warming.as_ref();
    warming.is_some_and(|v| {
        matches!(
            v.config.discovery,
            Discovery::StrictDns(_) | Discovery::LogicalDns(_)
        )
    })
}
