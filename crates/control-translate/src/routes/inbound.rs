//! The routes of the inbound side: everything to the own application.

use api_envoy::Duration;
use api_envoy::envoy::config::route::v3::{
    Decorator, Route, RouteAction, RouteConfiguration, VirtualHost, route::Action, route_action,
    route_action::MaxStreamDuration,
};
use control_snapshot::Protocol;

use super::everything;
use crate::features::retry;

/// The route configuration of one inbound filter chain.
pub(crate) fn build(cluster: &str, host: &str, port: u32, protocol: Protocol) -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(Duration::default()),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(Duration::default()),
            grpc_timeout_header_max: Some(Duration::default()),
            ..MaxStreamDuration::default()
        }),
        // A gRPC client repeats by itself what the server cannot have seen.
        retry_policy: (!protocol.is_grpc()).then(retry::inbound),
        ..RouteAction::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(everything()),
        decorator: Some(Decorator {
            operation: format!("{host}:{port}/*"),
            ..Decorator::default()
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{port}"),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(false),
        ..RouteConfiguration::default()
    }
}
