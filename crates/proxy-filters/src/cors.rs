//! `envoy.filters.http.cors`: accepted without policies (`envoy.extensions.filters.http.cors.v3`). The filter alone
//! does nothing; policies stand on routes.

use api_envoy::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy};

/// A CORS filter without policies.
#[derive(Clone, Copy, Debug)]
pub struct CorsConfig;

impl CorsConfig {
    /// Reads the configuration, which has no fields.
    pub fn compile(_: &Cors) -> Self {
        CorsConfig
    }
}

/// True for a policy that allows and adds nothing.
pub fn is_empty(policy: &CorsPolicy) -> bool {
    *policy == CorsPolicy::default()
}
