//! TLS towards clients: the transport socket of a filter chain
//! (`envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::any;
use api_envoy::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext as Proto;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use proxy_upstream::SslStats;
use proxy_upstream::tls_context::{self, Translated};
use telemetry::stats::Scope;
use tls::ServerContext;

use crate::filters::{self, Category};
use crate::limits::DEFAULT_TRANSPORT_SOCKET_CONNECT_TIMEOUT;

/// TLS towards clients.
#[derive(Debug)]
pub struct DownstreamTls {
    /// What handshakes are done with.
    pub context: ServerContext,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// What came of handshakes.
    pub stats: SslStats,
}

/// What becomes of a transport socket.
pub(crate) enum Compiled {
    /// Plain bytes.
    RawBuffer,
    /// TLS.
    Tls(Arc<DownstreamTls>),
    /// TLS with secrets that this proxy cannot fetch.
    Unavailable(ConfigError),
}

/// Reads the transport socket of a chain. `timeout` is the chain's `transport_socket_connect_timeout`.
pub(crate) fn compile(
    socket: &TransportSocket,
    timeout: Option<Duration>,
    scope: &Scope,
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
    let Translated { settings, secret } = tls_context::downstream(&proto).within("typed_config")?;
    if let Some(secret) = secret {
        return Ok(Compiled::Unavailable(secret.within("typed_config")));
    }
    let context = ServerContext::new(&settings, SystemTime::now())
        .map_err(|error| ConfigError::at("typed_config", error.to_string()))?;
    if !context.left_out().is_empty() {
        tracing::info!(names = ?context.left_out(), "left out of a TLS context, as nothing here offers them");
    }
    let default = DEFAULT_TRANSPORT_SOCKET_CONNECT_TIMEOUT;
    Ok(Compiled::Tls(Arc::new(DownstreamTls {
        context,
        timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(default),
        stats: SslStats::new(scope),
    })))
}

#[cfg(test)]
mod tests;
