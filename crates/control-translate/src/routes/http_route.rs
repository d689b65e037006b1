//! HTTP routes of a VirtualService, for one proxy, gateway and port.

use api_envoy::any;
use api_envoy::envoy::config::route::v3::{Route, RouteAction, route::Action, route_action};
use api_istio::networking::{Destination, HttpMatchRequest, HttpRoute};
use control_snapshot::{ProxyView, Routing, ServiceView};
use diagnostics::{Code, Diagnostic};

use super::check::{self, Problem};
use super::{decorator, origin};
use crate::features::{
    consistent_hash, cors, direct_response, fault_injection, header_operations, mirroring, redirect,
    request_matching, retry, rewrite, timeout, traffic_splitting,
};
use crate::{http_filters, names};

/// Finds a service and the one port that a destination without a port means, if there is only one.
pub(super) type Lookup<'a> = dyn Fn(&str) -> Option<(&'a ServiceView, Option<u32>)> + 'a;

/// For whom routes are made.
pub(super) struct Context<'a> {
    /// What the proxy sees.
    pub(super) view: &'a ProxyView,
    /// The gateways by whose rules the routes go: `mesh`, or `namespace/name`.
    pub(super) gateways: &'a [&'a str],
    /// The port of the service or server.
    pub(super) port: u32,
    /// Whether clients speak TLS.
    pub(super) tls: bool,
    /// Finds destinations.
    pub(super) lookup: &'a Lookup<'a>,
}

/// The routes of a VirtualService in order, up to the first that takes every request.
pub(super) fn build(
    context: &Context<'_>,
    routing: &Routing,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Route> {
    let mut routes = Vec::new();
    for (index, http) in routing.config.spec.http.iter().enumerate() {
        diagnostics.extend(beyond_the_proxy(context, routing, index, http));
        let matches: Vec<Option<&HttpMatchRequest>> = if http.r#match.is_empty() {
            vec![None]
        } else {
            http.r#match.iter().map(Some).collect()
        };
        for request in matches {
            let applies = |m: &HttpMatchRequest| {
                request_matching::applies(m, &context.view.profile, context.gateways, context.port)
            };
            if !request.is_none_or(applies) {
                continue;
            }
            match route(context, routing, http, request) {
                Ok(route) => {
                    let last = route.r#match.as_ref().is_some_and(request_matching::is_catch_all);
                    routes.push(route);
                    if last {
                        return routes;
                    }
                }
                Err(problem) => diagnostics.push(
                    Diagnostic::new(
                        Code::SchemaValidationError,
                        routing.config.resource(),
                        problem.message,
                    )
                    .at(format!("spec.http[{index}]{}", problem.field))
                    .hint("the route is left out; the others have effect"),
                ),
            }
        }
    }
    routes
}

/// What a route asks for that this proxy has no filter for. It would refuse the whole table of routes, and with it every
/// later change to any host of the port; so the route goes without.
fn beyond_the_proxy(
    context: &Context<'_>,
    routing: &Routing,
    index: usize,
    http: &HttpRoute,
) -> impl Iterator<Item = Diagnostic> {
    let profile = &context.view.profile;
    let fault = http.fault.is_some() && !profile.injects_faults;
    let cors = http.cors_policy.is_some() && !profile.answers_cors;
    let remote = http
        .retries
        .as_ref()
        .is_some_and(|r| r.retry_remote_localities == Some(true));
    let remote = remote && !profile.retries_elsewhere;
    let lacking = [
        ("fault", fault, "the proxies do not inject faults"),
        (
            "corsPolicy",
            cors,
            "the proxies do not answer cross-origin requests",
        ),
        (
            "retries.retryRemoteLocalities",
            remote,
            "the proxies do not prefer other localities for retries",
        ),
    ];
    let found = lacking.into_iter().filter(|(_, lacks, _)| *lacks);
    found.map(move |(field, _, message)| {
        Diagnostic::new(Code::SchemaWarning, routing.config.resource(), message)
            .at(format!("spec.http[{index}].{field}"))
            .hint("the route works without it; an Envoy in the proxy's place has it")
    })
}

fn route(
    context: &Context<'_>,
    routing: &Routing,
    http: &HttpRoute,
    request: Option<&HttpMatchRequest>,
) -> Result<Route, Problem> {
    check::servable(http, request)?;
    let operations = header_operations::translate(http.headers.as_ref());
    let route_match = request_matching::translate(request).map_err(|reason| Problem {
        field: ".match",
        message: reason.0.to_owned(),
    })?;
    let mut route = Route {
        name: name(http, request),
        r#match: Some(route_match),
        metadata: Some(origin(&routing.config)),
        stat_prefix: request.map(|m| m.stat_prefix.clone()).unwrap_or_default(),
        request_headers_to_add: operations.request_add,
        request_headers_to_remove: operations.request_remove,
        response_headers_to_add: operations.response_add,
        response_headers_to_remove: operations.response_remove,
        ..Route::default()
    };
    let action = if let Some(settings) = &http.redirect {
        Action::Redirect(redirect::build(settings, context.port, context.tls))
    } else if let Some(settings) = &http.direct_response {
        Action::DirectResponse(direct_response::build(settings))
    } else {
        Action::Route(forward(context, http, &mut route, operations.authority))
    };
    route.action = Some(action);
    route.decorator = Some(decorator(&route, &routing.config.meta.name, context.port));
    if let Some(fault) = http
        .fault
        .as_ref()
        .filter(|_| context.view.profile.injects_faults)
    {
        let config = any::pack(&fault_injection::build(fault));
        route
            .typed_per_filter_config
            .insert(http_filters::FAULT.to_owned(), config);
    }
    if let Some(policy) = http
        .cors_policy
        .as_ref()
        .filter(|_| context.view.profile.answers_cors)
    {
        let config = any::pack(&cors::build(policy));
        route
            .typed_per_filter_config
            .insert(http_filters::CORS.to_owned(), config);
    }
    Ok(route)
}

/// The route's name, with that of the match where it has one.
fn name(http: &HttpRoute, request: Option<&HttpMatchRequest>) -> String {
    match request.map(|m| m.name.as_str()) {
        Some(own) if !own.is_empty() => format!("{}.{own}", http.name),
        _ => http.name.clone(),
    }
}

/// The action of a route that has destinations.
fn forward(
    context: &Context<'_>,
    http: &HttpRoute,
    route: &mut Route,
    authority: Option<String>,
) -> RouteAction {
    let hashes: Vec<_> = http
        .route
        .iter()
        .filter_map(|d| hash_policy(context, &d.destination))
        .collect();
    let retries = retry::of_route(
        http.retries.as_ref(),
        &context.view.mesh,
        !hashes.is_empty(),
        context.view.profile.retries_elsewhere,
    );
    let mut action = RouteAction {
        retry_policy: retries,
        host_rewrite_specifier: authority.map(route_action::HostRewriteSpecifier::HostRewriteLiteral),
        hash_policy: hashes,
        ..RouteAction::default()
    };
    timeout::apply(&mut action, http.timeout);
    if let Some(settings) = &http.rewrite {
        rewrite::apply(&mut action, settings);
    }
    action.request_mirror_policies = mirroring::build(http, |d| cluster(context, d));
    traffic_splitting::apply(route, &mut action, &http.route, |d| cluster(context, d));
    action
}

/// The port a destination means: its own, else the only one of its service, else the one that is listened on.
fn port(context: &Context<'_>, destination: &Destination) -> u32 {
    let own = destination.port.as_ref().map(|p| p.number);
    own.or_else(|| (context.lookup)(&destination.host)?.1)
        .unwrap_or(context.port)
}

/// The cluster of a destination. A host or subset that does not exist names a cluster that does not exist either: such
/// requests are answered with 503.
fn cluster(context: &Context<'_>, destination: &Destination) -> String {
    let target = context.view.aliased(&destination.host);
    let host = target.map_or(destination.host.as_str(), |s| &s.service.hostname);
    names::outbound(port(context, destination), &destination.subset, host)
}

fn hash_policy(context: &Context<'_>, destination: &Destination) -> Option<route_action::HashPolicy> {
    let service = context.view.service(&destination.host)?;
    consistent_hash::of_destination(service, &destination.subset, port(context, destination))
}
