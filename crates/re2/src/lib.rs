//! Regular expressions as Envoy's RE2 reads them, on bytes, compiled by the `regex` crate.
//!
//! Both wings need one opinion about them: what the control plane lets through every proxy must take, and what a real
//! Envoy takes ours must take, with the same meaning. Asked of Envoy 1.40: an expression is of bytes (`..` matches `é`),
//! its classes and its case are ASCII, what is in brackets has no operators (`[\d&&a]` holds an ampersand), and a byte
//! has the properties (`\pL`) of the character of that number. Syntax: RE2's `doc/syntax.txt`; there are no look-arounds,
//! no references back, and none of what only the crate knows (`(?x)`, `\u0041`, `a**`).

mod class;
mod escape;
pub mod limits;
mod property;
mod state;
mod translation;

use regex::bytes::{Regex, RegexBuilder};

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    fn new(what: &str, part: &[u8]) -> Self {
        Self(format!("{what}: `{}`", String::from_utf8_lossy(part)))
    }
}

/// Compiles an expression that may match anywhere.
///
/// # Errors
/// It is none of RE2's, or too large.
pub fn anywhere(expression: &str) -> Result<Regex, Invalid> {
    compiled(&translation::translated(expression)?)
}

/// Compiles an expression that has to match the whole text, as Envoy's `safe_regex` does.
///
/// # Errors
/// It is none of RE2's, or too large.
pub fn whole(expression: &str) -> Result<Regex, Invalid> {
    // What is translated is whole in itself, so no parenthesis of its own can end the group.
    compiled(&format!(r"\A(?:{})\z", translation::translated(expression)?))
}

fn compiled(translated: &str) -> Result<Regex, Invalid> {
    RegexBuilder::new(translated)
        .unicode(false)
        .size_limit(limits::MAX_EXPRESSION_BYTES)
        .nest_limit(limits::MAX_DEPTH * 4)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => {
                Invalid(format!("it is larger than {limit} bytes when compiled"))
            }
            other => Invalid(
                other
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
            ),
        })
}
