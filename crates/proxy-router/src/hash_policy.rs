//! The hash of a request for ring hash and Maglev (`RouteAction.HashPolicy`), bit for bit Envoy's.

use std::net::IpAddr;
use std::time::Duration;

use api_envoy::envoy::config::route::v3::route_action as pb;
use api_envoy::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use api_envoy::wkt;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::{HeaderId, HeaderName, RequestHead};
use twox_hash::XxHash64;

use crate::route_match::query_value;
use crate::string_matcher::RegexRewrite;

/// The policies of a route, in order.
#[derive(Clone, Debug, Default)]
pub struct HashPolicies {
    policies: Vec<HashPolicy>,
}

#[derive(Clone, Debug)]
struct HashPolicy {
    source: Source,
    terminal: bool,
}

#[derive(Clone, Debug)]
enum Source {
    Header {
        name: HeaderName,
        rewrite: Option<RegexRewrite>,
    },
    Cookie {
        name: Box<str>,
        make: Option<CookieTemplate>,
    },
    ClientAddress,
    Query(Box<str>),
}

#[derive(Clone, Debug)]
struct CookieTemplate {
    ttl: Duration,
    path: Box<str>,
    attributes: Vec<(Box<str>, Box<str>)>,
}

/// The hash of a request, and a cookie that the answer must set so that the next request has the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHash {
    /// The hash; `None` when no policy applied.
    pub hash: Option<u64>,
    /// Values of `set-cookie` for the answer.
    pub set_cookies: Vec<String>,
}

impl HashPolicies {
    /// Compiles the policies of a route.
    ///
    /// # Errors
    /// A policy that is not known.
    pub fn compile(protos: &[pb::HashPolicy]) -> ConfigResult<Self> {
        let policies = protos
            .iter()
            .enumerate()
            .map(|(i, p)| compile(p).within_index("hash_policy", i));
        Ok(Self {
            policies: policies
                .flat_map(ConfigResult::transpose)
                .collect::<ConfigResult<_>>()?,
        })
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The hash of a request. `source` is the client's address; `connection` names the connection, its two addresses with
    /// their ports, and makes the value of a new cookie.
    #[must_use]
    pub fn hash(
        &self,
        request: &RequestHead,
        source: Option<IpAddr>,
        connection: &dyn Fn() -> String,
    ) -> RequestHash {
        let mut result = RequestHash::default();
        for policy in &self.policies {
            if let Some(new) = policy
                .source
                .hash(request, source, connection, &mut result.set_cookies)
            {
                // Rotating the old value keeps equal hashes from cancelling each other.
                result.hash = Some(result.hash.map_or(0, |old| old.rotate_left(1)) ^ new);
            }
            if policy.terminal && result.hash.is_some() {
                break;
            }
        }
        result
    }
}

fn compile(proto: &pb::HashPolicy) -> ConfigResult<Option<HashPolicy>> {
    let source = match &proto.policy_specifier {
        None => return Err(ConfigError::at("policy_specifier", "missing")),
        Some(PolicySpecifier::Header(header)) => {
            let rewrite = header
                .regex_rewrite
                .as_ref()
                .map(RegexRewrite::compile)
                .transpose();
            let rewrite = rewrite.within("regex_rewrite").within("header")?;
            Source::Header {
                name: HeaderName::new(&header.header_name),
                rewrite,
            }
        }
        Some(PolicySpecifier::Cookie(cookie)) => Source::Cookie {
            name: cookie.name.as_str().into(),
            make: cookie.ttl.as_ref().map(|ttl| CookieTemplate {
                ttl: wkt::std_duration(ttl),
                path: cookie.path.as_str().into(),
                attributes: cookie
                    .attributes
                    .iter()
                    .map(|a| (a.name.as_str().into(), a.value.as_str().into()))
                    .collect(),
            }),
        },
        Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => {
            Source::ClientAddress
        }
        Some(PolicySpecifier::ConnectionProperties(_)) => return Ok(None),
        Some(PolicySpecifier::QueryParameter(parameter)) => Source::Query(parameter.name.as_str().into()),
        Some(PolicySpecifier::FilterState(_)) => return Err(ConfigError::unsupported("filter_state")),
    };
    Ok(Some(HashPolicy {
        source,
        terminal: proto.terminal,
    }))
}

impl Source {
    fn hash(
        &self,
        request: &RequestHead,
        source: Option<IpAddr>,
        connection: &dyn Fn() -> String,
        set_cookies: &mut Vec<String>,
    ) -> Option<u64> {
        match self {
            Self::Header { name, rewrite } => hash_header(request, name, rewrite.as_ref()),
            Self::ClientAddress => source.map(|ip| XxHash64::oneshot(0, ip.to_string().as_bytes())),
            Self::Query(name) => {
                let value = query_value(request.query()?, name.as_bytes())?;
                Some(XxHash64::oneshot(0, &percent_decoded(value)))
            }
            Self::Cookie { name, make } => {
                if let Some(value) = cookie(request, name).filter(|value| !value.is_empty()) {
                    return Some(XxHash64::oneshot(0, value));
                }
                let template = make.as_ref()?;
                let value = format!("{:x}", XxHash64::oneshot(0, connection().as_bytes()));
                set_cookies.push(template.cookie(name, &value));
                Some(XxHash64::oneshot(0, value.as_bytes()))
            }
        }
    }
}

impl CookieTemplate {
    fn cookie(&self, name: &str, value: &str) -> String {
        let mut cookie = format!("{name}=\"{value}\"");
        if !self.ttl.is_zero() {
            cookie.push_str(&format!("; Max-Age={}", self.ttl.as_secs()));
        }
        if !self.path.is_empty() {
            cookie.push_str(&format!("; Path={}", self.path));
        }
        for (name, value) in &self.attributes {
            match &**value {
                "" => cookie.push_str(&format!("; {name}")),
                value => cookie.push_str(&format!("; {name}={value}")),
            }
        }
        cookie.push_str("; HttpOnly");
        cookie
    }
}

/// Several values are hashed in a fixed order, each seeded with the hash before.
fn hash_header(request: &RequestHead, name: &HeaderName, rewrite: Option<&RegexRewrite>) -> Option<u64> {
    let mut values: Vec<&[u8]> = request.headers.get_all(name).collect();
    if values.is_empty() {
        return None;
    }
    values.sort_unstable();
    let rewritten = |value: &[u8]| rewrite.map_or_else(|| value.to_vec(), |rewrite| rewrite.apply(value));
    Some(
        values
            .into_iter()
            .fold(0, |seed, value| XxHash64::oneshot(seed, &rewritten(value))),
    )
}

/// The value of a cookie, without quotes.
#[must_use]
pub fn cookie<'r>(request: &'r RequestHead, name: &str) -> Option<&'r [u8]> {
    request
        .headers
        .get_all(&HeaderId::Cookie)
        .flat_map(|line| line.split(|b| *b == b';'))
        .find_map(|pair| {
            let pair = pair.trim_ascii();
            let equals = memchr::memchr(b'=', pair)?;
            let value = &pair[equals + 1..];
            let unquoted = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""))
                .unwrap_or(value);
            (pair[..equals] == *name.as_bytes()).then_some(unquoted)
        })
}

fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        let digits = value
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match digits
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .filter(|_| *byte == b'%')
        {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(specifiers: Vec<(PolicySpecifier, bool)>) -> HashPolicies {
        let protos: Vec<_> = specifiers
            .into_iter()
            .map(|(specifier, terminal)| pb::HashPolicy {
                terminal,
                policy_specifier: Some(specifier),
            })
            .collect();
        HashPolicies::compile(&protos).unwrap()
    }

    fn header(name: &str) -> PolicySpecifier {
        PolicySpecifier::Header(pb::hash_policy::Header {
            header_name: name.into(),
            regex_rewrite: None,
        })
    }

    fn source_ip() -> PolicySpecifier {
        PolicySpecifier::ConnectionProperties(pb::hash_policy::ConnectionProperties { source_ip: true })
    }

    fn request(fields: &[(&str, &str)]) -> RequestHead {
        let mut request = RequestHead::with("GET", "http", "a.test", "/?k=a%20b");
        fields
            .iter()
            .for_each(|(n, v)| request.headers.append(&HeaderName::new(n), v.as_bytes()));
        request
    }

    fn xxh(text: &str) -> u64 {
        XxHash64::oneshot(0, text.as_bytes())
    }

    fn name() -> String {
        "127.0.0.1:5000127.0.0.1:80".into()
    }

    const CLIENT: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn each_source_is_hashed_as_text() {
        let of = |specifier| {
            policies(vec![(specifier, false)])
                .hash(&request(&[("x-a", "1")]), CLIENT, &name)
                .hash
        };
        assert_eq!(of(header("x-a")), Some(xxh("1")));
        assert_eq!(of(header("x-none")), None);
        assert_eq!(of(source_ip()), Some(xxh("127.0.0.1")));
        let query = pb::hash_policy::QueryParameter { name: "k".into() };
        assert_eq!(of(PolicySpecifier::QueryParameter(query)), Some(xxh("a b")));
    }

    #[test]
    fn hashes_are_combined_until_a_terminal_policy_applied() {
        let request = request(&[("x-a", "1"), ("x-b", "2")]);
        let both = policies(vec![(header("x-a"), false), (header("x-b"), false)]);
        assert_eq!(
            both.hash(&request, None, &name).hash,
            Some(xxh("1").rotate_left(1) ^ xxh("2"))
        );
        let first = policies(vec![(header("x-a"), true), (header("x-b"), false)]);
        assert_eq!(first.hash(&request, None, &name).hash, Some(xxh("1")));
    }

    #[test]
    fn a_missing_cookie_with_a_lifetime_is_made_and_hashes_the_same_when_it_comes_back() {
        let specifier = PolicySpecifier::Cookie(pb::hash_policy::Cookie {
            name: "sticky".into(),
            ttl: Some(wkt::seconds(60)),
            path: "/".into(),
            ..Default::default()
        });
        let policies = policies(vec![(specifier, false)]);
        let first = policies.hash(&request(&[]), CLIENT, &name);
        let [cookie] = &*first.set_cookies else {
            panic!("{first:?}")
        };
        assert!(cookie.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{cookie}");
        let sent_back = cookie.split(';').next().unwrap();
        let second = policies.hash(
            &request(&[("cookie", &format!("x=y; {sent_back}"))]),
            CLIENT,
            &name,
        );
        assert_eq!((second.hash, second.set_cookies.len()), (first.hash, 0));
    }
}
