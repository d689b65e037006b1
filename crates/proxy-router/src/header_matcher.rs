//! `envoy.config.route.v3.HeaderMatcher`, compiled.

use api_envoy::envoy::config::route::v3 as pb;
use api_envoy::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier as Specifier;
use api_envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use api_envoy::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher as StringMatcherProto};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::{HeaderName, Headers};

use crate::string_matcher::StringMatcher;

/// Matches a header of a message.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    name: HeaderName,
    kind: Kind,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Present(bool),
    Text(StringMatcher),
    /// The deprecated `exact_match: ""`, which any value satisfies.
    AnyValue,
    Range {
        start: i64,
        end: i64,
    },
}

impl HeaderMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// No name, or a malformed pattern.
    #[allow(deprecated)]
    pub fn compile(proto: &pb::HeaderMatcher) -> ConfigResult<Self> {
        if proto.name.is_empty() {
            return Err(ConfigError::at("name", "must not be empty"));
        }
        let text = |pattern| -> ConfigResult<Kind> {
            let proto = StringMatcherProto {
                match_pattern: Some(pattern),
                ignore_case: false,
            };
            StringMatcher::compile(&proto).map(Kind::Text)
        };
        let kind = match &proto.header_match_specifier {
            None => Kind::Present(true),
            Some(Specifier::PresentMatch(present)) => Kind::Present(*present),
            Some(Specifier::ExactMatch(value)) if value.is_empty() => Kind::AnyValue,
            Some(Specifier::ExactMatch(value)) => text(MatchPattern::Exact(value.clone()))?,
            Some(Specifier::PrefixMatch(value)) => text(MatchPattern::Prefix(value.clone()))?,
            Some(Specifier::SuffixMatch(value)) => text(MatchPattern::Suffix(value.clone()))?,
            Some(Specifier::ContainsMatch(value)) => text(MatchPattern::Contains(value.clone()))?,
            Some(Specifier::SafeRegexMatch(regex)) => regex_kind(regex).within("safe_regex_match")?,
            Some(Specifier::StringMatch(matcher)) => {
                Kind::Text(StringMatcher::compile(matcher).within("string_match")?)
            }
            Some(Specifier::RangeMatch(range)) => Kind::Range {
                start: range.start,
                end: range.end,
            },
        };
        Ok(Self {
            name: HeaderName::new(&proto.name),
            kind,
            invert: proto.invert_match,
            missing_is_empty: proto.treat_missing_header_as_empty,
        })
    }

    /// Whether a message with these headers matches. Of several values one must match. A header that is missing matches
    /// nothing, inverted or not, unless it is treated as empty.
    #[must_use]
    pub fn matches(&self, headers: &Headers) -> bool {
        let mut values = headers.get_all(&self.name).peekable();
        if let Kind::Present(wanted) = self.kind {
            return (values.peek().is_some() == wanted) != self.invert;
        }
        let matched = if values.peek().is_some() {
            values.any(|value| self.kind.accepts(value))
        } else if self.missing_is_empty {
            self.kind.accepts(b"")
        } else {
            return false;
        };
        matched != self.invert
    }
}

impl Kind {
    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(_) | Self::AnyValue => true,
            Self::Text(matcher) => matcher.matches(value),
            Self::Range { start, end } => integer(value).is_some_and(|n| n >= *start && n < *end),
        }
    }
}

fn regex_kind(regex: &RegexMatcher) -> ConfigResult<Kind> {
    let proto = StringMatcherProto {
        match_pattern: Some(MatchPattern::SafeRegex(regex.clone())),
        ignore_case: false,
    };
    StringMatcher::compile(&proto).map(Kind::Text)
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::envoy::r#type::v3::Int64Range;
    use proxy_http::RequestHead;

    fn request(fields: &[(&str, &str)]) -> Headers {
        let mut head = RequestHead::with("GET", "http", "a.test", "/p?q");
        fields
            .iter()
            .for_each(|(name, value)| head.headers.append(&HeaderName::new(name), value.as_bytes()));
        head.headers
    }

    fn matches(
        specifier: Option<Specifier>,
        change: impl FnOnce(&mut pb::HeaderMatcher),
        headers: &Headers,
    ) -> bool {
        let mut proto = pb::HeaderMatcher {
            name: "X-A".into(),
            header_match_specifier: specifier,
            ..Default::default()
        };
        change(&mut proto);
        HeaderMatcher::compile(&proto).unwrap().matches(headers)
    }

    fn exact(value: &str) -> Option<Specifier> {
        let matcher = StringMatcherProto {
            match_pattern: Some(MatchPattern::Exact(value.into())),
            ignore_case: false,
        };
        Some(Specifier::StringMatch(matcher))
    }

    #[test]
    fn without_a_specifier_the_header_must_be_present() {
        assert!(matches(None, |_| {}, &request(&[("x-a", "")])));
        assert!(!matches(None, |_| {}, &request(&[])));
        assert!(matches(
            Some(Specifier::PresentMatch(false)),
            |_| {},
            &request(&[])
        ));
        assert!(matches(None, |m| m.invert_match = true, &request(&[])));
    }

    #[test]
    fn a_missing_header_matches_nothing_even_inverted_unless_it_counts_as_empty() {
        let missing = request(&[]);
        assert!(!matches(exact("1"), |m| m.invert_match = true, &missing));
        let as_empty = |m: &mut pb::HeaderMatcher| {
            m.invert_match = true;
            m.treat_missing_header_as_empty = true;
        };
        assert!(matches(exact("1"), as_empty, &missing));
    }

    // Envoy 1.40 was asked: it looks at each value by itself.
    #[test]
    fn of_several_values_one_must_match() {
        let two = request(&[("x-a", "1"), ("x-a", "2")]);
        assert!(matches(exact("2"), |_| {}, &two) && !matches(exact("1,2"), |_| {}, &two));
        assert!(!matches(exact("2"), |m| m.invert_match = true, &two));
        assert!(matches(exact("3"), |m| m.invert_match = true, &two));
    }

    #[test]
    fn a_range_is_half_open_and_wants_a_whole_number() {
        let range = Some(Specifier::RangeMatch(Int64Range { start: -1, end: 2 }));
        for (value, hit) in [
            ("-1", true),
            ("1", true),
            ("2", false),
            ("1.5", false),
            ("x", false),
        ] {
            assert_eq!(
                matches(range.clone(), |_| {}, &request(&[("x-a", value)])),
                hit,
                "{value}"
            );
        }
    }

    #[test]
    fn pseudo_headers_match_too() {
        let path = |m: &mut pb::HeaderMatcher| m.name = ":path".into();
        assert!(matches(exact("/p?q"), path, &request(&[])));
        let host = |m: &mut pb::HeaderMatcher| m.name = "Host".into();
        assert!(matches(exact("a.test"), host, &request(&[])));
    }
}
