//! One route (`envoy.config.route.v3.Route`).

use api_envoy::envoy::config::core::v3::Metadata;
use api_envoy::envoy::config::route::v3 as pb;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

use crate::direct_response::DirectResponse;
use crate::filter_config::RouteContext;
use crate::forward::Forward;
use crate::level::Level;
use crate::redirect::Redirect;
use crate::route_match::RouteMatch;

/// A route: a condition, and what is done with requests that satisfy it.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name (`%ROUTE_NAME%`); may be empty.
    pub name: Box<str>,
    /// The condition.
    pub route_match: RouteMatch,
    /// What is done.
    pub action: Action,
    /// `Route.metadata`.
    pub metadata: Option<Metadata>,
    /// How spans of this route are called.
    pub decorator: Option<Decorator>,
    /// How many bytes of a request body may be buffered, for retries and mirrors.
    pub buffer_limit_bytes: Option<u64>,
    pub(crate) level: Level,
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Forwards to a cluster.
    Forward(Box<Forward>),
    /// Sends the client elsewhere.
    Redirect(Box<Redirect>),
    /// Answers from the configuration.
    DirectResponse(DirectResponse),
}

/// `envoy.config.route.v3.Decorator`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decorator {
    /// The operation (`x-envoy-decorator-operation`).
    pub operation: Box<str>,
    /// Whether it is passed on to the host.
    pub propagate: bool,
}

impl Route {
    #[allow(deprecated)]
    pub(crate) fn compile(
        proto: &pb::Route,
        max_body_bytes: u32,
        context: &mut dyn RouteContext,
    ) -> ConfigResult<Self> {
        refuse_unsupported(&[("route_specifiers", !proto.route_specifiers.is_empty())])?;
        let route_match = proto
            .r#match
            .as_ref()
            .ok_or_else(|| ConfigError::at("match", "missing"))?;
        let buffer_limit = proto.request_body_buffer_limit;
        Ok(Self {
            name: proto.name.as_str().into(),
            route_match: RouteMatch::compile(route_match).within("match")?,
            action: action(proto, max_body_bytes, context)?,
            metadata: proto.metadata.clone(),
            decorator: proto.decorator.as_ref().map(|d| Decorator {
                operation: d.operation.as_str().into(),
                propagate: d.propagate.unwrap_or(true),
            }),
            buffer_limit_bytes: buffer_limit.or(proto.per_request_buffer_limit_bytes.map(u64::from)),
            level: Level::compile(proto, context)?,
        })
    }
}

fn action(proto: &pb::Route, max_body_bytes: u32, context: &mut dyn RouteContext) -> ConfigResult<Action> {
    match &proto.action {
        None => Err(ConfigError::at("action", "missing")),
        Some(pb::route::Action::Route(action)) => Forward::compile(action, context)
            .within("route")
            .map(|f| Action::Forward(Box::new(f))),
        Some(pb::route::Action::Redirect(action)) => Redirect::compile(action)
            .within("redirect")
            .map(|r| Action::Redirect(Box::new(r))),
        Some(pb::route::Action::DirectResponse(action)) => DirectResponse::compile(action, max_body_bytes)
            .within("direct_response")
            .map(Action::DirectResponse),
        Some(pb::route::Action::FilterAction(_)) => Err(ConfigError::unsupported("filter_action")),
        Some(pb::route::Action::NonForwardingAction(_)) => {
            Err(ConfigError::unsupported("non_forwarding_action"))
        }
    }
}
