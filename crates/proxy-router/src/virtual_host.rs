//! Virtual hosts (`envoy.config.route.v3.VirtualHost`) and the search for the first route that matches.

use std::sync::Arc;

use api_envoy::envoy::config::core::v3::Metadata;
use api_envoy::envoy::config::route::v3 as pb;
use api_envoy::envoy::config::route::v3::virtual_host::TlsRequirementType;
use foldhash::{HashMap, HashMapExt as _};
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::{HeaderId, RequestHead};
use smallvec::SmallVec;

use crate::filter_config::RouteContext;
use crate::forward::hedges;
use crate::level::Level;
use crate::limits;
use crate::mirror::MirrorPolicy;
use crate::path_tree::PathTree;
use crate::retry::RetryPolicy;
use crate::route::Route;
use crate::route_match::{PathMatch, matched_path};

/// Routes for some authorities.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Its name (`%VIRTUAL_HOST_NAME%`).
    pub name: Arc<str>,
    /// Whether requests carry `x-envoy-attempt-count`.
    pub include_request_attempt_count: bool,
    /// Whether answers carry `x-envoy-attempt-count`.
    pub include_attempt_count_in_response: bool,
    /// `VirtualHost.metadata`.
    pub metadata: Option<Metadata>,
    pub(crate) buffer_limit_bytes: Option<u64>,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) mirrors: Vec<MirrorPolicy>,
    pub(crate) level: Level,
    routes: Vec<Route>,
    index: Option<Index>,
    require_tls: TlsRequirementType,
}

impl VirtualHost {
    pub(crate) fn compile(
        proto: &pb::VirtualHost,
        max_body_bytes: u32,
        context: &mut dyn RouteContext,
    ) -> ConfigResult<Self> {
        refuse_what_is_not_enforced(proto)?;
        if proto.name.is_empty() {
            return Err(ConfigError::at("name", "must not be empty"));
        }
        let mut routes = Vec::with_capacity(proto.routes.len());
        for (index, route) in proto.routes.iter().enumerate() {
            routes.push(Route::compile(route, max_body_bytes, context).within_index("routes", index)?);
        }
        Ok(Self {
            name: proto.name.as_str().into(),
            include_request_attempt_count: proto.include_request_attempt_count,
            include_attempt_count_in_response: proto.include_attempt_count_in_response,
            metadata: proto.metadata.clone(),
            buffer_limit_bytes: buffer_limit(proto),
            retry: proto
                .retry_policy
                .as_ref()
                .map(RetryPolicy::compile)
                .transpose()
                .within("retry_policy")?,
            mirrors: MirrorPolicy::compile_all(&proto.request_mirror_policies, context)?,
            level: Level::compile(proto, context)?,
            index: (routes.len() >= limits::INDEX_FROM_ROUTES).then(|| Index::new(&routes)),
            routes,
            require_tls: TlsRequirementType::try_from(proto.require_tls)
                .map_err(|_| ConfigError::at("require_tls", "not a requirement"))?,
        })
    }

    /// Whether the request must be sent to HTTPS first.
    pub(crate) fn demands_tls(&self, request: &RequestHead) -> bool {
        let came_by_tls = || request.headers.get_id(HeaderId::XForwardedProto) == Some(b"https");
        let is_internal = || request.headers.get_id(HeaderId::XEnvoyInternal) == Some(b"true");
        match self.require_tls {
            TlsRequirementType::None => false,
            TlsRequirementType::ExternalOnly => !came_by_tls() && !is_internal(),
            TlsRequirementType::All => !came_by_tls(),
        }
    }

    /// The first route that matches.
    pub(crate) fn find(&self, request: &RequestHead, ignore_parameters: bool, random: u64) -> Option<&Route> {
        let path = matched_path(request, ignore_parameters);
        match &self.index {
            Some(index) => index.find(&self.routes, request, path, random),
            None => first_match(&self.routes, request, path, random),
        }
    }

    /// The routes, in order.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// The definition of what is found: the first in order. The index must agree with it.
fn first_match<'r>(
    routes: &'r [Route],
    request: &RequestHead,
    path: &[u8],
    random: u64,
) -> Option<&'r Route> {
    routes
        .iter()
        .find(|route| route.route_match.matches(request, path, random))
}

#[allow(deprecated)]
fn buffer_limit(proto: &pb::VirtualHost) -> Option<u64> {
    proto
        .request_body_buffer_limit
        .or(proto.per_request_buffer_limit_bytes.map(u64::from))
}

#[allow(deprecated)]
fn refuse_what_is_not_enforced(proto: &pb::VirtualHost) -> ConfigResult<()> {
    refuse_unsupported(&[
        ("matcher", proto.matcher.is_some()),
        ("cors", proto.cors.is_some()),
        (
            "retry_policy_typed_config",
            proto.retry_policy_typed_config.is_some(),
        ),
        ("hedge_policy", proto.hedge_policy.as_ref().is_some_and(hedges)),
        (
            "include_is_timeout_retry_header",
            proto.include_is_timeout_retry_header,
        ),
        ("route_specifiers", !proto.route_specifiers.is_empty()),
    ])
}

/// Finds the routes whose path may match, so that the others are not tried.
#[derive(Clone, Debug)]
struct Index {
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    prefixes: PathTree,
    /// Routes that must always be tried: regular expressions, CONNECT, paths without case. Ascending.
    others: Vec<u32>,
}

impl Index {
    fn new(routes: &[Route]) -> Self {
        let mut this = Self {
            exact: HashMap::new(),
            prefixes: PathTree::default(),
            others: Vec::new(),
        };
        for (number, route) in (0_u32..).zip(routes) {
            match route.route_match.path() {
                _ if !route.route_match.is_case_sensitive() => this.others.push(number),
                PathMatch::Exact(path) => this.exact.entry(path.clone()).or_default().push(number),
                PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => {
                    this.prefixes.insert(prefix, number);
                }
                PathMatch::Regex(_) | PathMatch::Connect => this.others.push(number),
            }
        }
        this
    }

    fn find<'r>(
        &self,
        routes: &'r [Route],
        request: &RequestHead,
        path: &[u8],
        random: u64,
    ) -> Option<&'r Route> {
        let mut candidates: SmallVec<[u32; 32]> = SmallVec::new();
        if let Some(exact) = self.exact.get(path) {
            candidates.extend_from_slice(exact);
        }
        self.prefixes.find(path, |number| candidates.push(number));
        candidates.sort_unstable();
        let (mut candidates, mut others) = (candidates.iter().peekable(), self.others.iter().peekable());
        loop {
            let number = match (candidates.peek(), others.peek()) {
                (None, None) => return None,
                (Some(a), Some(b)) if a > b => others.next(),
                (None, Some(_)) => others.next(),
                (Some(_), _) => candidates.next(),
            };
            let route = &routes[*number? as usize];
            if route.route_match.matches(request, path, random) {
                return Some(route);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NoFilters, direct};
    use api_envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    use api_envoy::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
    use pb::route_match::PathSpecifier;
    use proptest::prelude::*;

    fn specifier() -> impl Strategy<Value = (PathSpecifier, bool)> {
        let text = "/[ab/]{0,4}";
        let regex = |r: String| RegexMatcher {
            regex: r.replace('b', ".*"),
            ..Default::default()
        };
        prop_oneof![
            (text.prop_map(PathSpecifier::Prefix), any::<bool>()),
            (text.prop_map(PathSpecifier::Path), any::<bool>()),
            (
                text.prop_map(move |t| PathSpecifier::SafeRegex(regex(t))),
                Just(true)
            ),
            (
                "/[ab]{1,3}".prop_map(PathSpecifier::PathSeparatedPrefix),
                any::<bool>()
            ),
        ]
    }

    proptest! {
        #[test]
        fn the_index_finds_the_route_that_comes_first(
            specifiers in prop::collection::vec(specifier(), 16..60),
            methods in prop::collection::vec(any::<bool>(), 60),
            path in "/[abAB/]{0,6}",
        ) {
            let routes = specifiers.into_iter().zip(methods).enumerate().map(|(number, ((path, case), post_only))| {
                let post = StringMatcher {
                    match_pattern: Some(MatchPattern::Exact("POST".into())),
                    ignore_case: false,
                };
                let method = pb::HeaderMatcher {
                    name: ":method".into(),
                    header_match_specifier: Some(pb::header_matcher::HeaderMatchSpecifier::StringMatch(post)),
                    ..Default::default()
                };
                pb::Route {
                    name: number.to_string(),
                    r#match: Some(pb::RouteMatch {
                        path_specifier: Some(path),
                        case_sensitive: Some(case),
                        headers: if post_only { vec![method] } else { Vec::new() },
                        ..Default::default()
                    }),
                    action: Some(direct(200)),
                    ..Default::default()
                }
            });
            let proto = pb::VirtualHost { name: "v".into(), routes: routes.collect(), ..Default::default() };
            let host = VirtualHost::compile(&proto, 0, &mut NoFilters::default()).unwrap();
            let request = RequestHead::with("GET", "http", "a.test", &path);
            let linear = first_match(&host.routes, &request, path.as_bytes(), 0).map(|r| &r.name);
            prop_assert!(host.index.is_some());
            prop_assert_eq!(host.find(&request, false, 0).map(|r| &r.name), linear);
        }
    }
}
