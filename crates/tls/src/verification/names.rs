//! Subject alternative names: which are expected (`match_typed_subject_alt_names`).

use regex::bytes::Regex;

use crate::certificate::Certificate;
use crate::refusal::ContextError;
use crate::settings::{SanType, StringPattern, SubjectAltNameMatcher};

const WHAT: &str = "match_typed_subject_alt_names";

/// A matcher, compiled.
#[derive(Clone, Debug)]
pub(crate) struct NameMatcher {
    san_type: SanType,
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

impl NameMatcher {
    pub(crate) fn compile(settings: &SubjectAltNameMatcher) -> Result<Self, ContextError> {
        let ignore_case = settings.matcher.ignore_case;
        let fold = |text: &str| match ignore_case {
            true => text.to_ascii_lowercase(),
            false => text.to_owned(),
        };
        let filled = |text: &str| match text.is_empty() {
            true => Err(ContextError::invalid(
                WHAT,
                "an empty prefix, suffix or part matches everything",
            )),
            false => Ok(fold(text)),
        };
        let pattern = match &settings.matcher.pattern {
            StringPattern::Exact(text) => Pattern::Exact(fold(text)),
            StringPattern::Prefix(text) => Pattern::Prefix(filled(text)?),
            StringPattern::Suffix(text) => Pattern::Suffix(filled(text)?),
            StringPattern::Contains(text) => Pattern::Contains(filled(text)?),
            StringPattern::Regex(text) => {
                let expression =
                    re2::whole(text).map_err(|error| ContextError::invalid(WHAT, error.to_string()));
                Pattern::Regex(expression?)
            }
        };
        Ok(Self {
            san_type: settings.san_type,
            pattern,
            ignore_case,
        })
    }

    /// Whether a name of the certificate, of this matcher's kind, is expected.
    pub(crate) fn matches(&self, certificate: &Certificate) -> bool {
        let any = |names: &[String]| names.iter().any(|name| self.matches_text(name));
        match (self.san_type, &self.pattern) {
            (SanType::Dns, Pattern::Exact(expected)) => certificate
                .dns_names
                .iter()
                .any(|name| dns_name_covers(name, expected)),
            (SanType::Dns, _) => any(&certificate.dns_names),
            (SanType::Uri, _) => any(&certificate.uris),
            (SanType::Email, _) => any(&certificate.emails),
            (SanType::IpAddress, _) => {
                let mut texts = certificate.addresses.iter().map(ToString::to_string);
                texts.any(|text| self.matches_text(&text))
            }
        }
    }

    fn matches_text(&self, name: &str) -> bool {
        if let Pattern::Regex(expression) = &self.pattern {
            return expression.is_match(name.as_bytes());
        }
        match self.ignore_case {
            true => self.matches_folded(&name.to_ascii_lowercase()),
            false => self.matches_folded(name),
        }
    }

    fn matches_folded(&self, name: &str) -> bool {
        match &self.pattern {
            Pattern::Exact(text) => name == text,
            Pattern::Prefix(text) => name.starts_with(text),
            Pattern::Suffix(text) => name.ends_with(text),
            Pattern::Contains(text) => name.contains(text),
            Pattern::Regex(expression) => expression.is_match(name.as_bytes()),
        }
    }
}

/// Whether the DNS name of a certificate, possibly a wildcard, covers `name`. Case does not count. A `*` stands for
/// characters of the leftmost label only (RFC 6125, section 6.4.3), and for none of an internationalised label.
pub(crate) fn dns_name_covers(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    if pattern == name {
        return true;
    }
    let (Some((label, domain)), Some((name_label, name_domain))) =
        (pattern.split_once('.'), name.split_once('.'))
    else {
        return false;
    };
    let Some((before, after)) = label.split_once('*') else {
        return false;
    };
    let single = !after.contains('*') && !domain.contains('*') && !label.starts_with("xn--");
    let fits = label.len() <= name_label.len() + 1
        && name_label.starts_with(before)
        && name_label.ends_with(after)
        && !name_label.is_empty();
    single && fits && domain == name_domain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::StringMatcher;

    fn matcher(pattern: StringPattern, ignore_case: bool) -> Result<NameMatcher, ContextError> {
        NameMatcher::compile(&SubjectAltNameMatcher {
            san_type: SanType::Uri,
            matcher: StringMatcher { pattern, ignore_case },
        })
    }

    fn check(pattern: StringPattern, ignore_case: bool, matching: &[&str], other: &[&str]) {
        let matcher = matcher(pattern, ignore_case).unwrap();
        for name in matching {
            assert!(matcher.matches_text(name), "{matcher:?} {name}");
        }
        for name in other {
            assert!(!matcher.matches_text(name), "{matcher:?} {name}");
        }
    }

    #[test]
    fn each_pattern_looks_at_its_part_of_the_name() {
        use StringPattern::{Contains, Exact, Prefix, Suffix};
        check(Exact("a".into()), false, &["a"], &["A", "ab", ""]);
        check(Exact("Ab".into()), true, &["aB", "AB"], &["ab "]);
        check(
            Prefix("spiffe://a/".into()),
            false,
            &["spiffe://a/b"],
            &["spiffe://ab/", "x spiffe://a/"],
        );
        check(Suffix("/sa/X".into()), true, &["spiffe://a/SA/x"], &["/sa/xx"]);
        check(Contains("ns".into()), false, &["a/ns/b", "ns"], &["n/s", "NS"]);
    }

    #[test]
    fn an_expression_covers_the_whole_name() {
        use StringPattern::Regex;
        check(
            Regex("spiffe://a/.*".into()),
            true,
            &["spiffe://a/", "spiffe://a/b"],
            &["xspiffe://a/", "SPIFFE://a/"],
        );
        check(Regex("a|bc".into()), false, &["a", "bc"], &["abc", "ac", "a\n"]);
        check(Regex("(?i)ab".into()), false, &["AB"], &["ABC"]);
        // As for Envoy, of bytes.
        check(Regex("..".into()), false, &["é", "ab"], &["a"]);
        check(Regex(r"\Qa.b\E\w".into()), false, &["a.bc"], &["axbc", "a.bé"]);
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        use StringPattern::{Contains, Prefix, Regex, Suffix};
        for pattern in [
            Prefix(String::new()),
            Suffix(String::new()),
            Contains(String::new()),
            Regex("(".into()),
            Regex("a)|(b".into()),
            Regex("((a{100}){100}){100}".into()),
        ] {
            assert!(matcher(pattern.clone(), false).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        for (pattern, name) in [
            ("*.example.com", "a.EXAMPLE.com"),
            ("a.example.com", "A.example.com"),
            ("a*.example.com", "ab.example.com"),
            ("*b.example.com", "ab.example.com"),
            ("a*c.example.com", "abc.example.com"),
        ] {
            assert!(dns_name_covers(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.example.com", "a.b.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", ".example.com"),
            ("*", "localhost"),
            ("*.*.com", "a.example.com"),
            ("a.*.com", "a.example.com"),
            ("**.example.com", "a.example.com"),
            ("ab*ba.example.com", "aba.example.com"),
            ("xn--*.example.com", "xn--a.example.com"),
        ] {
            assert!(!dns_name_covers(pattern, name), "{pattern} {name}");
        }
    }
}
