//! `envoy.type.matcher.v3.StringMatcher` and `RegexMatcher`, compiled.

use api_envoy::envoy::r#type::matcher::v3 as pb;
use api_envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use memchr::memmem;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use regex::bytes::Regex;

/// Matches a string. With `ignore_case` the pattern is kept in lower case.
#[derive(Clone, Debug)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<memmem::Finder<'static>>),
    Regex(Regex),
}

impl StringMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// No pattern, a malformed regular expression, or a custom matcher.
    pub fn compile(proto: &pb::StringMatcher) -> ConfigResult<Self> {
        let fold = |text: &str| -> Box<[u8]> {
            let text = if proto.ignore_case {
                text.to_ascii_lowercase()
            } else {
                text.to_owned()
            };
            text.into_bytes().into()
        };
        let pattern = match &proto.match_pattern {
            None => return Err(ConfigError::at("match_pattern", "missing")),
            Some(MatchPattern::Exact(text)) => Pattern::Exact(fold(text)),
            Some(MatchPattern::Prefix(text)) => Pattern::Prefix(fold(text)),
            Some(MatchPattern::Suffix(text)) => Pattern::Suffix(fold(text)),
            Some(MatchPattern::Contains(text)) => {
                Pattern::Contains(Box::new(memmem::Finder::new(&fold(text)).into_owned()))
            }
            Some(MatchPattern::SafeRegex(regex)) => {
                if proto.ignore_case {
                    return Err(ConfigError::at(
                        "ignore_case",
                        "has no effect on safe_regex; use (?i)",
                    ));
                }
                Pattern::Regex(full_match(regex).within("safe_regex")?)
            }
            Some(MatchPattern::Custom(_)) => return Err(ConfigError::unsupported("custom")),
        };
        Ok(Self {
            pattern,
            ignore_case: proto.ignore_case,
        })
    }

    /// Whether `value` matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        if self.ignore_case {
            self.matches_folded(value)
        } else {
            self.matches_as_is(value)
        }
    }

    fn matches_as_is(&self, value: &[u8]) -> bool {
        match &self.pattern {
            Pattern::Exact(text) => **text == *value,
            Pattern::Prefix(text) => value.starts_with(text),
            Pattern::Suffix(text) => value.ends_with(text),
            Pattern::Contains(finder) => finder.find(value).is_some(),
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }

    fn matches_folded(&self, value: &[u8]) -> bool {
        match &self.pattern {
            Pattern::Exact(text) => text.eq_ignore_ascii_case(value),
            Pattern::Prefix(text) => value
                .get(..text.len())
                .is_some_and(|v| v.eq_ignore_ascii_case(text)),
            Pattern::Suffix(text) => {
                value.len() >= text.len() && value[value.len() - text.len()..].eq_ignore_ascii_case(text)
            }
            Pattern::Contains(finder) => finder.find(&value.to_ascii_lowercase()).is_some(),
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Compiles a regular expression that has to match the whole text, as Envoy's safe_regex does with RE2.
///
/// # Errors
/// A malformed expression, or one too large.
pub fn full_match(proto: &pb::RegexMatcher) -> ConfigResult<Regex> {
    re2::whole(&proto.regex).map_err(|error| ConfigError::at("regex", error.to_string()))
}

/// Compiles a regular expression that may match anywhere, for rewrites.
///
/// # Errors
/// A malformed expression, or one too large.
pub fn anywhere(proto: &pb::RegexMatcher) -> ConfigResult<Regex> {
    re2::anywhere(&proto.regex).map_err(|error| ConfigError::at("regex", error.to_string()))
}

/// A regular expression and what takes the place of its matches (`RegexMatchAndSubstitute`).
#[derive(Clone, Debug)]
pub struct RegexRewrite {
    regex: Regex,
    /// Literal text and group numbers, in order.
    substitution: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(Box<[u8]>),
    Group(usize),
}

impl RegexRewrite {
    /// Compiles a rewrite. `\1` to `\9` stand for groups, `\0` for the whole match, `\\` for a backslash.
    ///
    /// # Errors
    /// A malformed expression or substitution, or a group that the expression does not have.
    pub fn compile(proto: &pb::RegexMatchAndSubstitute) -> ConfigResult<Self> {
        let pattern = proto
            .pattern
            .as_ref()
            .ok_or_else(|| ConfigError::at("pattern", "missing"))?;
        let regex = anywhere(pattern).within("pattern")?;
        let substitution = substitution(&proto.substitution, regex.captures_len()).within("substitution")?;
        Ok(Self { regex, substitution })
    }

    /// The text with every match replaced.
    #[must_use]
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        let expand = |captures: &regex::bytes::Captures<'_>| {
            let mut out = Vec::new();
            for piece in &self.substitution {
                match piece {
                    Piece::Literal(text) => out.extend_from_slice(text),
                    Piece::Group(n) => out.extend_from_slice(captures.get(*n).map_or(&[], |m| m.as_bytes())),
                }
            }
            out
        };
        self.regex.replace_all(text, expand).into_owned()
    }
}

fn substitution(text: &str, groups: usize) -> ConfigResult<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            literal.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'\\') => literal.push(b'\\'),
            Some(digit @ b'0'..=b'9') => {
                let group = usize::from(digit - b'0');
                if group >= groups {
                    return Err(ConfigError::new(format!("the expression has no group {group}")));
                }
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                }
                pieces.push(Piece::Group(group));
            }
            _ => {
                return Err(ConfigError::new(
                    "a backslash must be followed by a digit or a backslash",
                ));
            }
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(pattern: MatchPattern, ignore_case: bool) -> StringMatcher {
        StringMatcher::compile(&pb::StringMatcher {
            ignore_case,
            match_pattern: Some(pattern),
        })
        .unwrap()
    }

    fn regex(regex: &str) -> pb::RegexMatcher {
        pb::RegexMatcher {
            regex: regex.into(),
            ..Default::default()
        }
    }

    #[test]
    fn every_kind_matches_with_and_without_case() {
        for (pattern, hit, miss) in [
            (MatchPattern::Exact("Ab".into()), "Ab", "Abc"),
            (MatchPattern::Prefix("Ab".into()), "Abc", "xAb"),
            (MatchPattern::Suffix("Ab".into()), "xAb", "Abc"),
            (MatchPattern::Contains("Ab".into()), "xAby", "xay"),
        ] {
            let exact = matcher(pattern.clone(), false);
            assert!(
                exact.matches(hit.as_bytes()) && !exact.matches(miss.as_bytes()),
                "{pattern:?}"
            );
            assert!(!exact.matches(hit.to_uppercase().as_bytes()), "{pattern:?}");
            let folded = matcher(pattern.clone(), true);
            assert!(folded.matches(hit.to_uppercase().as_bytes()), "{pattern:?}");
        }
    }

    #[test]
    fn a_regex_matches_the_whole_text() {
        let regex = matcher(MatchPattern::SafeRegex(regex("a|b+")), false);
        assert!(regex.matches(b"a") && regex.matches(b"bbb"));
        assert!(!regex.matches(b"ab") && !regex.matches(b"xa") && !regex.matches(b""));
    }

    #[test]
    fn an_ordinary_rule_about_names_is_not_too_large() {
        let names = full_match(&regex(r"/\w{1,63}(?:/[\w.-]{1,63}){0,8}")).unwrap();
        assert!(names.is_match(b"/a_1/b.c-d"));
        assert!(!names.is_match("/é".as_bytes()));
    }

    #[test]
    fn a_malformed_regex_is_refused_with_its_reason() {
        let error = full_match(&regex("a)(b")).unwrap_err();
        assert_eq!(
            (error.path(), error.reason()),
            ("regex", "nothing is open here: `)`")
        );
    }

    #[test]
    fn a_rewrite_replaces_every_match_with_groups() {
        let proto = pb::RegexMatchAndSubstitute {
            pattern: Some(regex("^/item/([^/]+)/(.*)$")),
            substitution: r"/\2/of/\1".into(),
        };
        assert_eq!(
            RegexRewrite::compile(&proto).unwrap().apply(b"/item/7/a/b"),
            b"/a/b/of/7"
        );
        let proto = pb::RegexMatchAndSubstitute {
            pattern: Some(regex("one")),
            substitution: r"[\0\\]".into(),
        };
        assert_eq!(
            RegexRewrite::compile(&proto).unwrap().apply(b"/one/one"),
            br"/[one\]/[one\]"
        );
    }

    #[test]
    fn a_substitution_with_an_unknown_group_is_refused() {
        let proto = pb::RegexMatchAndSubstitute {
            pattern: Some(regex("a")),
            substitution: r"\1".into(),
        };
        assert_eq!(RegexRewrite::compile(&proto).unwrap_err().path(), "substitution");
    }
}
