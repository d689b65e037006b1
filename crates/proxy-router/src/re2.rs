//! Regular expressions as Envoy's RE2 reads them, in the words of the `regex` crate.
//!
//! Asked of Envoy 1.40: an expression is of bytes (`..` matches `é`), its classes and its case are ASCII, and what is in
//! brackets has no operators: `[\d&&a]` holds an ampersand, `[[a]` a bracket. A byte has the properties (`\pL`) of the
//! character of that number. What has no counterpart is left for the crate to refuse.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

/// The expression for a `RegexBuilder` without `unicode`.
pub(crate) fn in_bytes(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '[' => class(&mut rest, &mut out),
            '\\' => escape(&mut rest, &mut out),
            c => literal(c, &mut out),
        }
    }
    out
}

/// A character that stands for itself or is an operator: one beyond ASCII is its bytes, each for itself.
fn literal(c: char, out: &mut String) {
    if c.is_ascii() {
        out.push(c);
        return;
    }
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        // Writing to a string does not fail.
        let _ = write!(out, "\\x{byte:02X}");
    }
}

/// An escape outside of brackets, after its backslash.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match rest.next() {
        // Boundaries of words to the crate, themselves to RE2.
        Some(c @ ('<' | '>')) => out.push(c),
        Some('C') => out.push_str("(?s:.)"),
        Some('Q') => quoted(rest, out),
        Some(c @ ('p' | 'P')) => property(c, rest, out),
        Some('b') => {
            out.push_str(r"\b");
            if rest.next_if_eq(&'{').is_some() {
                out.push_str(r"\{");
            }
        }
        Some(c) => {
            out.push('\\');
            out.push(c);
        }
        None => out.push('\\'),
    }
}

/// The bytes that have a property, or, after `P`, that do not. An unknown one stays as it is, to be refused.
fn property(letter: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut name = String::new();
    let mut negated = letter == 'P';
    if let Some(first) = rest.next() {
        name.push(first);
        if first == '{' {
            negated ^= rest.next_if_eq(&'^').is_some();
            braced(rest, &mut name);
        }
    }
    let name = format!("\\{}{name}", if negated { 'P' } else { 'p' });
    let Ok(of_characters) = regex::Regex::new(&format!(r"\A{name}\z")) else {
        out.push_str(&name);
        return;
    };
    out.push('[');
    let bytes =
        (0..=u8::MAX).filter(|byte| of_characters.is_match(char::from(*byte).encode_utf8(&mut [0; 4])));
    let mut none = true;
    for byte in bytes {
        none = false;
        let _ = write!(out, "\\x{byte:02X}");
    }
    out.push_str(if none { r"^\x00-\xFF]" } else { "]" });
}

/// The rest of what is in braces.
fn braced(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    for c in rest.by_ref() {
        out.push(c);
        if c == '}' {
            return;
        }
    }
}

/// Text up to `\E`, or to the end, that stands for itself.
fn quoted(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(c) = rest.next() {
        if c == '\\' && rest.next_if_eq(&'E').is_some() {
            return;
        }
        if c.is_ascii_punctuation() {
            literal_punctuation(c, out);
        } else {
            literal(c, out);
        }
    }
}

fn literal_punctuation(c: char, out: &mut String) {
    if !matches!(c, '<' | '>') {
        out.push('\\');
    }
    out.push(c);
}

/// What is in brackets, after the first one.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = rest.next() {
        if c == ']' && !first {
            out.push(']');
            return;
        }
        first = false;
        if c == '[' && rest.peek() == Some(&':') {
            named_class(rest, out);
        } else if item(c, rest, out) && is_range(rest) {
            rest.next();
            out.push('-');
            if let Some(c) = rest.next() {
                item(c, rest, out);
            }
        }
    }
}

/// Whether a hyphen comes that is between two ends of a range.
fn is_range(rest: &Peekable<Chars<'_>>) -> bool {
    let mut ahead = rest.clone();
    ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']')
}

/// `[:alpha:]`, after its bracket.
fn named_class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    let mut before = '[';
    for c in rest.by_ref() {
        out.push(c);
        if before == ':' && c == ']' {
            return;
        }
        before = c;
    }
}

/// One character in brackets; whether it may begin a range.
fn item(c: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) -> bool {
    if c == '\\' {
        let escaped = rest.next();
        match escaped {
            Some('x') => {
                out.push_str(r"\x");
                hexadecimal(rest, out);
            }
            Some(c @ ('p' | 'P')) => property(c, rest, out),
            Some(c @ ('<' | '>')) => out.push(c),
            Some(c) => {
                out.push('\\');
                out.push(c);
            }
            None => out.push('\\'),
        }
        return !matches!(escaped, Some('d' | 'D' | 's' | 'S' | 'w' | 'W' | 'p' | 'P'));
    }
    if c.is_ascii_punctuation() {
        literal_punctuation(c, out);
    } else {
        literal(c, out);
    }
    true
}

/// The digits of `\x41` or `\x{41}`.
fn hexadecimal(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    if rest.next_if_eq(&'{').is_some() {
        out.push('{');
        braced(rest, out);
    } else {
        out.extend(rest.by_ref().take(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::bytes::RegexBuilder;

    /// Which of the texts an expression matches as a whole.
    fn matched<'t>(expression: &str, texts: &[&'t str]) -> Vec<&'t str> {
        let regex = RegexBuilder::new(&format!(r"\A(?:{})\z", in_bytes(expression)))
            .unicode(false)
            .build()
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
        let hits = texts.iter().copied();
        hits.filter(|text| regex.is_match(text.as_bytes())).collect()
    }

    /// The answers are those of Envoy 1.40 to the same expressions and texts.
    #[test]
    fn expressions_match_what_they_match_in_envoy() {
        let texts = [
            "a", "é", "\u{17f}", "\u{212a}", "\u{663}", "aé", "ab", "3", "_", "k", "É", "&", "b", "[", "A",
            "S", "&&", "[a", "-", "~", "a.b",
        ];
        for (expression, hits) in [
            (r"\w+", &["a", "ab", "3", "_", "k", "b", "A", "S"][..]),
            (r"\d+", &["3"]),
            (r"(?i)k", &["k"]),
            (r"(?i)[a-z]", &["a", "k", "b", "A", "S"]),
            (r"(?i)é", &["é"]),
            (r".", &["a", "3", "_", "k", "&", "b", "[", "A", "S", "-", "~"]),
            (r"..", &["é", "\u{17f}", "\u{663}", "ab", "É", "&&", "[a"]),
            (
                r"\W+",
                &[
                    "é", "\u{17f}", "\u{212a}", "\u{663}", "É", "&", "[", "&&", "-", "~",
                ],
            ),
            (r"[\W]", &["&", "[", "-", "~"]),
            (r"a\bé", &["aé"]),
            (r"é\b", &[]),
            (r"[\d&&a]", &["a", "3", "&"]),
            (r"[[a]", &["a", "["]),
            (r"[a-c--b]", &["a", "3", "_", "b", "[", "A", "S", "-"]),
            (r"[~~]", &["~"]),
            (r"[a\-z]", &["a", "-"]),
            (r"[]a]", &["a"]),
            (r"[[:word:]]", &["a", "3", "_", "k", "b", "A", "S"]),
            (r"\Qa.b\E", &["a.b"]),
            (r"\x41", &["A"]),
            (r"[\x41-\x{42}]", &["A"]),
            (r"\<a", &[]),
            (r"\_", &["_"]),
            (r"\pL", &["a", "k", "b", "A", "S"]),
            (r"[\PL]", &["3", "_", "&", "[", "-", "~"]),
            (r"\p{^L}", &["3", "_", "&", "[", "-", "~"]),
            (r"[^\pL\W]", &["3", "_"]),
            (r"\p{Lu}", &["A", "S"]),
            (r"\p{Greek}", &[]),
            (r"\C\C", &["é", "\u{17f}", "\u{663}", "ab", "É", "&&", "[a"]),
        ] {
            assert_eq!(matched(expression, &texts), hits, "{expression}");
        }
    }

    #[test]
    fn what_has_no_counterpart_is_refused() {
        for expression in [r"\p{none}", r"[\p{none}]", r"[a", r"\Z", r"a{1,2"] {
            let built = RegexBuilder::new(&in_bytes(expression)).unicode(false).build();
            assert!(built.is_err(), "{expression}");
        }
    }
}
