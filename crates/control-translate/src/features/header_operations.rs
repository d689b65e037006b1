//! Headers set, added and removed (`http[].headers`, `http[].route[].headers`).

use std::collections::BTreeMap;

use api_envoy::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};
use api_istio::networking::{HeaderOperations, Headers};

/// The operations in Envoy's form.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Operations {
    pub(crate) request_add: Vec<HeaderValueOption>,
    pub(crate) request_remove: Vec<String>,
    pub(crate) response_add: Vec<HeaderValueOption>,
    pub(crate) response_remove: Vec<String>,
    /// A new authority: Envoy rewrites the host by its own means, not as a header.
    pub(crate) authority: Option<String>,
}

/// Translates the operations of a route or destination.
pub(crate) fn translate(headers: Option<&Headers>) -> Operations {
    let Some(headers) = headers else {
        return Operations::default();
    };
    let mut out = Operations::default();
    if let Some(request) = &headers.request {
        out.request_add = additions(request);
        out.request_remove = removals(request);
        out.authority = authority(&request.set).or_else(|| authority(&request.add));
    }
    if let Some(response) = &headers.response {
        out.response_add = additions(response);
        out.response_remove = removals(response);
    }
    out
}

/// Replacements first, then additions to them; each sorted by name.
fn additions(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let set = options(&operations.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
    set.chain(options(&operations.add, HeaderAppendAction::AppendIfExistsOrAdd))
        .collect()
}

fn options(
    headers: &BTreeMap<String, String>,
    action: HeaderAppendAction,
) -> impl Iterator<Item = HeaderValueOption> {
    headers
        .iter()
        .filter(|(key, _)| !is_internal(key))
        .map(move |(key, value)| HeaderValueOption {
            header: Some(HeaderValue {
                key: key.clone(),
                value: value.clone(),
                ..HeaderValue::default()
            }),
            append_action: action.into(),
            ..HeaderValueOption::default()
        })
}

fn removals(operations: &HeaderOperations) -> Vec<String> {
    operations
        .remove
        .iter()
        .filter(|key| !is_internal(key))
        .cloned()
        .collect()
}

/// Pseudo-headers and the host are not headers to Envoy.
pub(crate) fn is_internal(key: &str) -> bool {
    key.starts_with(':') || key.eq_ignore_ascii_case("host")
}

fn authority(headers: &BTreeMap<String, String>) -> Option<String> {
    let is_authority = |key: &str| key.eq_ignore_ascii_case(":authority") || key.eq_ignore_ascii_case("host");
    headers
        .iter()
        .find(|(key, _)| is_authority(key))
        .map(|(_, value)| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_becomes_a_rewrite_and_pseudo_headers_are_left_alone() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let request = HeaderOperations {
            set: [pair("Host", "new.test"), pair(":path", "/x"), pair("x-a", "1")].into(),
            add: [pair("x-b", "2")].into(),
            remove: vec!["x-c".to_owned(), ":method".to_owned()],
        };
        let operations = translate(Some(&Headers {
            request: Some(request),
            response: None,
        }));
        assert_eq!(operations.authority.as_deref(), Some("new.test"));
        let names: Vec<_> = operations
            .request_add
            .iter()
            .filter_map(|h| Some(&h.header.as_ref()?.key))
            .collect();
        assert_eq!(names, ["x-a", "x-b"]);
        assert_eq!(operations.request_remove, ["x-c"]);
    }
}
