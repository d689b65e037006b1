//! Envoy's substitution format strings: text with command operators such as `%REQ(:PATH)%`.
//!
//! One parser and one evaluator for header values in routes and for access logs (Envoy: "Substitution formatting",
//! `envoy.config.core.v3.SubstitutionFormatString`). A format is parsed once, when configuration is compiled: an
//! unknown operator refuses the configuration.

mod operator;
mod parse;
mod time;
mod transport;

use std::rc::Rc;

use proxy_http::{Headers, RequestHead, ResponseHead};

use crate::error::ConfigResult;
use crate::stream_info::StreamInfo;

pub use operator::{Address, Bytes, GrpcStatusForm, Message, Operator, Place, Point, Unit};
pub use time::TimeFormat;
pub use transport::{CertificateField, CertificateOwner, Leg, TransportFact};

/// A parsed format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Operator(Operator),
}

/// What operators read.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The stream.
    pub info: &'a StreamInfo<'a>,
    /// The request's head, where one was understood.
    pub request: Option<&'a RequestHead>,
    /// The response's head, where there is one.
    pub response: Option<&'a ResponseHead>,
    /// The response's trailers.
    pub trailers: Option<&'a Headers>,
    /// Facts of this process.
    pub process: &'a ProcessInfo,
}

/// Facts of this process that operators read.
#[derive(Clone, Debug, Default)]
pub struct ProcessInfo {
    /// `%HOSTNAME%`.
    pub hostname: Rc<str>,
}

impl Format {
    /// Parses a format string. `%%` is a percent sign.
    ///
    /// # Errors
    /// An unknown operator, or an operator that is not closed.
    pub fn parse(text: &str) -> ConfigResult<Self> {
        Ok(Self {
            parts: parse::parts(text)?,
        })
    }

    /// The text, when there is no operator in it.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The operator, when the format is a single one. JSON logs print such a value with its type.
    #[must_use]
    pub fn single(&self) -> Option<&Operator> {
        match self.parts.as_slice() {
            [Part::Operator(operator)] => Some(operator),
            _ => None,
        }
    }

    /// The operators in it.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.parts.iter().filter_map(|part| match part {
            Part::Operator(operator) => Some(operator),
            Part::Literal(_) => None,
        })
    }

    /// Writes the text; an operator without a value writes `missing` (`-` in text logs, nothing in headers).
    pub fn write(&self, context: &Context<'_>, missing: &[u8], out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Operator(operator) => {
                    if !operator.write(context, out) {
                        out.extend_from_slice(missing);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
