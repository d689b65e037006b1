//! Rewriting of path and authority (`http[].rewrite`).

use api_envoy::envoy::config::route::v3::{RouteAction, route_action::HostRewriteSpecifier};
use api_envoy::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use api_istio::networking::HttpRewrite;

/// Sets the rewrites of a route.
///
/// `uri` replaces what the route's match matched: the prefix, or the whole path of an exact or regex match.
pub(crate) fn apply(action: &mut RouteAction, rewrite: &HttpRewrite) {
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(RegexMatchAndSubstitute {
            pattern: Some(RegexMatcher {
                regex: regex.r#match.clone(),
                ..RegexMatcher::default()
            }),
            substitution: regex.rewrite.clone(),
        });
    } else {
        action.prefix_rewrite.clone_from(&rewrite.uri);
    }
    if !rewrite.authority.is_empty() {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(
            rewrite.authority.clone(),
        ));
    }
}
