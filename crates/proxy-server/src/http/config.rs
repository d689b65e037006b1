//! The connection manager's configuration
//! (`envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`), compiled once on the main
//! thread and shared by the workers. A field that is not enforced and would change traffic is refused by name.

use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as Proto;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    ServerHeaderTransformation, StripPortMode,
};
use api_envoy::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use api_envoy::wkt::std_duration;
use proxy_config::access_log::AccessLogConfig;
use proxy_config::{CompileContext, RouteSlot};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult, TrafficDirection};
use proxy_filters::FilterChain;
use proxy_filters::peer_metadata::PeerMetadataConfig;
use proxy_http::HeadLimits;
use proxy_router::RouteTable;
use proxy_upstream::config::Http2Options;
use proxy_upstream::http2_stats::Http2Stats;
use tls::{ClientCertDetails, ForwardClientCert};

use super::forwarded::ForwardedOptions;
use super::limits;
use super::path::{EscapedSlashes, PathOptions};
use super::refusals;
use super::stats::HttpStats;
use super::tracing::TracingConfig;

/// `codec_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Codec {
    /// What TLS has agreed on, else what the first bytes look like.
    Auto,
    Http1,
    Http2,
}

/// Where routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// They are part of the listener.
    Inline(Arc<RouteTable>),
    /// They come over RDS.
    Rds(RouteSlot),
}

/// `ServerHeaderTransformation`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ServerHeader {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

/// What is taken off the end of the authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StripPort {
    No,
    /// When it is the listener's port.
    Matching,
    Any,
}

/// `HeadersWithUnderscoresAction`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Underscores {
    Allow,
    Reject,
    Drop,
}

/// `request_id_extension` and the fields about request ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestIdOptions {
    pub(crate) generate: bool,
    pub(crate) preserve_external: bool,
    pub(crate) always_in_response: bool,
    pub(crate) pack_trace_reason: bool,
    pub(crate) use_for_trace_sampling: bool,
}

/// Timeouts; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connection_idle: Option<Duration>,
    pub(crate) max_connection_duration: Option<Duration>,
    pub(crate) stream_idle: Option<Duration>,
    pub(crate) request: Option<Duration>,
    pub(crate) request_headers: Option<Duration>,
    pub(crate) max_stream_duration: Option<Duration>,
    pub(crate) delayed_close: Option<Duration>,
    /// How long a client may take to react when it is told that its HTTP/2 connection ends.
    pub(crate) drain: Duration,
}

/// A compiled connection manager.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where routes come from.
    pub routes: RouteSource,
    /// Who records requests.
    pub access_logs: Vec<AccessLogConfig>,
    pub(crate) stats: HttpStats,
    pub(crate) codec: Codec,
    pub(crate) http2: Http2Options,
    pub(crate) http2_stats: Http2Stats,
    pub(crate) filters: FilterChain,
    pub(crate) looks_at_grpc: bool,
    pub(crate) peer_metadata: Option<PeerMetadataConfig>,
    pub(crate) server_name: Box<[u8]>,
    pub(crate) server_header: ServerHeader,
    pub(crate) via: Box<[u8]>,
    pub(crate) forwarded: ForwardedOptions,
    pub(crate) request_id: RequestIdOptions,
    pub(crate) tracing: Option<TracingConfig>,
    pub(crate) direction: TrafficDirection,
    /// What becomes of `x-forwarded-client-cert`.
    pub(crate) forward_client_cert: ForwardClientCert,
    /// What our element of it tells.
    pub(crate) client_cert_details: ClientCertDetails,
    pub(crate) proxy_100_continue: bool,
    /// Upgrade types in lower case, and whether they are enabled where routes are silent.
    pub(crate) upgrades: Vec<(Box<[u8]>, bool)>,
    pub(crate) path: PathOptions,
    pub(crate) strip_port: StripPort,
    pub(crate) strip_trailing_host_dot: bool,
    pub(crate) underscores: Underscores,
    pub(crate) head_limits: HeadLimits,
    pub(crate) accept_http_10: bool,
    pub(crate) default_host_for_http_10: Box<[u8]>,
    pub(crate) enable_trailers: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_requests_per_connection: u32,
}

impl HttpConfig {
    /// Compiles a connection manager.
    ///
    /// # Errors
    /// A field is malformed, or is not enforced and would change traffic.
    pub fn compile(proto: &Proto, context: &mut CompileContext<'_>) -> ConfigResult<Self> {
        if proto.stat_prefix.is_empty() {
            return Err(ConfigError::at("stat_prefix", "must not be empty"));
        }
        refusals::check(proto)?;
        let common = proto.common_http_protocol_options.unwrap_or_default();
        let http1 = proto.http_protocol_options.clone().unwrap_or_default();
        let filters = FilterChain::compile(&proto.http_filters).within("http_filters")?;
        Ok(HttpConfig {
            routes: route_source(proto, context)?,
            access_logs: context.access_logs("access_log", &proto.access_log)?,
            stats: HttpStats::new(context.stats().http_scope(&proto.stat_prefix)),
            codec: codec(proto)?,
            http2: Http2Options::compile(&proto.http2_protocol_options.clone().unwrap_or_default())
                .within("http2_protocol_options")?,
            http2_stats: Http2Stats::new(&context.stats().scope("http2."), ""),
            looks_at_grpc: filters.looks_at_grpc(),
            peer_metadata: filters.peer_metadata(),
            filters,
            server_name: match proto.server_name.as_str() {
                "" => Box::from(&b"envoy"[..]),
                name => name.as_bytes().into(),
            },
            server_header: server_header(proto)?,
            via: proto.via.as_bytes().into(),
            forwarded: ForwardedOptions::compile(proto)?,
            request_id: request_id(proto)?,
            tracing: proto
                .tracing
                .as_ref()
                .map(TracingConfig::compile)
                .transpose()
                .within("tracing")?,
            direction: context.direction(),
            forward_client_cert: forward_client_cert(proto)?,
            client_cert_details: client_cert_details(proto),
            proxy_100_continue: proto.proxy_100_continue,
            upgrades: upgrades(proto)?,
            path: path_options(proto)?,
            strip_port: strip_port(proto)?,
            strip_trailing_host_dot: proto.strip_trailing_host_dot,
            underscores: underscores(&common).within("common_http_protocol_options")?,
            head_limits: head_limits(proto, &common)?,
            accept_http_10: http1.accept_http_10,
            default_host_for_http_10: http1.default_host_for_http_10.as_bytes().into(),
            enable_trailers: http1.enable_trailers,
            timeouts: timeouts(proto, &common),
            max_requests_per_connection: common.max_requests_per_connection.unwrap_or(0),
        })
    }

    /// Whether this upgrade is allowed; `route` is what the route says, if it says something.
    pub(crate) fn allows_upgrade(&self, upgrade: &[u8], route: Option<bool>) -> bool {
        route.unwrap_or_else(|| {
            self.upgrades
                .iter()
                .any(|(name, enabled)| *enabled && name.eq_ignore_ascii_case(upgrade))
        })
    }
}

fn route_source(proto: &Proto, context: &mut CompileContext<'_>) -> ConfigResult<RouteSource> {
    match &proto.route_specifier {
        Some(RouteSpecifier::RouteConfig(routes)) => {
            let table = RouteTable::compile(routes, context).within("route_config")?;
            Ok(RouteSource::Inline(Arc::new(table)))
        }
        Some(RouteSpecifier::Rds(rds)) => context
            .route_config(&rds.route_config_name, rds.config_source.as_ref())
            .within("rds")
            .map(RouteSource::Rds),
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(ConfigError::unsupported("scoped_routes")),
        None => Err(ConfigError::at("route_specifier", "must be set")),
    }
}

fn server_header(proto: &Proto) -> ConfigResult<ServerHeader> {
    match ServerHeaderTransformation::try_from(proto.server_header_transformation) {
        Ok(ServerHeaderTransformation::Overwrite) => Ok(ServerHeader::Overwrite),
        Ok(ServerHeaderTransformation::AppendIfAbsent) => Ok(ServerHeader::AppendIfAbsent),
        Ok(ServerHeaderTransformation::PassThrough) => Ok(ServerHeader::PassThrough),
        Err(_) => Err(ConfigError::at("server_header_transformation", "unknown value")),
    }
}

fn request_id(proto: &Proto) -> ConfigResult<RequestIdOptions> {
    let typed = proto
        .request_id_extension
        .as_ref()
        .and_then(|extension| extension.typed_config.as_ref());
    let uuid: UuidRequestIdConfig = match typed {
        None => UuidRequestIdConfig::default(),
        Some(typed) => api_envoy::any::unpack(typed).map_err(|error| {
            ConfigError::at("typed_config", error.to_string()).within("request_id_extension")
        })?,
    };
    Ok(RequestIdOptions {
        generate: proto.generate_request_id.unwrap_or(true),
        preserve_external: proto.preserve_external_request_id,
        always_in_response: proto.always_set_request_id_in_response,
        pack_trace_reason: uuid.pack_trace_reason.unwrap_or(true),
        use_for_trace_sampling: uuid.use_request_id_for_trace_sampling.unwrap_or(true),
    })
}

fn forward_client_cert(proto: &Proto) -> ConfigResult<ForwardClientCert> {
    match ForwardClientCertDetails::try_from(proto.forward_client_cert_details) {
        Ok(ForwardClientCertDetails::Sanitize) => Ok(ForwardClientCert::Sanitize),
        Ok(ForwardClientCertDetails::ForwardOnly) => Ok(ForwardClientCert::ForwardOnly),
        Ok(ForwardClientCertDetails::AppendForward) => Ok(ForwardClientCert::AppendForward),
        Ok(ForwardClientCertDetails::SanitizeSet) => Ok(ForwardClientCert::SanitizeSet),
        Ok(ForwardClientCertDetails::AlwaysForwardOnly) => Ok(ForwardClientCert::AlwaysForwardOnly),
        Err(_) => Err(ConfigError::at("forward_client_cert_details", "unknown value")),
    }
}

fn client_cert_details(proto: &Proto) -> ClientCertDetails {
    let Some(details) = &proto.set_current_client_cert_details else {
        return ClientCertDetails::default();
    };
    ClientCertDetails {
        subject: details.subject.unwrap_or_default(),
        cert: details.cert,
        chain: details.chain,
        uri: details.uri,
        dns: details.dns,
    }
}

fn upgrades(proto: &Proto) -> ConfigResult<Vec<(Box<[u8]>, bool)>> {
    let mut upgrades = Vec::with_capacity(proto.upgrade_configs.len());
    for (index, config) in proto.upgrade_configs.iter().enumerate() {
        let name = config.upgrade_type.to_ascii_lowercase();
        let refused = match name.as_str() {
            "connect-udp" => Some(("upgrade_type", "CONNECT-UDP is not supported by this proxy")),
            _ if !config.filters.is_empty() => Some(("filters", "not supported by this proxy")),
            _ => None,
        };
        if let Some((field, reason)) = refused {
            return Err(ConfigError::at(field, reason)
                .index(index)
                .within("upgrade_configs"));
        }
        upgrades.push((name.into_bytes().into(), config.enabled.unwrap_or(true)));
    }
    Ok(upgrades)
}

fn path_options(proto: &Proto) -> ConfigResult<PathOptions> {
    let action = PathWithEscapedSlashesAction::try_from(proto.path_with_escaped_slashes_action)
        .map_err(|_| ConfigError::at("path_with_escaped_slashes_action", "unknown value"))?;
    Ok(PathOptions {
        normalize: proto.normalize_path.unwrap_or(false),
        merge_slashes: proto.merge_slashes,
        escaped_slashes: EscapedSlashes::from(action),
    })
}

fn strip_port(proto: &Proto) -> ConfigResult<StripPort> {
    let any = matches!(proto.strip_port_mode, Some(StripPortMode::StripAnyHostPort(true)));
    match (any, proto.strip_matching_host_port) {
        (true, true) => Err(ConfigError::at(
            "strip_matching_host_port",
            "excludes strip_any_host_port",
        )),
        (true, false) => Ok(StripPort::Any),
        (false, true) => Ok(StripPort::Matching),
        (false, false) => Ok(StripPort::No),
    }
}

fn underscores(common: &core::HttpProtocolOptions) -> ConfigResult<Underscores> {
    match HeadersWithUnderscoresAction::try_from(common.headers_with_underscores_action) {
        Ok(HeadersWithUnderscoresAction::Allow) => Ok(Underscores::Allow),
        Ok(HeadersWithUnderscoresAction::RejectRequest) => Ok(Underscores::Reject),
        Ok(HeadersWithUnderscoresAction::DropHeader) => Ok(Underscores::Drop),
        Err(_) => Err(ConfigError::at(
            "headers_with_underscores_action",
            "unknown value",
        )),
    }
}

fn head_limits(proto: &Proto, common: &core::HttpProtocolOptions) -> ConfigResult<HeadLimits> {
    let default = HeadLimits::default();
    let kib = proto.max_request_headers_kb;
    if kib.is_some_and(|kib| kib == 0 || kib > limits::REQUEST_HEADERS_KIB_CEILING) {
        return Err(ConfigError::at(
            "max_request_headers_kb",
            "must be between 1 and 8192",
        ));
    }
    let fields = common.max_headers_count;
    if fields == Some(0) {
        return Err(
            ConfigError::at("max_headers_count", "must be at least 1").within("common_http_protocol_options")
        );
    }
    Ok(HeadLimits {
        bytes: kib.map_or(default.bytes, |kib| kib as usize * 1024),
        // The index of a head is 16 bits wide.
        fields: fields.map_or(default.fields, |count| {
            (count as usize).min(usize::from(u16::MAX) - 1)
        }),
    })
}

fn timeouts(proto: &Proto, common: &core::HttpProtocolOptions) -> Timeouts {
    // In all of these zero means never; an absent field means the default.
    let timeout = |field: &Option<_>, default: Option<Duration>| {
        field.as_ref().map_or(default, |value| {
            Some(std_duration(value)).filter(|value| !value.is_zero())
        })
    };
    Timeouts {
        connection_idle: timeout(&common.idle_timeout, Some(limits::CONNECTION_IDLE_TIMEOUT)),
        max_connection_duration: timeout(&common.max_connection_duration, None),
        stream_idle: timeout(&proto.stream_idle_timeout, Some(limits::STREAM_IDLE_TIMEOUT)),
        request: timeout(&proto.request_timeout, None),
        request_headers: timeout(&proto.request_headers_timeout, None),
        max_stream_duration: timeout(&common.max_stream_duration, None),
        delayed_close: timeout(&proto.delayed_close_timeout, Some(limits::DELAYED_CLOSE_TIMEOUT)),
        drain: proto
            .drain_timeout
            .as_ref()
            .map_or(limits::DRAIN_TIMEOUT, std_duration),
    }
}

fn codec(proto: &Proto) -> ConfigResult<Codec> {
    match CodecType::try_from(proto.codec_type) {
        Ok(CodecType::Auto) => Ok(Codec::Auto),
        Ok(CodecType::Http1) => Ok(Codec::Http1),
        Ok(CodecType::Http2) => Ok(Codec::Http2),
        Ok(CodecType::Http3) => Err(ConfigError::at(
            "codec_type",
            "HTTP3 is not supported by this proxy",
        )),
        Err(_) => Err(ConfigError::at("codec_type", "unknown value")),
    }
}
