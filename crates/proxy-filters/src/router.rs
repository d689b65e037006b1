//! `envoy.filters.http.router`: the options of the filter that ends every chain
//! (`envoy.extensions.filters.http.router.v3.Router`).

use api_envoy::envoy::extensions::filters::http::router::v3::Router;
use proxy_core::ConfigResult;
use proxy_core::error::refuse_unsupported;

/// The router's options.
#[derive(Clone, Debug, Default)]
pub struct RouterConfig {
    /// Whether `x-envoy-*` fields are neither added to requests and responses nor removed from them.
    pub suppress_envoy_headers: bool,
    /// Whether `x-envoy-expected-rq-timeout-ms` of the request sets the timeout.
    pub respect_expected_rq_timeout: bool,
}

impl RouterConfig {
    /// Reads the options. `start_child_span` and `dynamic_stats` change no traffic and are taken as they are.
    ///
    /// # Errors
    /// An option that is not enforced and would change traffic.
    pub fn compile(proto: &Router) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("upstream_log", !proto.upstream_log.is_empty()),
            ("strict_check_headers", !proto.strict_check_headers.is_empty()),
            ("upstream_http_filters", !only_the_codec(proto)),
            (
                "reject_connect_request_early_data",
                proto.reject_connect_request_early_data == Some(true),
            ),
        ])?;
        Ok(RouterConfig {
            suppress_envoy_headers: proto.suppress_envoy_headers,
            respect_expected_rq_timeout: proto.respect_expected_rq_timeout,
        })
    }
}

/// The codec alone is what every router has anyway.
fn only_the_codec(proto: &Router) -> bool {
    proto
        .upstream_http_filters
        .iter()
        .all(|filter| filter.name == "envoy.filters.http.upstream_codec")
}
