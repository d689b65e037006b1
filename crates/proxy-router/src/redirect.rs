//! Redirects (`envoy.config.route.v3.RedirectAction`).

use api_envoy::envoy::config::route::v3 as pb;
use api_envoy::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::{HeaderId, RequestHead};

use crate::route_match::RouteMatch;
use crate::string_matcher::RegexRewrite;

/// Sends the client elsewhere.
#[derive(Clone, Debug)]
pub struct Redirect {
    status: u16,
    scheme: Option<Box<[u8]>>,
    host: Option<Box<[u8]>>,
    /// With its colon.
    port: Option<Box<[u8]>>,
    path: PathChange,
    strip_query: bool,
}

#[derive(Clone, Debug)]
enum PathChange {
    None,
    Whole { path: Box<[u8]>, has_query: bool },
    Prefix(Box<[u8]>),
    Regex(RegexRewrite),
}

impl Redirect {
    /// Compiles a redirect.
    ///
    /// # Errors
    /// An unknown response code, or a malformed rewrite.
    pub fn compile(proto: &pb::RedirectAction) -> ConfigResult<Self> {
        let scheme = match &proto.scheme_rewrite_specifier {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https"),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
                Some(scheme.as_str())
            }
            _ => None,
        };
        let path = match &proto.path_rewrite_specifier {
            None => PathChange::None,
            Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => PathChange::None,
            Some(PathRewriteSpecifier::PathRedirect(path)) => PathChange::Whole {
                path: path.as_bytes().into(),
                has_query: path.contains('?'),
            },
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => PathChange::Prefix(prefix.as_bytes().into()),
            Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
                PathChange::Regex(RegexRewrite::compile(rewrite).within("regex_rewrite")?)
            }
            Some(PathRewriteSpecifier::PathRewrite(_)) => {
                return Err(ConfigError::unsupported("path_rewrite"));
            }
        };
        if proto.port_redirect > u32::from(u16::MAX) {
            return Err(ConfigError::at("port_redirect", "not a port number"));
        }
        let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
        Ok(Self {
            status: status(proto.response_code)?,
            scheme: scheme.map(bytes),
            host: Some(&*proto.host_redirect).filter(|h| !h.is_empty()).map(bytes),
            port: (proto.port_redirect > 0).then(|| bytes(&format!(":{}", proto.port_redirect))),
            path,
            strip_query: proto.strip_query,
        })
    }

    /// The redirect to HTTPS that `require_tls` asks for.
    #[must_use]
    pub fn to_https() -> Self {
        Self {
            status: 301,
            scheme: Some(b"https"[..].into()),
            host: None,
            port: None,
            path: PathChange::None,
            strip_query: false,
        }
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The `location` for a request that `route_match` took.
    #[must_use]
    pub fn location(&self, request: &RequestHead, route_match: Option<&RouteMatch>) -> Vec<u8> {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme());
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(scheme);
        out.extend_from_slice(b"://");
        match &self.host {
            Some(host) => out.extend_from_slice(host),
            None => out.extend_from_slice(self.request_host(request, scheme)),
        }
        out.extend_from_slice(self.port.as_deref().unwrap_or_default());
        self.write_path(request, route_match, &mut out);
        out
    }

    /// The request's host. Its port goes when another takes its place, and when it is the default port of a scheme that
    /// is left.
    fn request_host<'r>(&self, request: &'r RequestHead, scheme: &[u8]) -> &'r [u8] {
        let host = request.authority();
        let colon = if host.first() == Some(&b'[') {
            memchr::memrchr(b']', host)
                .map(|bracket| bracket + 1)
                .filter(|at| host.get(*at) == Some(&b':'))
        } else {
            memchr::memrchr(b':', host)
        };
        let Some(colon) = colon else { return host };
        let came_by = request
            .headers
            .get(&HeaderId::XForwardedProto)
            .unwrap_or(request.scheme());
        let default_port: &[u8] = match came_by {
            b"https" => b":443",
            b"http" => b":80",
            _ => b"",
        };
        let leaves_default = scheme != came_by && host[colon..] == *default_port;
        if self.port.is_some() || leaves_default {
            &host[..colon]
        } else {
            host
        }
    }

    fn write_path(&self, request: &RequestHead, route_match: Option<&RouteMatch>, out: &mut Vec<u8>) {
        let path = request.path_without_query();
        // Query and fragment, with the character that begins them.
        let tail = &request.path()[path.len()..];
        let tail = if self.strip_query {
            &tail[tail.len()..]
        } else {
            tail
        };
        let begin = out.len();
        match &self.path {
            PathChange::None => out.extend_from_slice(path),
            PathChange::Whole { path, .. } => out.extend_from_slice(path),
            PathChange::Prefix(prefix) => {
                let length = route_match.map_or(path.len(), |m| m.rewritten_length(path));
                out.extend_from_slice(prefix);
                out.extend_from_slice(&path[length..]);
            }
            PathChange::Regex(rewrite) => out.extend_from_slice(&rewrite.apply(path)),
        }
        if out.get(begin) != Some(&b'/') {
            out.insert(begin, b'/');
        }
        // A query in the configuration takes the place of the request's.
        if !matches!(self.path, PathChange::Whole { has_query: true, .. }) {
            out.extend_from_slice(tail);
        }
    }
}

fn status(code: i32) -> ConfigResult<u16> {
    match RedirectResponseCode::try_from(code) {
        Ok(RedirectResponseCode::MovedPermanently) => Ok(301),
        Ok(RedirectResponseCode::Found) => Ok(302),
        Ok(RedirectResponseCode::SeeOther) => Ok(303),
        Ok(RedirectResponseCode::TemporaryRedirect) => Ok(307),
        Ok(RedirectResponseCode::PermanentRedirect) => Ok(308),
        Err(_) => Err(ConfigError::at("response_code", "not a redirect code")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::route_match::PathSpecifier;

    fn location(change: impl FnOnce(&mut pb::RedirectAction), authority: &str, path: &str) -> String {
        let mut proto = pb::RedirectAction::default();
        change(&mut proto);
        let matcher = pb::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/old".into())),
            ..Default::default()
        };
        let matcher = RouteMatch::compile(&matcher).unwrap();
        let request = RequestHead::with("GET", "http", authority, path);
        let location = Redirect::compile(&proto)
            .unwrap()
            .location(&request, Some(&matcher));
        String::from_utf8(location).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays() {
        assert_eq!(
            location(|_| {}, "a.test:8080", "/old?q=1"),
            "http://a.test:8080/old?q=1"
        );
        assert_eq!(
            location(|r| r.host_redirect = "b.test".into(), "a.test:8080", "/old"),
            "http://b.test/old"
        );
    }

    #[test]
    fn https_drops_the_default_port_of_http_and_keeps_others() {
        let https = |r: &mut pb::RedirectAction| {
            r.scheme_rewrite_specifier = Some(SchemeRewriteSpecifier::HttpsRedirect(true));
        };
        assert_eq!(location(https, "a.test:80", "/"), "https://a.test/");
        assert_eq!(location(https, "a.test:8080", "/"), "https://a.test:8080/");
        assert_eq!(location(https, "[::1]:80", "/"), "https://[::1]/");
        assert_eq!(location(https, "[::1]", "/"), "https://[::1]/");
    }

    #[test]
    fn a_port_takes_the_place_of_the_request_s() {
        assert_eq!(
            location(|r| r.port_redirect = 8443, "a.test:80", "/"),
            "http://a.test:8443/"
        );
    }

    #[test]
    fn the_path_is_replaced_whole_by_prefix_or_by_regex() {
        let set = |specifier: PathRewriteSpecifier| {
            move |r: &mut pb::RedirectAction| r.path_rewrite_specifier = Some(specifier)
        };
        let whole = set(PathRewriteSpecifier::PathRedirect("/new".into()));
        assert_eq!(location(whole, "a.test", "/old/x?q"), "http://a.test/new?q");
        let with_query = set(PathRewriteSpecifier::PathRedirect("/new?r".into()));
        assert_eq!(location(with_query, "a.test", "/old/x?q"), "http://a.test/new?r");
        let relative = set(PathRewriteSpecifier::PathRedirect("new".into()));
        assert_eq!(location(relative, "a.test", "/old"), "http://a.test/new");
        let bare_prefix = set(PathRewriteSpecifier::PrefixRewrite("np".into()));
        assert_eq!(location(bare_prefix, "a.test", "/old/x"), "http://a.test/np/x");
        let prefix = set(PathRewriteSpecifier::PrefixRewrite("/new".into()));
        assert_eq!(location(prefix, "a.test", "/old/x?q"), "http://a.test/new/x?q");
        assert_eq!(
            location(|r| r.strip_query = true, "a.test", "/old/x?q"),
            "http://a.test/old/x"
        );
    }

    #[test]
    fn each_code_has_its_status() {
        let statuses = (0..5).map(|code| status(code).unwrap()).collect::<Vec<_>>();
        assert_eq!(statuses, [301, 302, 303, 307, 308]);
        assert!(status(5).is_err());
    }
}
