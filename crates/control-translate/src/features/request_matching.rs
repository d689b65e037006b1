//! Which requests a route is for (`http[].match`).

use std::collections::BTreeMap;

use api_envoy::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
};
use api_envoy::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use api_istio::networking::{HttpMatchRequest, StringMatch, StringMatchKind};
use control_snapshot::{Profile, kubernetes::selects};

/// Headers that stand for claims of a JWT.
const CLAIM_PREFIX: &str = "@request.auth.claims";
/// What stands for "any value" in a header's regex; it is no regex.
const ANY_VALUE: &str = "*";

/// Whether a match can hold at all for this proxy, gateway and port.
pub(crate) fn applies(
    request: &HttpMatchRequest,
    profile: &Profile,
    gateway: &[&str],
    listener_port: u32,
) -> bool {
    if request.port != 0 && request.port != listener_port {
        return false;
    }
    source_applies(
        &request.gateways,
        &request.source_labels,
        &request.source_namespace,
        profile,
        gateway,
    )
}

/// Whether a match's source holds for this proxy. Gateways named in a match take the place of labels and namespace.
pub(crate) fn source_applies(
    gateways: &[String],
    labels: &BTreeMap<String, String>,
    namespace: &str,
    profile: &Profile,
    gateway: &[&str],
) -> bool {
    if !gateways.is_empty() {
        return gateways.iter().any(|g| gateway.contains(&g.as_str()));
    }
    selects(labels, &profile.labels) && (namespace.is_empty() || *namespace == *profile.namespace)
}

/// Why a match cannot be translated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsupported(pub(crate) &'static str);

/// Envoy's matcher; without a match, every path.
pub(crate) fn translate(request: Option<&HttpMatchRequest>) -> Result<RouteMatch, Unsupported> {
    let everything = PathSpecifier::Prefix("/".to_owned());
    let Some(request) = request else {
        return Ok(RouteMatch {
            path_specifier: Some(everything),
            ..RouteMatch::default()
        });
    };
    let claims =
        |headers: &BTreeMap<String, StringMatch>| headers.keys().any(|k| k.starts_with(CLAIM_PREFIX));
    if claims(&request.headers) || claims(&request.without_headers) {
        return Err(Unsupported(
            "routing by claims of a token is not available in this version",
        ));
    }
    let mut headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| header(name, value, false))
        .collect();
    headers.extend(
        request
            .without_headers
            .iter()
            .map(|(name, value)| header(name, value, true)),
    );
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    let pseudo = [
        (":method", &request.method),
        (":authority", &request.authority),
        (":scheme", &request.scheme),
    ];
    for (name, value) in pseudo {
        headers.extend(value.as_ref().map(|value| header(name, value, false)));
    }
    Ok(RouteMatch {
        path_specifier: Some(request.uri.as_ref().and_then(path).unwrap_or(everything)),
        case_sensitive: Some(!request.ignore_uri_case),
        headers,
        query_parameters: request
            .query_params
            .iter()
            .map(|(n, v)| query_parameter(n, v))
            .collect(),
        ..RouteMatch::default()
    })
}

fn path(uri: &StringMatch) -> Option<PathSpecifier> {
    match uri.kind() {
        StringMatchKind::Exact(path) => Some(PathSpecifier::Path(path.to_owned())),
        StringMatchKind::Prefix(prefix) => Some(PathSpecifier::Prefix(prefix.to_owned())),
        StringMatchKind::Regex(regex) => Some(PathSpecifier::SafeRegex(regex_matcher(regex))),
        StringMatchKind::Present => None,
    }
}

/// A header that must (or must not) be there, or have a value. A header that must not have a value may be absent.
fn header(name: &str, value: &StringMatch, invert: bool) -> HeaderMatcher {
    let matcher = string_matcher(value).filter(|_| !any_value(value));
    HeaderMatcher {
        name: name.to_owned(),
        invert_match: invert,
        treat_missing_header_as_empty: invert && matcher.is_some(),
        header_match_specifier: Some(matcher.map_or(
            HeaderMatchSpecifier::PresentMatch(true),
            HeaderMatchSpecifier::StringMatch,
        )),
    }
}

fn any_value(value: &StringMatch) -> bool {
    value.kind() == StringMatchKind::Regex(ANY_VALUE)
}

fn query_parameter(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let matcher = string_matcher(value).filter(|_| !any_value(value));
    QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(matcher.map_or(
            QueryParameterMatchSpecifier::PresentMatch(true),
            QueryParameterMatchSpecifier::StringMatch,
        )),
    }
}

/// Envoy's string matcher; none for a match that only wants presence.
pub(crate) fn string_matcher(value: &StringMatch) -> Option<StringMatcher> {
    let pattern = match value.kind() {
        StringMatchKind::Exact(text) => MatchPattern::Exact(text.to_owned()),
        StringMatchKind::Prefix(text) => MatchPattern::Prefix(text.to_owned()),
        StringMatchKind::Regex(text) => MatchPattern::SafeRegex(regex_matcher(text)),
        StringMatchKind::Present => return None,
    };
    Some(StringMatcher {
        match_pattern: Some(pattern),
        ..StringMatcher::default()
    })
}

fn regex_matcher(regex: &str) -> RegexMatcher {
    RegexMatcher {
        regex: regex.to_owned(),
        ..RegexMatcher::default()
    }
}

/// Every regular expression of a match.
pub(crate) fn regexes(request: &HttpMatchRequest) -> impl Iterator<Item = &str> {
    let single = [&request.uri, &request.scheme, &request.method, &request.authority]
        .into_iter()
        .flatten();
    let maps = [&request.headers, &request.without_headers, &request.query_params];
    single
        .chain(maps.into_iter().flat_map(|m| m.values()))
        .filter_map(|value| match value.kind() {
            StringMatchKind::Regex(regex) if regex != ANY_VALUE => Some(regex),
            _ => None,
        })
}

/// Whether every request of a virtual host matches.
pub(crate) fn is_catch_all(route_match: &RouteMatch) -> bool {
    let every_path = match &route_match.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    every_path
        && route_match.headers.is_empty()
        && route_match.query_parameters.is_empty()
        && route_match.dynamic_metadata.is_empty()
}
