//! Answers without an upstream (`http[].directResponse`).

use api_envoy::envoy::config::core::v3::{DataSource, data_source::Specifier};
use api_envoy::envoy::config::route::v3::DirectResponseAction;
use api_istio::networking::HttpDirectResponse;

/// The answer of a route.
pub(crate) fn build(response: &HttpDirectResponse) -> DirectResponseAction {
    let body = response
        .body
        .as_ref()
        .and_then(|body| match (&body.string, &body.bytes) {
            (Some(text), _) => Some(Specifier::InlineString(text.clone())),
            (None, Some(bytes)) => Some(Specifier::InlineBytes(bytes.0.clone().into())),
            (None, None) => None,
        });
    DirectResponseAction {
        status: response.status,
        body: body.map(|specifier| DataSource {
            specifier: Some(specifier),
            ..DataSource::default()
        }),
        ..DirectResponseAction::default()
    }
}
