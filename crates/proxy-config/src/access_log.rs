//! Access logs in configuration (`envoy.config.accesslog.v3.AccessLog`): compiled, with their files open.

use std::rc::Rc;
use std::sync::Arc;

use api_envoy::envoy::config::accesslog::v3::{AccessLog as Proto, access_log::ConfigType};
use proxy_core::error::ConfigContext as _;
use proxy_core::substitution::ProcessInfo;
use proxy_core::{AccessLogger, ConfigError, ConfigResult};
use proxy_observe::file::LogFile;
use proxy_observe::{AccessLog, LogFiles};

use crate::filters::{self, Category};

/// One access log. Shared by all workers; each makes a logger of it.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    log: AccessLog,
    file: Arc<LogFile>,
}

impl AccessLogConfig {
    /// A logger for the calling thread.
    #[must_use]
    pub fn logger(&self, process: Rc<ProcessInfo>) -> Rc<dyn AccessLogger> {
        Rc::new(self.log.logger_to(Arc::clone(&self.file), process))
    }
}

/// Compiles a list of access logs; `field` is its name in the enclosing message.
///
/// # Errors
/// A logger that this proxy does not have, an unknown operator, or a file that cannot be opened.
pub fn compile(field: &str, logs: &[Proto], files: &LogFiles) -> ConfigResult<Vec<AccessLogConfig>> {
    logs.iter()
        .enumerate()
        .map(|(i, log)| one(log, files).within_index(field, i))
        .collect()
}

fn one(proto: &Proto, files: &LogFiles) -> ConfigResult<AccessLogConfig> {
    let type_url = match &proto.config_type {
        Some(ConfigType::TypedConfig(any)) => any.type_url.as_str(),
        None => "",
    };
    if filters::find(Category::AccessLogger, &proto.name, type_url).is_none() {
        return Err(ConfigError::at(
            "typed_config",
            format!("no access logger {} ({type_url})", proto.name),
        ));
    }
    let log = AccessLog::compile(proto)?;
    let file = files.open(log.path());
    let file =
        file.map_err(|e| ConfigError::at("typed_config", format!("cannot open {}: {e}", log.path())))?;
    Ok(AccessLogConfig { log, file })
}
