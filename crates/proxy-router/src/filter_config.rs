//! Configuration of HTTP filters per route (`typed_per_filter_config`).

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use proxy_core::error::ConfigContext as _;
use proxy_core::{ClusterSlot, ConfigResult};

/// A filter's own configuration for a route, compiled. The filter knows its type.
pub type FilterConfig = Arc<dyn Any + Send + Sync>;

/// What route compilation needs from outside.
pub trait RouteContext {
    /// The slot of a cluster name.
    fn cluster(&mut self, name: &str) -> ClusterSlot;

    /// Compiles the configuration of the filter called `filter`.
    ///
    /// # Errors
    /// The filter is not known, or refuses the configuration.
    fn filter_config(&mut self, filter: &str, config: &api_envoy::Any) -> ConfigResult<FilterConfig>;
}

/// The configurations at one level, by filter name.
#[derive(Clone, Default)]
pub struct FilterConfigs {
    configs: Vec<(Box<str>, FilterConfig)>,
}

impl std::fmt::Debug for FilterConfigs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.configs.iter().map(|(name, _)| name))
            .finish()
    }
}

impl FilterConfigs {
    pub(crate) fn compile(
        protos: &BTreeMap<String, api_envoy::Any>,
        context: &mut dyn RouteContext,
    ) -> ConfigResult<Self> {
        let compiled = protos.iter().map(|(name, config)| {
            let compiled = context.filter_config(name, config).map_err(|e| e.key(name));
            Ok((name.as_str().into(), compiled.within("typed_per_filter_config")?))
        });
        Ok(Self {
            configs: compiled.collect::<ConfigResult<_>>()?,
        })
    }

    /// The configuration of a filter at this level.
    #[must_use]
    pub fn get(&self, filter: &str) -> Option<&FilterConfig> {
        self.configs
            .iter()
            .find(|(name, _)| **name == *filter)
            .map(|(_, config)| config)
    }
}
