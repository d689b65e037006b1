//! What a real istiod sends must be accepted: the recordings of the scenarios that this proxy serves today, and what
//! requests meet there.

mod recordings;

use std::path::Path;

use api_envoy::envoy::config::route::v3::RouteConfiguration;
use api_envoy::json::Schema;
use proxy_core::{ClusterSlot, ConfigError, ConfigResult};
use proxy_http::{HeaderName, RequestHead};
use proxy_router::{Action, ClusterRef, FilterConfig, RouteContext, RouteResult, RouteTable};
use recordings::SCENARIOS;

struct NoFilters;

impl RouteContext for NoFilters {
    fn cluster(&mut self, _: &str) -> ClusterSlot {
        ClusterSlot(0)
    }

    fn filter_config(&mut self, filter: &str, _: &api_envoy::Any) -> ConfigResult<FilterConfig> {
        Err(ConfigError::new(format!("no filter {filter}")))
    }
}

fn tables(folder: &Path) -> Vec<RouteTable> {
    let text = std::fs::read_to_string(folder.join("rds.json")).unwrap();
    let resources: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let schema = Schema::get();
    let compile = |mut resource: serde_json::Value| {
        resource.as_object_mut().unwrap().remove("@type");
        let proto: RouteConfiguration = schema.parse(&resource).unwrap();
        let table = RouteTable::compile(&proto, &mut NoFilters);
        table.unwrap_or_else(|e| panic!("{}: {}: {e}", folder.display(), proto.name))
    };
    resources.into_iter().map(compile).collect()
}

#[test]
fn every_recorded_route_configuration_is_accepted() {
    let Some(root) = recordings::folder("every_recorded_route_configuration_is_accepted") else {
        return;
    };
    let mut routes = 0;
    for scenario in SCENARIOS {
        for proxy in std::fs::read_dir(root.join(scenario))
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if proxy.join("rds.json").is_file() {
                let tables = tables(&proxy);
                routes += tables
                    .iter()
                    .flat_map(|t| t.virtual_hosts())
                    .map(|v| v.routes().len())
                    .sum::<usize>();
            }
        }
    }
    assert!(routes > 200, "{routes}");
}

/// The cluster that a GET request to productpage's table of port 80 is sent to.
fn cluster(table: &RouteTable, authority: &str, path: &str, fields: &[(&str, &str)], random: u64) -> String {
    let mut request = RequestHead::with("GET", "http", authority, path);
    fields
        .iter()
        .for_each(|(name, value)| request.headers.append(&HeaderName::new(name), value.as_bytes()));
    match table.find(&request, random) {
        RouteResult::Found(found) => match found.cluster(&request) {
            Some(ClusterRef::Slot(_, name)) => name.to_owned(),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

fn port_80(root: &Path, scenario: &str) -> RouteTable {
    let tables = tables(&root.join(scenario).join("productpage-v1"));
    tables
        .into_iter()
        .find(|table| &*table.name == "80")
        .expect("a table of port 80")
}

#[test]
fn names_short_and_long_reach_their_service_and_others_pass_through() {
    let Some(root) = recordings::folder("names_short_and_long_reach_their_service_and_others_pass_through")
    else {
        return;
    };
    let table = port_80(&root, "01-base");
    let echo = "outbound|80||echo.default.svc.cluster.local";
    for authority in [
        "echo",
        "echo:80",
        "ECHO.default",
        "echo.default.svc.cluster.local",
        "10.96.1.24:80",
    ] {
        assert_eq!(cluster(&table, authority, "/", &[], 0), echo, "{authority}");
    }
    assert_eq!(
        cluster(&table, "elsewhere.test", "/", &[], 0),
        "PassthroughCluster"
    );
}

#[test]
fn weights_split_traffic() {
    let Some(root) = recordings::folder("weights_split_traffic") else {
        return;
    };
    let table = port_80(&root, "03-weighted");
    let weighted = table.virtual_hosts().iter().find(|host| {
        host.routes()
            .iter()
            .any(|r| matches!(&r.action, Action::Forward(f) if format!("{f:?}").contains("Weighted")))
    });
    let authority = weighted
        .expect("a virtual host that splits")
        .name
        .split(':')
        .next()
        .unwrap()
        .to_owned();
    let mut counts = std::collections::BTreeMap::new();
    for random in 0..100 {
        *counts
            .entry(cluster(&table, &authority, "/", &[], random))
            .or_insert(0) += 1;
    }
    assert!(
        counts.len() > 1 && counts.values().sum::<i32>() == 100,
        "{counts:?}"
    );
}
