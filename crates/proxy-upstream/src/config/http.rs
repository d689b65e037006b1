//! HTTP settings of upstream connections (`envoy.extensions.upstreams.http.v3.HttpProtocolOptions`, and the deprecated
//! fields of `Cluster` that it replaced).

use std::time::Duration;

use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::envoy::config::cluster::v3::cluster::ClusterProtocolSelection;
use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use api_envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use api_envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use api_envoy::{any, wkt};
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

use super::http2::Http2Options;
use crate::limits;

const OPTIONS_KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What is spoken to the cluster's hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, without negotiation.
    Http2,
    /// What the downstream connection speaks.
    UseDownstream,
    /// What the TLS handshake agrees on (ALPN); HTTP/1.1 where it agrees on nothing.
    Auto,
}

/// HTTP settings of upstream connections.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpOptions {
    /// What is spoken to the hosts.
    pub protocol: HttpProtocol,
    /// How long a connection without a request is kept; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// How old a connection may become before it is given no more requests.
    pub max_connection_duration: Option<Duration>,
    /// Requests per connection, 0 is no limit.
    pub max_requests_per_connection: u32,
    /// Most headers in a response; `None` is the codec's default.
    pub max_headers_count: Option<u32>,
    /// Largest head of a response in KiB; `None` is the codec's default.
    pub max_response_headers_kib: Option<u32>,
    /// Longest time of one stream.
    pub max_stream_duration: Option<Duration>,
    /// Whether trailers are passed on over HTTP/1.
    pub enable_trailers: bool,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// What the request has to do with the TLS handshake.
    pub server_name: Option<ServerNameOptions>,
}

/// `UpstreamHttpProtocolOptions`, where it asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNameOptions {
    /// `auto_sni`: the request's host is the server name that is asked for.
    pub ask: bool,
    /// `auto_san_validation`: the server's certificate must be for the request's host.
    pub verify: bool,
    /// `override_auto_sni_header`: the header that names the host instead, where a request has it.
    pub header: Option<Box<str>>,
}

impl ServerNameOptions {
    fn compile(proto: &core::UpstreamHttpProtocolOptions) -> Option<Self> {
        (proto.auto_sni || proto.auto_san_validation).then(|| Self {
            ask: proto.auto_sni,
            verify: proto.auto_san_validation,
            header: Some(proto.override_auto_sni_header.as_str())
                .filter(|name| !name.is_empty())
                .map(Box::from),
        })
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            protocol: HttpProtocol::Http1,
            idle_timeout: Some(limits::DEFAULT_IDLE_TIMEOUT),
            max_connection_duration: None,
            max_requests_per_connection: 0,
            max_headers_count: None,
            max_response_headers_kib: None,
            max_stream_duration: None,
            enable_trailers: false,
            http2: Http2Options::default(),
            server_name: None,
        }
    }
}

impl HttpOptions {
    pub(super) fn compile(proto: &pb::Cluster) -> ConfigResult<Self> {
        let field = "typed_extension_protocol_options";
        if let Some(other) = proto
            .typed_extension_protocol_options
            .keys()
            .find(|k| *k != OPTIONS_KEY)
        {
            return Err(ConfigError::new("no such upstream protocol extension")
                .key(other)
                .within(field));
        }
        match proto.typed_extension_protocol_options.get(OPTIONS_KEY) {
            None => Self::from_deprecated_fields(proto),
            Some(typed) => any::unpack(typed)
                .map_err(|e| ConfigError::new(e.to_string()))
                .and_then(|options| Self::from_options(&options))
                .map_err(|e| e.key(OPTIONS_KEY).within(field)),
        }
    }

    #[allow(deprecated)]
    fn from_deprecated_fields(proto: &pb::Cluster) -> ConfigResult<Self> {
        let mut this = Self {
            max_requests_per_connection: proto.max_requests_per_connection.unwrap_or(0),
            ..Self::default()
        };
        let names = proto.upstream_http_protocol_options.as_ref();
        this.server_name = names.and_then(ServerNameOptions::compile);
        if let Some(common) = &proto.common_http_protocol_options {
            this.read_common(common);
        }
        if let Some(http1) = &proto.http_protocol_options {
            this.read_http1(http1).within("http_protocol_options")?;
        }
        if let Some(http2) = &proto.http2_protocol_options {
            this.protocol = HttpProtocol::Http2;
            this.http2 = Http2Options::compile(http2).within("http2_protocol_options")?;
        }
        if proto.protocol_selection == ClusterProtocolSelection::UseDownstreamProtocol as i32 {
            this.protocol = HttpProtocol::UseDownstream;
        }
        Ok(this)
    }

    fn from_options(options: &HttpProtocolOptions) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("http_filters", !only_the_codec(&options.http_filters)),
            (
                "header_validation_config",
                options.header_validation_config.is_some(),
            ),
            ("outlier_detection", options.outlier_detection.is_some()),
            (
                "request_mirror_policies",
                !options.request_mirror_policies.is_empty(),
            ),
            ("hash_policy", !options.hash_policy.is_empty()),
            ("retry_policy", options.retry_policy.is_some()),
        ])?;
        let mut this = Self::default();
        let names = options.upstream_http_protocol_options.as_ref();
        this.server_name = names.and_then(ServerNameOptions::compile);
        if let Some(common) = &options.common_http_protocol_options {
            this.read_common(common);
        }
        match &options.upstream_protocol_options {
            None => return Err(ConfigError::at("upstream_protocol_options", "missing")),
            Some(UpstreamProtocolOptions::AutoConfig(auto)) => {
                refuse_unsupported(&[
                    ("http3_protocol_options", auto.http3_protocol_options.is_some()),
                    (
                        "alternate_protocols_cache_options",
                        auto.alternate_protocols_cache_options.is_some(),
                    ),
                ])
                .within("auto_config")?;
                this.protocol = HttpProtocol::Auto;
                let versions = (&auto.http_protocol_options, &auto.http2_protocol_options);
                this.read_versions(versions).within("auto_config")?;
            }
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
                let config = explicit.protocol_config.as_ref();
                this.read_explicit(config).within("explicit_http_config")?;
            }
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(same)) => {
                this.protocol = HttpProtocol::UseDownstream;
                let versions = (&same.http_protocol_options, &same.http2_protocol_options);
                this.read_versions(versions)
                    .within("use_downstream_protocol_config")?;
            }
        }
        Ok(this)
    }

    fn read_explicit(&mut self, config: Option<&ProtocolConfig>) -> ConfigResult<()> {
        match config {
            None => Err(ConfigError::at("protocol_config", "missing")),
            Some(ProtocolConfig::HttpProtocolOptions(http1)) => {
                self.read_http1(http1).within("http_protocol_options")
            }
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                self.protocol = HttpProtocol::Http2;
                self.http2 = Http2Options::compile(http2).within("http2_protocol_options")?;
                Ok(())
            }
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                Err(ConfigError::unsupported("http3_protocol_options"))
            }
        }
    }

    fn read_versions(
        &mut self,
        (http1, http2): (
            &Option<core::Http1ProtocolOptions>,
            &Option<core::Http2ProtocolOptions>,
        ),
    ) -> ConfigResult<()> {
        if let Some(http1) = http1 {
            self.read_http1(http1).within("http_protocol_options")?;
        }
        if let Some(http2) = http2 {
            self.http2 = Http2Options::compile(http2).within("http2_protocol_options")?;
        }
        Ok(())
    }

    fn read_common(&mut self, common: &core::HttpProtocolOptions) {
        // A zero idle timeout turns it off; a zero duration elsewhere means "not set".
        if let Some(idle) = &common.idle_timeout {
            self.idle_timeout = Some(wkt::std_duration(idle)).filter(|d| !d.is_zero());
        }
        let set = |d: &Option<_>| d.as_ref().map(wkt::std_duration).filter(|d| !d.is_zero());
        self.max_connection_duration = set(&common.max_connection_duration);
        self.max_stream_duration = set(&common.max_stream_duration);
        self.max_headers_count = common.max_headers_count;
        self.max_response_headers_kib = common.max_response_headers_kb;
        if let Some(max) = common.max_requests_per_connection {
            self.max_requests_per_connection = max;
        }
    }

    fn read_http1(&mut self, http1: &core::Http1ProtocolOptions) -> ConfigResult<()> {
        refuse_unsupported(&[
            ("header_key_format", http1.header_key_format.is_some()),
            ("allow_chunked_length", http1.allow_chunked_length),
            ("send_fully_qualified_url", http1.send_fully_qualified_url),
        ])?;
        self.enable_trailers = http1.enable_trailers;
        Ok(())
    }
}

/// The codec alone is what every cluster has anyway.
fn only_the_codec(
    filters: &[api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter],
) -> bool {
    filters
        .iter()
        .all(|f| f.name == "envoy.filters.http.upstream_codec")
}
