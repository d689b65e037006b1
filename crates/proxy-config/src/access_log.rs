//! Access logs in configuration (`envoy.config.accesslog.v3.AccessLog`): checked here, run by `proxy-observe`.

use std::sync::Arc;

use api_envoy::envoy::config::accesslog::v3::{AccessLog, access_log::ConfigType};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};

use crate::filters::{self, Category};

/// One access log whose logger is known. Cheap to clone; each worker makes its own logger of it.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    /// The configuration as it came.
    pub proto: Arc<AccessLog>,
}

/// Checks a list of access logs; `field` is its name in the enclosing message.
///
/// # Errors
/// A logger that this proxy does not have.
pub fn compile(field: &str, logs: &[AccessLog]) -> ConfigResult<Vec<AccessLogConfig>> {
    logs.iter()
        .enumerate()
        .map(|(i, log)| one(log).within_index(field, i))
        .collect()
}

fn one(log: &AccessLog) -> ConfigResult<AccessLogConfig> {
    let type_url = match &log.config_type {
        Some(ConfigType::TypedConfig(any)) => any.type_url.as_str(),
        None => "",
    };
    match filters::find(Category::AccessLogger, &log.name, type_url) {
        Some(_) => Ok(AccessLogConfig {
            proto: Arc::new(log.clone()),
        }),
        None => Err(ConfigError::at(
            "typed_config",
            format!("no access logger {} ({type_url})", log.name),
        )),
    }
}
