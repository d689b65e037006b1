//! Redirects (`http[].redirect`).

use api_envoy::envoy::config::route::v3::{
    RedirectAction,
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
};
use api_istio::networking::{HttpRedirect, RedirectPortSelection};

/// The redirect of a route on this port.
pub(crate) fn build(redirect: &HttpRedirect, listener_port: u32, tls: bool) -> RedirectAction {
    let path = if redirect.prefix_rewrite.is_empty() {
        PathRewriteSpecifier::PathRedirect(redirect.uri.clone())
    } else {
        PathRewriteSpecifier::PrefixRewrite(redirect.prefix_rewrite.clone())
    };
    RedirectAction {
        host_redirect: redirect.authority.clone(),
        port_redirect: port(redirect, listener_port, tls),
        response_code: response_code(redirect.redirect_code).into(),
        scheme_rewrite_specifier: Some(&redirect.scheme)
            .filter(|s| !s.is_empty())
            .map(|s| SchemeRewriteSpecifier::SchemeRedirect(s.clone())),
        path_rewrite_specifier: Some(path),
        ..RedirectAction::default()
    }
}

/// The port to name; 0 names none. Envoy cannot derive it from the request, but a route is made for one port only. The
/// scheme's default port is never named.
fn port(redirect: &HttpRedirect, listener_port: u32, tls: bool) -> u32 {
    let port = match (redirect.port, redirect.derive_port) {
        (Some(port), _) => port,
        (None, Some(RedirectPortSelection::FromRequestPort)) => listener_port,
        (None, _) => return 0,
    };
    let own = if tls { "https" } else { "http" };
    let scheme = if redirect.scheme.is_empty() {
        own
    } else {
        &redirect.scheme
    };
    match (scheme, port) {
        ("http", 80) | ("https", 443) => 0,
        _ => port,
    }
}

fn response_code(code: u32) -> RedirectResponseCode {
    match code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_port_of_the_scheme_is_not_named() {
        let redirect = |port, scheme: &str| HttpRedirect {
            port: Some(port),
            scheme: scheme.to_owned(),
            ..HttpRedirect::default()
        };
        assert_eq!(build(&redirect(443, "https"), 80, false).port_redirect, 0);
        assert_eq!(build(&redirect(8443, "https"), 80, false).port_redirect, 8443);
        assert_eq!(build(&redirect(443, ""), 80, true).port_redirect, 0);
        assert_eq!(build(&redirect(443, ""), 80, false).port_redirect, 443);
    }

    #[test]
    fn the_request_port_is_that_of_the_listener() {
        let derive_port = Some(RedirectPortSelection::FromRequestPort);
        let redirect = HttpRedirect {
            derive_port,
            ..HttpRedirect::default()
        };
        assert_eq!(build(&redirect, 9080, false).port_redirect, 9080);
        assert_eq!(build(&redirect, 80, false).port_redirect, 0);
    }
}
