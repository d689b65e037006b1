//! TLS towards clients: the transport socket of a filter chain
//! (`envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`).

use std::sync::Arc;
use std::time::Duration;

use api_envoy::any;
use api_envoy::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext as Proto;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use proxy_upstream::SslStats;
use proxy_upstream::secrets::{Origins, SecretKey, SecretStore};
use proxy_upstream::tls_context::{self, Translated};
use telemetry::stats::Scope;
use tls::{Current, ServerContext};

use crate::filters::{self, Category};
use crate::limits::DEFAULT_TRANSPORT_SOCKET_CONNECT_TIMEOUT;

/// What Envoy calls the statistics of contexts towards clients.
const FACTORY: &str = "server_ssl_socket_factory";

/// TLS towards clients.
#[derive(Debug)]
pub struct DownstreamTls {
    /// What handshakes are done with; nothing as long as its secrets have not come.
    pub current: Current<ServerContext>,
    /// Where the certificates came from.
    pub origins: Origins,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// What came of handshakes.
    pub stats: SslStats,
}

/// What becomes of a transport socket.
pub(crate) enum Compiled {
    /// Plain bytes.
    RawBuffer,
    /// TLS, and the secrets that it waits for.
    Tls(Arc<DownstreamTls>, Vec<SecretKey>),
}

/// Reads the transport socket of a chain. `timeout` is the chain's `transport_socket_connect_timeout`.
pub(crate) fn compile(
    socket: &TransportSocket,
    timeout: Option<Duration>,
    scope: &Scope,
    store: &mut SecretStore,
) -> ConfigResult<Compiled> {
    let typed = socket.config_type.as_ref();
    let typed = typed.map(|ConfigType::TypedConfig(typed)| typed);
    let type_url = typed.map_or("", |typed| typed.type_url.as_str());
    match filters::find(Category::TransportSocket, &socket.name, type_url).map(|found| found.name) {
        Some("envoy.transport_sockets.raw_buffer") => return Ok(Compiled::RawBuffer),
        Some(_) => {}
        None => {
            let reason = format!("no transport socket {} ({type_url})", socket.name);
            return Err(ConfigError::at("typed_config", reason));
        }
    }
    let typed = typed.ok_or_else(|| ConfigError::at("typed_config", "a configuration is needed"))?;
    let proto: Proto =
        any::unpack(typed).map_err(|error| ConfigError::at("typed_config", error.to_string()))?;
    let Translated {
        settings,
        secrets,
        origins,
    } = tls_context::downstream(&proto).within("typed_config")?;
    let context = store
        .context(settings, &secrets, (scope, FACTORY))
        .within("typed_config")?;
    let default = DEFAULT_TRANSPORT_SOCKET_CONNECT_TIMEOUT;
    let tls = DownstreamTls {
        current: context.current,
        origins,
        timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(default),
        stats: SslStats::new(scope, FACTORY),
    };
    Ok(Compiled::Tls(Arc::new(tls), context.secrets))
}

#[cfg(test)]
mod tests;
