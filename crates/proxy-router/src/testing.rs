//! Shared by this crate's tests.

use api_envoy::envoy::config::route::v3 as pb;
use proxy_core::{ClusterSlot, ConfigError, ConfigResult};

use crate::filter_config::{FilterConfig, RouteContext};

/// Numbers clusters in the order in which they are named, and knows no filter.
#[derive(Debug, Default)]
pub(crate) struct NoFilters {
    pub(crate) clusters: Vec<String>,
}

impl RouteContext for NoFilters {
    fn cluster(&mut self, name: &str) -> ClusterSlot {
        let at = self
            .clusters
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                self.clusters.push(name.to_owned());
                self.clusters.len() - 1
            });
        ClusterSlot(at as u32)
    }

    fn filter_config(&mut self, filter: &str, _: &api_envoy::Any) -> ConfigResult<FilterConfig> {
        Err(ConfigError::new(format!("no filter {filter}")))
    }
}

/// An action that answers with `status`.
pub(crate) fn direct(status: u32) -> pb::route::Action {
    pb::route::Action::DirectResponse(pb::DirectResponseAction {
        status,
        ..Default::default()
    })
}
