//! What follows from configuration, as lists of actions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::json::Schema;
use api_envoy::{Any, type_url};
use proxy_observe::LogFiles;
use serde_json::{Value, json};
use telemetry::stats::Registry;

use super::{Action, ConfigState, Source, StartPhase, Waiting};
use crate::context::LocalNode;

/// A state whose HTTP connection managers are their stat prefixes.
pub(super) struct Bench {
    pub(super) state: ConfigState<String>,
    bound: Vec<String>,
}

pub(super) fn any(type_url: &str, mut json: Value) -> Any {
    json["@type"] = type_url.into();
    Schema::get().parse_any(&json).unwrap()
}

pub(super) fn source(resource: Any) -> Source {
    Source {
        resource: Arc::new(resource),
        version: "1".into(),
        last_updated: SystemTime::UNIX_EPOCH,
    }
}

fn static_cluster(name: &str) -> Source {
    source(any(
        type_url::CLUSTER,
        json!({ "name": name, "connect_timeout": "1s" }),
    ))
}

fn eds_cluster(name: &str, connect_timeout: &str) -> Source {
    source(any(
        type_url::CLUSTER,
        json!({
            "name": name, "type": "EDS", "connect_timeout": connect_timeout,
            "eds_cluster_config": { "service_name": format!("{name}-eds"),
                                    "eds_config": { "ads": {}, "initial_fetch_timeout": "7s" } }
        }),
    ))
}

pub(super) fn endpoints(service: &str) -> Source {
    source(any(
        type_url::ENDPOINT,
        json!({ "cluster_name": service, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": "10.0.0.1", "port_value": 80 } } } }] }] }),
    ))
}

fn no_endpoints(service: &str) -> Source {
    source(any(type_url::ENDPOINT, json!({ "cluster_name": service })))
}

fn routes(name: &str) -> Source {
    source(any(
        type_url::ROUTE,
        json!({ "name": name, "virtual_hosts": [{ "name": "v", "domains": ["*"] }] }),
    ))
}

/// A listener that refers to a route configuration over RDS.
fn listener(name: &str, port: u16, routes: &str) -> Source {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "rds": { "route_config_name": routes, "config_source": { "ads": {}, "initial_fetch_timeout": "5s" } }
    });
    source(any(
        type_url::LISTENER,
        json!({
            "name": name,
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
            "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }]
        }),
    ))
}

impl Bench {
    pub(super) fn new() -> Self {
        let files = Arc::new(LogFiles::start(Duration::from_secs(1)).unwrap());
        Self {
            state: ConfigState::new(Registry::new(), LocalNode::default(), files),
            bound: Vec::new(),
        }
    }

    /// A state whose start is complete.
    pub(super) fn live() -> Self {
        let mut this = Self::new();
        this.state.start();
        assert_eq!(this.actions(), ["live"]);
        this
    }

    pub(super) fn put_listener(&mut self, source: Source) -> proxy_core::ConfigResult<()> {
        use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
        let bound = &mut self.bound;
        self.state.update_listener(
            source,
            &mut |http, context| {
                let Some(RouteSpecifier::Rds(rds)) = &http.route_specifier else {
                    unreachable!()
                };
                context.route_config(&rds.route_config_name, rds.config_source.as_ref())?;
                Ok(http.stat_prefix.clone())
            },
            &mut |config| {
                bound.push(config.name.to_string());
                Ok(())
            },
        )
    }

    /// The actions since the last call, in words.
    pub(super) fn actions(&mut self) -> Vec<String> {
        let actions = self.state.take_actions();
        let names = self.state.names();
        let words = |action: Action<String>| match action {
            Action::ApplyCluster {
                config, endpoints, ..
            } => {
                format!("cluster {} with {}", config.name, endpoints.hosts().count())
            }
            Action::ApplyEndpoints { slot, endpoints } => {
                format!(
                    "endpoints {}: {}",
                    names.clusters.name(slot).unwrap(),
                    endpoints.hosts().count()
                )
            }
            Action::RemoveCluster { slot } => {
                format!("remove cluster {}", names.clusters.name(slot).unwrap())
            }
            Action::Resolve { config, .. } => format!("resolve {}", config.name),
            Action::ApplyRoutes { table, .. } => {
                (if table.is_some() { "routes" } else { "no routes" }).to_owned()
            }
            Action::ApplyListener { config, before } => {
                let instead = if before.is_some() { " instead" } else { "" };
                format!("listener {}{instead}", config.name)
            }
            Action::RemoveListener { name, .. } => format!("remove listener {name}"),
            Action::Subscribe { name, .. } => format!("subscribe {name}"),
            Action::Unsubscribe { name, .. } => format!("unsubscribe {name}"),
            Action::FetchSecret { key } => format!("fetch {}", key.name),
            Action::DropSecret { key } => format!("drop {}", key.name),
            Action::Wait {
                waiting: Waiting::Secret(key),
                timeout,
            } => format!("wait secret {} {}s", key.name, timeout.as_secs()),
            Action::Wait { waiting, timeout } => format!("wait {waiting:?} {}s", timeout.as_secs()),
            Action::Live => "live".to_owned(),
        };
        actions.into_iter().map(words).collect()
    }
}

#[test]
fn a_static_cluster_is_in_force_at_once() {
    let mut bench = Bench::live();
    bench.state.update_cluster(static_cluster("a")).unwrap();
    assert_eq!(bench.actions(), ["cluster a with 0"]);
    bench.state.update_cluster(static_cluster("a")).unwrap();
    assert!(bench.actions().is_empty(), "the same bytes change nothing");
}

#[test]
fn an_eds_cluster_warms_until_its_endpoints_come() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    assert_eq!(
        bench.actions(),
        ["subscribe a-eds", "wait Endpoints(\"a-eds\") 7s"]
    );
    assert!(bench.state.clusters()["a"].active.is_none());
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    assert_eq!(bench.actions(), ["cluster a with 1"]);
}

#[test]
fn a_changed_eds_cluster_takes_the_endpoints_that_are_known() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    bench.actions();
    bench.state.update_cluster(eds_cluster("a", "2s")).unwrap();
    assert_eq!(bench.actions(), ["cluster a with 1"]);
}

#[test]
fn endpoints_that_do_not_come_in_time_are_taken_for_none() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.actions();
    bench.state.timed_out(&Waiting::Endpoints("a-eds".into()));
    assert_eq!(bench.actions(), ["cluster a with 0"]);
    bench.state.timed_out(&Waiting::Endpoints("a-eds".into()));
    assert!(
        bench.actions().is_empty(),
        "a timer that fires late changes nothing"
    );
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    assert_eq!(bench.actions(), ["endpoints a: 1"]);
}

#[test]
fn a_removed_cluster_takes_its_subscription_along() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    bench.actions();
    bench.state.remove_cluster("a");
    assert_eq!(bench.actions(), ["remove cluster a", "unsubscribe a-eds"]);
}

#[test]
fn endpoints_of_a_service_that_a_cluster_no_longer_names_are_not_wanted_any_more() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    bench.actions();
    let mut moved = json!({ "name": "a", "type": "EDS",
        "eds_cluster_config": { "service_name": "other", "eds_config": { "ads": {} } } });
    let source_of = |json: &Value| source(any(type_url::CLUSTER, json.clone()));
    bench.state.update_cluster(source_of(&moved)).unwrap();
    assert_eq!(
        bench.actions(),
        ["subscribe other", "wait Endpoints(\"other\") 15s"],
        "until the new ones are there the old ones are in use"
    );
    bench.state.update_endpoints(endpoints("other")).unwrap();
    assert_eq!(bench.actions(), ["cluster a with 1", "unsubscribe a-eds"]);
    moved["type"] = "STATIC".into();
    moved.as_object_mut().unwrap().remove("eds_cluster_config");
    bench.state.update_cluster(source_of(&moved)).unwrap();
    assert_eq!(bench.actions(), ["cluster a with 0", "unsubscribe other"]);
    assert!(bench.state.endpoints().is_empty());
}

/// The cluster `a` over endpoints of that name.
fn moved_to(service: &str) -> Source {
    let cluster = json!({ "name": "a", "type": "EDS",
        "eds_cluster_config": { "service_name": service, "eds_config": { "ads": {} } } });
    source(any(type_url::CLUSTER, cluster))
}

#[test]
fn endpoints_of_the_service_before_do_not_put_the_next_version_in_force() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    bench.state.update_cluster(moved_to("other")).unwrap();
    bench.actions();
    bench.state.update_endpoints(no_endpoints("a-eds")).unwrap();
    assert_eq!(
        bench.actions(),
        ["endpoints a: 0"],
        "the version in force gets them"
    );
    assert!(bench.state.clusters()["a"].warming.is_some());
    bench.state.update_endpoints(endpoints("other")).unwrap();
    assert_eq!(bench.actions(), ["cluster a with 1", "unsubscribe a-eds"]);
}

#[test]
fn endpoints_do_not_put_a_version_in_force_whose_names_are_being_resolved() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    let address = json!({ "socket_address": { "address": "a.test", "port_value": 80 } });
    let by_name = json!({ "name": "a", "type": "STRICT_DNS",
        "load_assignment": { "cluster_name": "a",
                             "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }] } });
    bench
        .state
        .update_cluster(source(any(type_url::CLUSTER, by_name)))
        .unwrap();
    assert_eq!(bench.actions().last().map(String::as_str), Some("resolve a"));
    bench.state.update_endpoints(no_endpoints("a-eds")).unwrap();
    assert_eq!(bench.actions(), ["endpoints a: 0"]);
}

#[test]
fn a_timer_of_the_service_before_does_not_put_the_next_version_in_force() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    bench.state.update_cluster(moved_to("other")).unwrap();
    bench.actions();
    bench.state.timed_out(&Waiting::Endpoints("a-eds".into()));
    assert!(bench.actions().is_empty());
    bench.state.timed_out(&Waiting::Endpoints("other".into()));
    assert_eq!(bench.actions(), ["cluster a with 0", "unsubscribe a-eds"]);
}

#[test]
fn a_refused_cluster_leaves_the_one_before_in_force() {
    let mut bench = Bench::live();
    bench.state.update_cluster(static_cluster("a")).unwrap();
    bench.actions();
    let bad = any(type_url::CLUSTER, json!({ "name": "a", "connect_timeout": "0s" }));
    assert_eq!(
        bench.state.update_cluster(source(bad)).unwrap_err().path(),
        "connect_timeout"
    );
    assert!(bench.actions().is_empty());
    assert!(bench.state.clusters()["a"].active.is_some());
}

#[test]
fn discovery_does_not_replace_a_static_cluster() {
    let mut bench = Bench::live();
    bench.state.add_static_cluster(static_cluster("a")).unwrap();
    bench.actions();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.remove_cluster("a");
    assert!(bench.actions().is_empty());
}

#[test]
fn a_listener_warms_until_its_routes_come() {
    let mut bench = Bench::live();
    bench.put_listener(listener("l", 1001, "r")).unwrap();
    assert_eq!(bench.actions(), ["subscribe r", "wait Routes(\"r\") 5s"]);
    assert_eq!(
        bench.bound,
        ["l"],
        "sockets are bound when the listener is accepted"
    );
    bench.state.update_routes(routes("r")).unwrap();
    assert_eq!(bench.actions(), ["routes", "listener l"]);
}

#[test]
fn a_listener_goes_on_without_routes_that_do_not_come() {
    let mut bench = Bench::live();
    bench.put_listener(listener("l", 1001, "r")).unwrap();
    bench.actions();
    bench.state.timed_out(&Waiting::Routes("r".into()));
    assert_eq!(bench.actions(), ["listener l"]);
    bench.state.update_routes(routes("r")).unwrap();
    assert_eq!(bench.actions(), ["routes"]);
}

#[test]
fn routes_that_no_listener_names_any_more_are_forgotten() {
    let mut bench = Bench::live();
    bench.put_listener(listener("l", 1001, "old")).unwrap();
    bench.state.update_routes(routes("old")).unwrap();
    bench.put_listener(listener("l", 1001, "new")).unwrap();
    bench.actions();
    bench.state.update_routes(routes("new")).unwrap();
    assert_eq!(
        bench.actions(),
        ["routes", "listener l instead", "no routes", "unsubscribe old"]
    );
    bench.state.remove_listener("l");
    assert_eq!(
        bench.actions(),
        ["remove listener l", "no routes", "unsubscribe new"]
    );
}

#[test]
fn two_listeners_cannot_have_one_address() {
    let mut bench = Bench::live();
    bench.put_listener(listener("one", 1001, "r")).unwrap();
    let error = bench.put_listener(listener("two", 1001, "r")).unwrap_err();
    assert!(
        error.to_string().contains("listener one has the address"),
        "{error}"
    );
    assert!(!bench.state.listeners().contains_key("two"));
}

#[test]
fn the_start_waits_for_clusters_then_listeners_then_routes() {
    let mut bench = Bench::new();
    bench
        .state
        .await_discovery(Some(Duration::ZERO), Some(Duration::from_secs(3)));
    bench.state.start();
    assert_eq!(bench.actions(), ["wait Listeners 3s"], "zero waits for ever");
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.answered(type_url::CLUSTER);
    bench.put_listener(listener("l", 1001, "r")).unwrap();
    bench.state.answered(type_url::LISTENER);
    assert_eq!(bench.state.phase(), StartPhase::PreInitializing);
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    assert_eq!(bench.state.phase(), StartPhase::Initializing);
    bench.actions();
    bench.state.update_routes(routes("r")).unwrap();
    assert_eq!(bench.actions(), ["routes", "listener l", "live"]);
    assert_eq!(bench.state.phase(), StartPhase::Live);
}

#[test]
fn a_static_cluster_does_not_complete_the_start_before_all_is_loaded() {
    let mut bench = Bench::new();
    bench.state.add_static_cluster(static_cluster("a")).unwrap();
    assert_eq!(bench.state.phase(), StartPhase::PreInitializing);
    bench.state.await_discovery(Some(Duration::ZERO), None);
    bench.state.start();
    assert_eq!(bench.state.phase(), StartPhase::PreInitializing);
}

#[test]
fn the_start_goes_on_when_discovery_does_not_answer_in_time() {
    let mut bench = Bench::new();
    bench
        .state
        .await_discovery(Some(Duration::from_secs(1)), Some(Duration::from_secs(1)));
    bench.state.start();
    bench.state.timed_out(&Waiting::Clusters);
    assert_eq!(bench.state.phase(), StartPhase::Initializing);
    bench.state.timed_out(&Waiting::Listeners);
    assert_eq!(bench.state.phase(), StartPhase::Live);
}

#[test]
fn a_refused_update_is_told_of_until_one_is_taken() {
    let mut bench = Bench::live();
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    bench.put_listener(listener("l", 1001, "r")).unwrap();
    bench.state.update_routes(routes("r")).unwrap();
    let bad = |kind, json| source(any(kind, json));
    let bad_cluster = bad(type_url::CLUSTER, json!({ "name": "a", "connect_timeout": "0s" }));
    bench.state.update_cluster(bad_cluster).unwrap_err();
    let host =
        json!({ "endpoint": { "address": { "socket_address": { "address": "no ip", "port_value": 80 } } } });
    let bad_endpoints = json!({ "cluster_name": "a-eds", "endpoints": [{ "lb_endpoints": [host] }] });
    bench
        .state
        .update_endpoints(bad(type_url::ENDPOINT, bad_endpoints))
        .unwrap_err();
    let twice = json!({ "name": "v", "domains": ["*"] });
    let bad_routes = json!({ "name": "r", "virtual_hosts": [twice, twice] });
    bench
        .state
        .update_routes(bad(type_url::ROUTE, bad_routes))
        .unwrap_err();
    bench
        .put_listener(bad(type_url::LISTENER, json!({ "name": "l" })))
        .unwrap_err();
    let refused = |bench: &Bench| {
        let state = &bench.state;
        [
            state.clusters()["a"].refused.is_some(),
            state.endpoints()["a-eds"].refused.is_some(),
            state.routes()["r"].refused.is_some(),
            state.listeners()["l"].refused.is_some(),
        ]
    };
    assert_eq!(refused(&bench), [true; 4]);
    // The version that is in force already counts as taken.
    bench.state.update_cluster(eds_cluster("a", "1s")).unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    bench.state.update_routes(routes("r")).unwrap();
    bench.put_listener(listener("l", 1001, "r")).unwrap();
    assert_eq!(refused(&bench), [false; 4]);
}

#[test]
fn a_listener_that_was_never_taken_is_told_of_until_it_is_taken_or_gone() {
    let bad = |name: &str| source(any(type_url::LISTENER, json!({ "name": name })));
    let mut bench = Bench::live();
    bench.put_listener(bad("taken later")).unwrap_err();
    bench.put_listener(bad("removed")).unwrap_err();
    bench.put_listener(bad("left out")).unwrap_err();
    let refused = |bench: &Bench| {
        bench
            .state
            .refused_listeners()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        refused(&bench),
        ["taken later", "removed", "left out"].map(Arc::from)
    );
    assert!(bench.state.listeners().is_empty());
    bench.put_listener(listener("taken later", 1001, "r")).unwrap();
    bench.state.remove_listener("removed");
    assert_eq!(refused(&bench), ["left out"].map(Arc::from));
    bench.state.forget_refused_listeners();
    assert!(refused(&bench).is_empty());
}

#[test]
fn only_the_latest_listeners_that_were_never_taken_are_told_of() {
    let mut bench = Bench::live();
    for i in 0..=crate::limits::MAX_REFUSED_LISTENERS {
        let bad = api_envoy::envoy::config::listener::v3::Listener {
            name: format!("l{i}"),
            ..Default::default()
        };
        bench
            .put_listener(source(api_envoy::any::pack(&bad)))
            .unwrap_err();
    }
    let refused = bench.state.refused_listeners();
    assert_eq!(refused.len(), crate::limits::MAX_REFUSED_LISTENERS);
    assert!(!refused.contains_key("l0") && refused.contains_key("l1"));
}
