//! Route configurations (RDS, and those that travel with listeners).

mod check;
mod domains;
mod format;
pub(crate) mod gateway;
mod http_route;
pub(crate) mod inbound;
pub(crate) mod sidecar;
mod virtual_host;

use api_envoy::envoy::config::core::v3::Metadata;
use api_envoy::envoy::config::route::v3::{
    Decorator, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action, route_action,
    route_match::PathSpecifier,
};
use control_snapshot::Config;
use serde_json::json;

use crate::features::timeout;
use crate::{extension, limits, names};

pub(crate) use virtual_host::{MadeHost, ServiceHost};

/// A route configuration of the outbound side or a gateway.
pub(crate) fn configuration(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(limits::MAX_DIRECT_RESPONSE_BYTES),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

/// Every path.
fn everything() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    }
}

/// The catch-all virtual host that sends every request to one cluster under its own name.
pub(crate) fn catch_all(name: &str, cluster: &str) -> VirtualHost {
    let mut action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..RouteAction::default()
    };
    timeout::apply(&mut action, None);
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: name.to_owned(),
            r#match: Some(everything()),
            action: Some(Action::Route(action)),
            ..Route::default()
        }],
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// The name of the object a route was made of.
fn origin<T>(config: &Config<T>) -> Metadata {
    extension::metadata("istio", &json!({"config": config.path()}))
}

/// What spans of a route are called: the one destination and the path, or the VirtualService where there are several.
fn decorator(route: &Route, virtual_service: &str, port: u32) -> Decorator {
    let path = match route.r#match.as_ref().and_then(|m| m.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let cluster = match &route.action {
        Some(Action::Route(RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster)),
            ..
        })) => names::parts(cluster),
        _ => None,
    };
    let operation = match cluster {
        Some((port, _, host)) => format!("{host}:{port}{path}"),
        None => format!("{virtual_service}:{port}{path}"),
    };
    Decorator {
        operation,
        ..Decorator::default()
    }
}
