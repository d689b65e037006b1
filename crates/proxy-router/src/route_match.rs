//! `envoy.config.route.v3.RouteMatch`, compiled.

use api_envoy::envoy::config::route::v3 as pb;
use api_envoy::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use api_envoy::envoy::config::route::v3::route_match::PathSpecifier;
use api_envoy::envoy::r#type::v3::FractionalPercent;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::RequestHead;
use regex::bytes::Regex;

use crate::header_matcher::HeaderMatcher;
use crate::string_matcher::{StringMatcher, full_match};

/// The condition of one route.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    path: PathMatch,
    ignore_case: bool,
    headers: Vec<HeaderMatcher>,
    query: Vec<QueryMatcher>,
    grpc: bool,
    fraction: Option<Fraction>,
}

/// What the path must be. The query and the fragment never take part.
#[derive(Clone, Debug)]
pub(crate) enum PathMatch {
    Prefix(Box<[u8]>),
    Exact(Box<[u8]>),
    Regex(Regex),
    /// The prefix alone, or followed by a slash.
    SeparatedPrefix(Box<[u8]>),
    /// CONNECT requests, which have no path.
    Connect,
}

#[derive(Clone, Debug)]
struct QueryMatcher {
    name: Box<[u8]>,
    kind: QueryKind,
}

#[derive(Clone, Debug)]
enum QueryKind {
    Present(bool),
    Text(StringMatcher),
}

/// A share of all requests: `numerator` of every `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    numerator: u64,
    denominator: u64,
}

impl Fraction {
    /// Compiles `FractionalPercent`.
    ///
    /// # Errors
    /// An unknown denominator.
    pub fn compile(proto: &FractionalPercent) -> ConfigResult<Self> {
        let denominator = match proto.denominator {
            0 => 100,
            1 => 10_000,
            2 => 1_000_000,
            _ => return Err(ConfigError::at("denominator", "not a denominator")),
        };
        Ok(Self {
            numerator: proto.numerator.into(),
            denominator,
        })
    }

    /// Whether a request with this random number belongs to the share.
    #[must_use]
    pub fn contains(self, random: u64) -> bool {
        random % self.denominator < self.numerator
    }
}

impl RouteMatch {
    /// Compiles a condition.
    ///
    /// # Errors
    /// No path, a malformed pattern, or a condition that this proxy cannot check.
    pub fn compile(proto: &pb::RouteMatch) -> ConfigResult<Self> {
        // Routes are not told of certificates. A message that says nothing asks for nothing.
        let asks_of_certificates = proto
            .tls_context
            .as_ref()
            .is_some_and(|tls| tls.presented.is_some() || tls.validated.is_some());
        refuse_unsupported(&[
            ("cookies", !proto.cookies.is_empty()),
            ("tls_context", asks_of_certificates),
            ("dynamic_metadata", !proto.dynamic_metadata.is_empty()),
            ("filter_state", !proto.filter_state.is_empty()),
        ])?;
        let headers = proto.headers.iter().enumerate();
        let headers = headers.map(|(i, h)| HeaderMatcher::compile(h).within_index("headers", i));
        let query = proto.query_parameters.iter().enumerate();
        let query = query.map(|(i, q)| QueryMatcher::compile(q).within_index("query_parameters", i));
        let fraction = proto
            .runtime_fraction
            .as_ref()
            .and_then(|f| f.default_value.as_ref());
        Ok(Self {
            path: compile_path(proto.path_specifier.as_ref())?,
            ignore_case: proto.case_sensitive == Some(false),
            headers: headers.collect::<ConfigResult<_>>()?,
            query: query.collect::<ConfigResult<_>>()?,
            grpc: proto.grpc.is_some(),
            fraction: fraction
                .map(Fraction::compile)
                .transpose()
                .within("runtime_fraction")?,
        })
    }

    /// What the path must be.
    pub(crate) fn path(&self) -> &PathMatch {
        &self.path
    }

    /// Whether case matters in the path.
    pub(crate) fn is_case_sensitive(&self) -> bool {
        !self.ignore_case
    }

    /// Whether a request satisfies every condition. `path` is its path as [`matched_path`] gives it.
    #[must_use]
    pub fn matches(&self, request: &RequestHead, path: &[u8], random: u64) -> bool {
        self.path_matches(request, path)
            && self
                .headers
                .iter()
                .all(|matcher| matcher.matches(&request.headers))
            && (self.query.is_empty() || self.query_matches(request))
            && (!self.grpc || request.is_grpc())
            && self.fraction.is_none_or(|fraction| fraction.contains(random))
    }

    fn path_matches(&self, request: &RequestHead, path: &[u8]) -> bool {
        // A CONNECT request without a path can only be taken by a route that asks for CONNECT.
        if request.path().is_empty() && !matches!(self.path, PathMatch::Connect) {
            return false;
        }
        match &self.path {
            PathMatch::Prefix(prefix) => self.begins(path, prefix),
            PathMatch::Exact(exact) => path.len() == exact.len() && self.begins(path, exact),
            PathMatch::Regex(regex) => regex.is_match(path),
            PathMatch::SeparatedPrefix(prefix) => {
                self.begins(path, prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            PathMatch::Connect => request.is_connect(),
        }
    }

    fn begins(&self, path: &[u8], prefix: &[u8]) -> bool {
        if self.ignore_case {
            path.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        } else {
            path.starts_with(prefix)
        }
    }

    fn query_matches(&self, request: &RequestHead) -> bool {
        let query = request.query().unwrap_or_default();
        self.query.iter().all(|matcher| matcher.matches(query))
    }

    /// How much of the path `prefix_rewrite` replaces: the matched prefix, else the whole path.
    #[must_use]
    pub fn rewritten_length(&self, path: &[u8]) -> usize {
        match &self.path {
            PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => prefix.len().min(path.len()),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
        }
    }
}

/// The part of the path that routes are matched against: without query and fragment, and without parameters (`;`) where
/// the configuration says so.
#[must_use]
pub fn matched_path(request: &RequestHead, ignore_parameters: bool) -> &[u8] {
    let path = request.path_without_query();
    match ignore_parameters.then(|| memchr::memchr(b';', path)).flatten() {
        Some(semicolon) => &path[..semicolon],
        None => path,
    }
}

fn compile_path(proto: Option<&PathSpecifier>) -> ConfigResult<PathMatch> {
    Ok(match proto {
        None => return Err(ConfigError::at("path_specifier", "missing")),
        Some(PathSpecifier::Prefix(prefix)) => PathMatch::Prefix(prefix.as_bytes().into()),
        Some(PathSpecifier::Path(path)) => PathMatch::Exact(path.as_bytes().into()),
        Some(PathSpecifier::SafeRegex(regex)) => PathMatch::Regex(full_match(regex).within("safe_regex")?),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            let well_formed =
                prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains(['?', '#']);
            if !well_formed {
                let reason = "must begin with a slash, not end with one, and hold neither ? nor #";
                return Err(ConfigError::at("path_separated_prefix", reason));
            }
            PathMatch::SeparatedPrefix(prefix.as_bytes().into())
        }
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
        Some(PathSpecifier::PathMatchPolicy(_)) => return Err(ConfigError::unsupported("path_match_policy")),
    })
}

impl QueryMatcher {
    fn compile(proto: &pb::QueryParameterMatcher) -> ConfigResult<Self> {
        if proto.name.is_empty() {
            return Err(ConfigError::at("name", "must not be empty"));
        }
        let kind = match &proto.query_parameter_match_specifier {
            None => QueryKind::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryKind::Present(*present),
            Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
                QueryKind::Text(StringMatcher::compile(matcher).within("string_match")?)
            }
        };
        Ok(Self {
            name: proto.name.as_bytes().into(),
            kind,
        })
    }

    fn matches(&self, query: &[u8]) -> bool {
        let value = query_value(query, &self.name);
        match &self.kind {
            QueryKind::Present(wanted) => value.is_some() == *wanted,
            QueryKind::Text(matcher) => value.is_some_and(|value| matcher.matches(value)),
        }
    }
}

/// The value of the first parameter called `name`, as it stands in the query; empty when it has no equals sign.
#[must_use]
pub fn query_value<'q>(query: &'q [u8], name: &[u8]) -> Option<&'q [u8]> {
    query
        .split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .find_map(|pair| {
            let (key, value) = match memchr::memchr(b'=', pair) {
                Some(equals) => (&pair[..equals], &pair[equals + 1..]),
                None => (pair, &pair[pair.len()..]),
            };
            (key == name).then_some(value)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(change: impl FnOnce(&mut pb::RouteMatch), path: &str) -> bool {
        let mut proto = pb::RouteMatch::default();
        change(&mut proto);
        let request = RequestHead::with("GET", "http", "a.test", path);
        RouteMatch::compile(&proto)
            .unwrap()
            .matches(&request, matched_path(&request, false), 0)
    }

    fn check(specifier: PathSpecifier, hits: &[&str], misses: &[&str]) {
        for (path, expected) in hits
            .iter()
            .map(|p| (p, true))
            .chain(misses.iter().map(|p| (p, false)))
        {
            let matched = matches(|m| m.path_specifier = Some(specifier.clone()), path);
            assert_eq!(matched, expected, "{specifier:?} and {path}");
        }
    }

    #[test]
    fn each_path_specifier_matches_without_the_query() {
        let regex = api_envoy::envoy::r#type::matcher::v3::RegexMatcher {
            regex: "/r/.*".into(),
            ..Default::default()
        };
        check(
            PathSpecifier::Prefix("/a".into()),
            &["/a", "/ab", "/a/b?q"],
            &["/b", "/?/a", "/A"],
        );
        check(
            PathSpecifier::Path("/a".into()),
            &["/a", "/a?q", "/a#f"],
            &["/a/", "/ab"],
        );
        check(
            PathSpecifier::SafeRegex(regex),
            &["/r/", "/r/x?q"],
            &["/r", "/x/r/"],
        );
        check(
            PathSpecifier::PathSeparatedPrefix("/a".into()),
            &["/a", "/a/", "/a/b", "/a?q"],
            &["/ab"],
        );
    }

    #[test]
    fn case_may_be_ignored() {
        let change = |m: &mut pb::RouteMatch| {
            m.case_sensitive = Some(false);
            m.path_specifier = Some(PathSpecifier::Prefix("/Ab".into()));
        };
        assert!(matches(change, "/aBc"));
    }

    #[test]
    fn query_parameters_are_compared_as_they_stand() {
        assert_eq!(query_value(b"a=1&b&a=2", b"a"), Some(&b"1"[..]));
        assert_eq!(query_value(b"a=1&b&a=2", b"b"), Some(&b""[..]));
        assert_eq!(query_value(b"a=1", b"c"), None);
        assert_eq!(query_value(b"", b""), None);
        assert_eq!(query_value(b"a=b=c%20", b"a"), Some(&b"b=c%20"[..]));
    }

    #[test]
    fn a_fraction_takes_its_share_of_random_numbers() {
        let fraction = Fraction::compile(&FractionalPercent {
            numerator: 30,
            denominator: 0,
        })
        .unwrap();
        assert_eq!((0..1000).filter(|n| fraction.contains(*n)).count(), 300);
    }

    #[test]
    fn conditions_on_what_is_not_known_are_refused() {
        let proto = pb::RouteMatch {
            dynamic_metadata: vec![Default::default()],
            ..Default::default()
        };
        assert_eq!(
            RouteMatch::compile(&proto).unwrap_err().path(),
            "dynamic_metadata"
        );
        for (presented, validated) in [(Some(false), None), (None, Some(false)), (Some(true), None)] {
            let proto = pb::RouteMatch {
                tls_context: Some(pb::route_match::TlsContextMatchOptions { presented, validated }),
                ..Default::default()
            };
            assert_eq!(RouteMatch::compile(&proto).unwrap_err().path(), "tls_context");
        }
    }

    #[test]
    fn a_connect_request_is_only_taken_by_a_connect_matcher() {
        let mut request = RequestHead::new();
        request.set_method(b"CONNECT");
        request.set_authority(b"a.test:80");
        let of = |specifier| {
            let proto = pb::RouteMatch {
                path_specifier: Some(specifier),
                ..Default::default()
            };
            RouteMatch::compile(&proto).unwrap().matches(&request, b"", 0)
        };
        assert!(!of(PathSpecifier::Prefix("/".into())));
        assert!(of(PathSpecifier::ConnectMatcher(
            pb::route_match::ConnectMatcher {}
        )));
    }
}
