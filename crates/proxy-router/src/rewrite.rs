//! Changes of path and host on the way upstream (`RouteAction.prefix_rewrite`, `regex_rewrite`, `host_rewrite_*`).

use api_envoy::envoy::config::route::v3 as pb;
use api_envoy::envoy::config::route::v3::route_action::HostRewriteSpecifier;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::{HeaderId, HeaderName, RequestHead};

use crate::route_match::RouteMatch;
use crate::string_matcher::RegexRewrite;

/// What becomes of the path.
#[derive(Clone, Debug, Default)]
pub(crate) enum PathRewrite {
    #[default]
    None,
    Prefix(Box<[u8]>),
    Regex(Box<RegexRewrite>),
}

/// What becomes of the authority.
#[derive(Clone, Debug, Default)]
pub(crate) enum HostRewrite {
    #[default]
    None,
    Literal(Box<[u8]>),
    /// The host name of the chosen upstream host.
    Auto,
    Header(HeaderName),
    PathRegex(Box<RegexRewrite>),
}

impl PathRewrite {
    pub(crate) fn compile(proto: &pb::RouteAction) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("path_rewrite_policy", proto.path_rewrite_policy.is_some()),
            ("path_rewrite", !proto.path_rewrite.is_empty()),
        ])?;
        match &proto.regex_rewrite {
            None if proto.prefix_rewrite.is_empty() => Ok(Self::None),
            None => Ok(Self::Prefix(proto.prefix_rewrite.as_bytes().into())),
            Some(_) if !proto.prefix_rewrite.is_empty() => Err(ConfigError::at(
                "regex_rewrite",
                "goes not together with prefix_rewrite",
            )),
            Some(rewrite) => Ok(Self::Regex(Box::new(
                RegexRewrite::compile(rewrite).within("regex_rewrite")?,
            ))),
        }
    }

    /// Rewrites the path; the original goes into `x-envoy-original-path` unless `suppress_envoy_headers`.
    pub(crate) fn apply(
        &self,
        request: &mut RequestHead,
        route_match: &RouteMatch,
        suppress_envoy_headers: bool,
    ) {
        let (path, whole) = (request.path_without_query(), request.path());
        if whole.is_empty() {
            // CONNECT has none.
            return;
        }
        let tail = &whole[path.len()..];
        let rewritten = match self {
            Self::None => return,
            Self::Prefix(prefix) => [prefix, &path[route_match.rewritten_length(path)..], tail].concat(),
            Self::Regex(rewrite) => [&*rewrite.apply(path), tail].concat(),
        };
        if !suppress_envoy_headers {
            let original = whole.to_vec();
            request.headers.set(&HeaderId::XEnvoyOriginalPath, &original);
        }
        request.set_path(&rewritten);
    }
}

impl HostRewrite {
    pub(crate) fn compile(proto: &pb::RouteAction) -> ConfigResult<Self> {
        Ok(match &proto.host_rewrite_specifier {
            None | Some(HostRewriteSpecifier::AutoHostRewrite(false)) => Self::None,
            Some(HostRewriteSpecifier::AutoHostRewrite(true)) => Self::Auto,
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if host.is_empty() => Self::None,
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Self::Literal(host.as_bytes().into()),
            Some(HostRewriteSpecifier::HostRewriteHeader(name)) => Self::Header(HeaderName::new(name)),
            Some(HostRewriteSpecifier::HostRewritePathRegex(rewrite)) => Self::PathRegex(Box::new(
                RegexRewrite::compile(rewrite).within("host_rewrite_path_regex")?,
            )),
            Some(HostRewriteSpecifier::HostRewrite(_)) => {
                return Err(ConfigError::unsupported("host_rewrite"));
            }
        })
    }

    /// The authority to send, where it is known before a host is chosen. `path` is that of the request as it came.
    pub(crate) fn host(&self, request: &RequestHead) -> Option<Vec<u8>> {
        match self {
            Self::None | Self::Auto => None,
            Self::Literal(host) => Some(host.to_vec()),
            Self::Header(name) => request
                .headers
                .get(name)
                .filter(|value| !value.is_empty())
                .map(<[u8]>::to_vec),
            Self::PathRegex(rewrite) => Some(rewrite.apply(request.path_without_query())),
        }
    }
}

/// Replaces the authority. The one before goes into `x-envoy-original-host` unless `suppress_envoy_headers`, and to the
/// end of `x-forwarded-host` when that is wanted and it is not there already.
pub(crate) fn set_host(
    request: &mut RequestHead,
    host: &[u8],
    append_forwarded_host: bool,
    suppress_envoy_headers: bool,
) {
    let before = request.authority().to_vec();
    if append_forwarded_host && !before.is_empty() {
        let forwarded = request.headers.get_id(HeaderId::XForwardedHost);
        let last = forwarded.and_then(|list| list.rsplit(|b| *b == b',').next());
        if last != Some(&before) {
            request
                .headers
                .append_to_list(&HeaderId::XForwardedHost, b",", &before);
        }
    }
    if !suppress_envoy_headers && !before.is_empty() {
        request.headers.set(&HeaderId::XEnvoyOriginalHost, &before);
    }
    request.set_authority(host);
}
