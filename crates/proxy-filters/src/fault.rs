//! `envoy.filters.http.fault`: accepted where it injects nothing (`envoy.extensions.filters.http.fault.v3.HTTPFault`).

use api_envoy::envoy::extensions::filters::http::fault::v3::HttpFault;
use proxy_core::ConfigResult;
use proxy_core::error::refuse_unsupported;

/// A fault filter that injects nothing.
#[derive(Clone, Copy, Debug)]
pub struct FaultConfig;

impl FaultConfig {
    /// Reads a configuration without faults.
    ///
    /// # Errors
    /// A fault is configured, which this proxy does not inject.
    pub fn compile(proto: &HttpFault) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("delay", proto.delay.is_some()),
            ("abort", proto.abort.is_some()),
            ("response_rate_limit", proto.response_rate_limit.is_some()),
        ])?;
        Ok(FaultConfig)
    }
}
