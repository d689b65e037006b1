//! `istio.alpn`: the application protocols that the TLS handshake towards the host offers, by the version of HTTP that
//! will be spoken there (`istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`). The server's sidecar tells by
//! them that it is spoken to by another sidecar, and in which protocol.

use api_envoy::istio::envoy::config::filter::http::alpn::v2alpha1::FilterConfig;
use api_envoy::istio::envoy::config::filter::http::alpn::v2alpha1::filter_config::Protocol;
use proxy_core::{ConfigError, ConfigResult};

/// The version of HTTP that is spoken to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// What is offered in place of the transport socket's own protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlpnConfig {
    /// By [`UpstreamVersion`]; empty where the filter leaves it as it is.
    overrides: [Vec<String>; 3],
}

impl AlpnConfig {
    /// Reads the configuration. Of several entries for one version the last counts, as in Envoy.
    ///
    /// # Errors
    /// An unknown version.
    pub fn compile(proto: &FilterConfig) -> ConfigResult<Self> {
        let mut config = Self::default();
        for (index, entry) in proto.alpn_override.iter().enumerate() {
            let version = match Protocol::try_from(entry.upstream_protocol) {
                Ok(Protocol::Http10) => UpstreamVersion::Http10,
                Ok(Protocol::Http11) => UpstreamVersion::Http11,
                Ok(Protocol::Http2) => UpstreamVersion::Http2,
                Err(_) => {
                    let error = ConfigError::at("upstream_protocol", "unknown value");
                    return Err(error.index(index).within("alpn_override"));
                }
            };
            config.overrides[version as usize].clone_from(&entry.alpn_override);
        }
        Ok(config)
    }

    /// What is offered to a host that this version will be spoken to, in place of what its cluster says; empty for
    /// no change.
    #[must_use]
    pub fn offered(&self, version: UpstreamVersion) -> &[String] {
        &self.overrides[version as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::json::Schema;
    use serde_json::json;

    fn istios() -> AlpnConfig {
        let proto = Schema::get().parse(&json!({ "alpn_override": [
            { "alpn_override": ["istio-http/1.0", "istio", "http/1.0"] },
            { "upstream_protocol": "HTTP11", "alpn_override": ["istio-http/1.1", "istio", "http/1.1"] },
        ] }));
        AlpnConfig::compile(&proto.unwrap()).unwrap()
    }

    #[test]
    fn each_version_has_its_own_names_or_none() {
        let config = istios();
        assert_eq!(config.offered(UpstreamVersion::Http10)[0], "istio-http/1.0");
        assert_eq!(config.offered(UpstreamVersion::Http11)[0], "istio-http/1.1");
        assert!(config.offered(UpstreamVersion::Http2).is_empty());
    }
}
