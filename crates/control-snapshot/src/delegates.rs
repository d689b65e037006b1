//! Delegation: a root VirtualService hands part of its HTTP routes to another one (`http[].delegate`).
//!
//! Every match of a delegate must lie within one of the root's; a route whose match does not is left out.

use api_istio::networking::{HttpMatchRequest, HttpRoute, StringMatch, StringMatchKind};

/// The routes of a delegate, narrowed to the root's match and completed with the root's settings.
#[must_use]
pub(crate) fn merge(root: &HttpRoute, delegate: &[HttpRoute]) -> Vec<Option<HttpRoute>> {
    delegate.iter().map(|route| merge_route(root, route)).collect()
}

fn merge_route(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let mut out = delegate.clone();
    out.r#match = merge_matches(&root.r#match, &delegate.r#match)?;
    out.name = joined_name(&root.name, &delegate.name);
    out.rewrite = out.rewrite.or_else(|| root.rewrite.clone());
    if out.direct_response.is_none() {
        out.timeout = out.timeout.or(root.timeout);
        out.retries = out.retries.or_else(|| root.retries.clone());
        out.fault = out.fault.or_else(|| root.fault.clone());
        out.mirror = out.mirror.or_else(|| root.mirror.clone());
        out.mirror_percent = out.mirror_percent.or(root.mirror_percent);
        out.mirror_percentage = out.mirror_percentage.or_else(|| root.mirror_percentage.clone());
        out.cors_policy = out.cors_policy.or_else(|| root.cors_policy.clone());
        if out.mirrors.is_empty() {
            out.mirrors.clone_from(&root.mirrors);
        }
    }
    out.headers = out.headers.or_else(|| root.headers.clone());
    Some(out)
}

fn joined_name(root: &str, delegate: &str) -> String {
    match (root, delegate) {
        ("", name) | (name, "") => name.to_owned(),
        (root, delegate) => format!("{root}-{delegate}"),
    }
}

/// `None` when one of the delegate's matches lies outside all of the root's.
fn merge_matches(root: &[HttpMatchRequest], delegate: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for leaf in delegate {
        let before = merged.len();
        merged.extend(
            root.iter()
                .filter(|r| !conflicts(r, leaf))
                .map(|r| merge_match(r, leaf)),
        );
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> HttpMatchRequest {
    let mut out = leaf.clone();
    out.name = joined_name(&root.name, &leaf.name);
    out.uri = out.uri.or_else(|| root.uri.clone());
    out.scheme = out.scheme.or_else(|| root.scheme.clone());
    out.method = out.method.or_else(|| root.method.clone());
    out.authority = out.authority.or_else(|| root.authority.clone());
    inherit(&mut out.headers, &root.headers);
    inherit(&mut out.without_headers, &root.without_headers);
    inherit(&mut out.query_params, &root.query_params);
    inherit(&mut out.source_labels, &root.source_labels);
    if out.port == 0 {
        out.port = root.port;
    }
    if out.source_namespace.is_empty() {
        out.source_namespace.clone_from(&root.source_namespace);
    }
    if out.gateways.is_empty() {
        out.gateways.clone_from(&root.gateways);
    }
    if out.stat_prefix.is_empty() {
        out.stat_prefix.clone_from(&root.stat_prefix);
    }
    out
}

fn inherit<V: Clone>(
    own: &mut std::collections::BTreeMap<String, V>,
    root: &std::collections::BTreeMap<String, V>,
) {
    for (key, value) in root {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// Whether a delegate's match cannot lie within the root's.
fn conflicts(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let strings = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    strings
        .into_iter()
        .any(|(r, l)| string_conflict(r.as_ref(), l.as_ref()))
        || maps.into_iter().any(|(r, l)| {
            l.iter()
                .any(|(key, leaf)| string_conflict(r.get(key), Some(leaf)))
        })
        || root.ignore_uri_case != leaf.ignore_uri_case
        || (root.port > 0 && leaf.port > 0 && root.port != leaf.port)
        || (!root.source_namespace.is_empty()
            && !leaf.source_namespace.is_empty()
            && root.source_namespace != leaf.source_namespace)
        || leaf
            .source_labels
            .iter()
            .any(|(k, v)| root.source_labels.get(k).is_some_and(|r| r != v))
        || (!root.gateways.is_empty() && leaf.gateways.iter().any(|g| !root.gateways.contains(g)))
}

fn string_conflict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    use StringMatchKind::{Exact, Prefix, Present, Regex};
    let (Some(root), Some(leaf)) = (root, leaf) else {
        return false;
    };
    match (root.kind(), leaf.kind()) {
        // A root that only wants presence is satisfied by whatever the delegate wants.
        (Present, _) => false,
        (Exact(root), Exact(leaf)) => root != leaf,
        (Prefix(root), Prefix(leaf) | Exact(leaf)) => !leaf.starts_with(root),
        (Regex(_), _) | (_, Regex(_)) | (Exact(_), _) | (Prefix(_), Present) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(kind: fn(String) -> StringMatch, value: &str) -> HttpMatchRequest {
        HttpMatchRequest {
            uri: Some(kind(value.to_owned())),
            ..HttpMatchRequest::default()
        }
    }

    fn prefix(value: String) -> StringMatch {
        StringMatch {
            prefix: Some(value),
            ..StringMatch::default()
        }
    }

    fn exact(value: String) -> StringMatch {
        StringMatch {
            exact: Some(value),
            ..StringMatch::default()
        }
    }

    fn route(matches: Vec<HttpMatchRequest>) -> HttpRoute {
        HttpRoute {
            r#match: matches,
            ..HttpRoute::default()
        }
    }

    #[test]
    fn a_delegate_narrows_the_roots_match() {
        let root = route(vec![uri(prefix, "/reviews")]);
        let merged = merge(&root, &[route(vec![uri(prefix, "/reviews/one")]), route(vec![])]);
        let uris: Vec<_> = merged
            .iter()
            .map(|r| r.as_ref().map(|r| r.r#match[0].uri.clone()))
            .collect();
        assert_eq!(
            uris,
            [
                Some(Some(prefix("/reviews/one".into()))),
                Some(Some(prefix("/reviews".into())))
            ]
        );
    }

    #[test]
    fn a_match_outside_the_roots_is_left_out() {
        let root = route(vec![uri(prefix, "/reviews")]);
        assert_eq!(merge(&root, &[route(vec![uri(exact, "/elsewhere")])]), [None]);
    }
}
