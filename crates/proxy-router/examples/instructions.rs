//! Finds routes over and over, for `valgrind --tool=callgrind`: the instruction count divided by the rounds is the
//! router's cost per request, in a table of 50 virtual hosts with 40 routes each.
//!
//! `cargo build --release --example instructions -p proxy-router`, then run with the number of rounds.

use api_envoy::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action, route_match,
};
use proxy_core::{ClusterSlot, ConfigError, ConfigResult};
use proxy_http::RequestHead;
use proxy_router::{FilterConfig, RouteContext, RouteResult, RouteTable};

const VIRTUAL_HOSTS: usize = 50;
const ROUTES: usize = 40;

struct Context;

impl RouteContext for Context {
    fn cluster(&mut self, name: &str) -> ClusterSlot {
        ClusterSlot(u32::try_from(name.len()).unwrap_or(0))
    }

    fn filter_config(&mut self, filter: &str, _: &api_envoy::Any) -> ConfigResult<FilterConfig> {
        Err(ConfigError::new(format!("no filter {filter}")))
    }
}

fn route(path: route_match::PathSpecifier, cluster: &str) -> Route {
    Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(path),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
            ..RouteAction::default()
        })),
        ..Route::default()
    }
}

fn virtual_host(number: usize) -> VirtualHost {
    let mut routes: Vec<Route> = (0..ROUTES - 1)
        .map(|n| match n % 2 {
            0 => route(
                route_match::PathSpecifier::Path(format!("/api/v{n}/exact")),
                "exact",
            ),
            _ => route(
                route_match::PathSpecifier::Prefix(format!("/api/v{n}/")),
                "prefix",
            ),
        })
        .collect();
    routes.push(route(route_match::PathSpecifier::Prefix("/".to_owned()), "rest"));
    let name = format!("service-{number}.default.svc.cluster.local");
    VirtualHost {
        domains: vec![name.clone(), format!("{name}:9080")],
        name,
        routes,
        ..VirtualHost::default()
    }
}

fn main() {
    let rounds: usize = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let configuration = RouteConfiguration {
        name: "9080".to_owned(),
        virtual_hosts: (0..VIRTUAL_HOSTS).map(virtual_host).collect(),
        ..RouteConfiguration::default()
    };
    let table = RouteTable::compile(&configuration, &mut Context).expect("a valid table");
    let requests: Vec<RequestHead> = ["/api/v38/exact", "/api/v37/reviews/0?lang=en", "/productpage"]
        .iter()
        .map(|path| RequestHead::with("GET", "http", "service-31.default.svc.cluster.local:9080", path))
        .collect();
    let mut found = 0;
    for round in 0..rounds {
        let request = &requests[round % requests.len()];
        found += usize::from(matches!(table.find(request, 0), RouteResult::Found(_)));
    }
    assert_eq!(found, rounds, "every request has a route");
}
