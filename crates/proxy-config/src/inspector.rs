//! `envoy.filters.listener.tls_inspector` and `envoy.filters.listener.http_inspector`: how much they look at, and what
//! they count.

use api_envoy::any;
use api_envoy::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector as TlsProto;
use proxy_core::error::refuse_unsupported;
use proxy_core::{ConfigError, ConfigResult};
use telemetry::stats::{Counter, Histogram, Registry, Scope};
use tls::limits::MAX_CLIENT_HELLO_BYTES;

use crate::limits::MIN_CLIENT_HELLO_BYTES;

/// `envoy.filters.listener.tls_inspector`, ready to run.
#[derive(Debug)]
pub struct TlsInspector {
    /// Most bytes of a ClientHello, with record headers.
    pub max_client_hello_bytes: usize,
    /// Counters.
    pub stats: TlsInspectorStats,
}

/// `tls_inspector.` statistics.
#[derive(Debug)]
pub struct TlsInspectorStats {
    /// Keeps the handles valid.
    pub scope: Scope,
    /// Connections that were closed because their ClientHello is too long.
    pub client_hello_too_large: Counter,
    /// Connections that begin with a ClientHello.
    pub tls_found: Counter,
    /// Connections that do not.
    pub tls_not_found: Counter,
    /// Of those that do: with application protocols.
    pub alpn_found: Counter,
    /// Without.
    pub alpn_not_found: Counter,
    /// Of those that do: with a server name.
    pub sni_found: Counter,
    /// Without.
    pub sni_not_found: Counter,
    /// Bytes that were looked at.
    pub bytes_processed: Histogram,
}

impl TlsInspector {
    /// Reads the filter's configuration; nothing is all defaults.
    ///
    /// # Errors
    /// A malformed value, or a field that is not enforced.
    pub(crate) fn compile(typed: Option<&api_envoy::Any>, registry: &Registry) -> ConfigResult<Self> {
        let proto: TlsProto = match typed {
            None => TlsProto::default(),
            Some(typed) => any::unpack(typed).map_err(|e| ConfigError::new(e.to_string()))?,
        };
        // `initial_read_buffer_size` changes how often is read, and nothing that is found.
        refuse_unsupported(&[
            (
                "enable_ja3_fingerprinting",
                proto.enable_ja3_fingerprinting == Some(true),
            ),
            (
                "enable_ja4_fingerprinting",
                proto.enable_ja4_fingerprinting == Some(true),
            ),
            (
                "close_connection_on_client_hello_parsing_errors",
                proto.close_connection_on_client_hello_parsing_errors,
            ),
        ])?;
        let most = proto
            .max_client_hello_size
            .map_or(MAX_CLIENT_HELLO_BYTES, |most| most as usize);
        if !(MIN_CLIENT_HELLO_BYTES..=MAX_CLIENT_HELLO_BYTES).contains(&most) {
            let reason = format!("must be from {MIN_CLIENT_HELLO_BYTES} to {MAX_CLIENT_HELLO_BYTES}");
            return Err(ConfigError::at("max_client_hello_size", reason));
        }
        Ok(Self {
            max_client_hello_bytes: most,
            stats: TlsInspectorStats::new(registry.scope("tls_inspector.")),
        })
    }
}

impl TlsInspectorStats {
    fn new(scope: Scope) -> Self {
        Self {
            client_hello_too_large: scope.counter("client_hello_too_large"),
            tls_found: scope.counter("tls_found"),
            tls_not_found: scope.counter("tls_not_found"),
            alpn_found: scope.counter("alpn_found"),
            alpn_not_found: scope.counter("alpn_not_found"),
            sni_found: scope.counter("sni_found"),
            sni_not_found: scope.counter("sni_not_found"),
            bytes_processed: scope.histogram("bytes_processed"),
            scope,
        }
    }
}

/// `http_inspector.` statistics.
#[derive(Debug)]
pub struct HttpInspectorStats {
    /// Keeps the handles valid.
    pub scope: Scope,
    /// Connections that begin with a request of HTTP/1.0.
    pub http10_found: Counter,
    /// Of HTTP/1.1.
    pub http11_found: Counter,
    /// With the preface of HTTP/2.
    pub http2_found: Counter,
    /// With something else.
    pub http_not_found: Counter,
}

impl HttpInspectorStats {
    pub(crate) fn new(registry: &Registry) -> Self {
        let scope = registry.scope("http_inspector.");
        Self {
            http10_found: scope.counter("http10_found"),
            http11_found: scope.counter("http11_found"),
            http2_found: scope.counter("http2_found"),
            http_not_found: scope.counter("http_not_found"),
            scope,
        }
    }
}
