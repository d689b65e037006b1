//! `format` of strings and numbers, as far as kube-apiserver enforces it for custom resources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A format whose values are checked. Unknown formats are ignored, as the specification of CRDs says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatKind {
    Int32,
    Int64,
    Float,
    Double,
    DateTime,
    Date,
    Duration,
    Byte,
    Ipv4,
    Ipv6,
    Cidr,
    Hostname,
    Email,
    Uri,
    Uuid,
}

impl FormatKind {
    const NAMES: &[(&'static str, Self)] = &[
        ("int32", Self::Int32),
        ("int64", Self::Int64),
        ("float", Self::Float),
        ("double", Self::Double),
        ("date-time", Self::DateTime),
        ("datetime", Self::DateTime),
        ("date", Self::Date),
        ("duration", Self::Duration),
        ("byte", Self::Byte),
        ("ipv4", Self::Ipv4),
        ("ipv6", Self::Ipv6),
        ("cidr", Self::Cidr),
        ("hostname", Self::Hostname),
        ("email", Self::Email),
        ("uri", Self::Uri),
        ("uuid", Self::Uuid),
    ];

    /// The format of this name, if it is one that is checked.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    }

    /// The name used in messages.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether `value` is of this format; values of another JSON type pass, the type check speaks about them.
    pub(crate) fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Int32, Value::Number(number)) => number
                .as_f64()
                .is_none_or(|number| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number)),
            (Self::Int64, Value::Number(number)) => number.as_i64().is_some() || number.is_f64(),
            (_, Value::String(text)) => self.accepts_text(text),
            _ => true,
        }
    }

    fn accepts_text(self, text: &str) -> bool {
        match self {
            Self::Int32 | Self::Int64 | Self::Float | Self::Double => true,
            Self::DateTime => OffsetDateTime::parse(text, &Rfc3339).is_ok(),
            Self::Date => OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339).is_ok(),
            Self::Duration => go_duration_nanos(text).is_some(),
            Self::Byte => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Hostname => is_hostname(text),
            Self::Email => text
                .split_once('@')
                .is_some_and(|(user, host)| !user.is_empty() && is_hostname(host)),
            Self::Uri => {
                text.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme)) || text.starts_with('/')
            }
            Self::Uuid => uuid::Uuid::try_parse(text).is_ok(),
        }
    }
}

/// Nanoseconds of a duration in Go's notation (`1h30m`, `1.5s`, `-2ms`), or `None` when it is not one.
pub(crate) fn go_duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let nanos = match &rest[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * nanos;
        rest = &rest[unit_end..];
    }
    // Beyond 64 bits of nanoseconds (292 years) Go refuses as well.
    if total > i64::MAX as f64 {
        return None;
    }
    let nanos = total as i64;
    Some(if negative { -nanos } else { nanos })
}

/// Whether the text is an address with a prefix length.
pub(crate) fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>()) else {
        return false;
    };
    bits <= if address.is_ipv4() { 32 } else { 128 }
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("-2ms", Some(-2_000_000)),
            ("0", Some(0)),
            ("1", None),
            ("", None),
            ("1x", None),
        ] {
            assert_eq!(go_duration_nanos(text), nanos, "{text}");
        }
    }
}
