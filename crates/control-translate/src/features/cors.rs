//! Cross-origin requests (`http[].corsPolicy`).

use api_envoy::envoy::config::core::v3::RuntimeFractionalPercent;
use api_envoy::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use api_envoy::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use api_istio::networking::{CorsPolicy as Policy, UnmatchedPreflights};

use super::fault_injection::hundredths;
use super::request_matching::string_matcher;

/// The CORS filter's configuration of a route.
pub(crate) fn build(policy: &Policy) -> CorsPolicy {
    let exact = |origin: &String| StringMatcher {
        match_pattern: Some(MatchPattern::Exact(origin.clone())),
        ..StringMatcher::default()
    };
    let origins = policy.allow_origins.iter().filter_map(string_matcher);
    CorsPolicy {
        allow_origin_string_match: if policy.allow_origins.is_empty() {
            policy.allow_origin.iter().map(exact).collect()
        } else {
            origins.collect()
        },
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy
            .max_age
            .map(|d| d.0.as_secs().to_string())
            .unwrap_or_default(),
        allow_credentials: policy.allow_credentials,
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(hundredths(100)),
            ..RuntimeFractionalPercent::default()
        }),
        forward_not_matching_preflights: Some(policy.unmatched_preflights != UnmatchedPreflights::Ignore),
        ..CorsPolicy::default()
    }
}
