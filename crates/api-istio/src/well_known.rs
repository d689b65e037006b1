//! Protobuf's well-known types that are plain values here: durations and bytes.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A `google.protobuf.Duration`: never negative, written as seconds (`1.500s`), read in Go's syntax (`1h2m3.5s`, `10ms`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

/// The text is no duration; the message says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationError(String);

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DurationError {}

impl Duration {
    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// A duration of whole milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(std::time::Duration::from_millis(milliseconds))
    }

    /// Whether it is zero, which some fields read as "off".
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for std::time::Duration {
    fn from(value: Duration) -> Self {
        value.0
    }
}

/// Nanoseconds of a unit of Go's duration syntax, longest unit names first.
const UNITS_NANOS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let error = |why: &str| DurationError(format!("invalid duration {text:?}: {why}"));
        let mut rest = match text.strip_prefix('-') {
            Some(_) => return Err(error("it must not be negative")),
            None => text.strip_prefix('+').unwrap_or(text),
        };
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(error("it is empty"));
        }
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| c != '.' && !c.is_ascii_digit())
                .ok_or_else(|| error("a unit is missing"))?;
            let (number, tail) = rest.split_at(end);
            let unit = UNITS_NANOS
                .iter()
                .find(|(name, _)| tail.starts_with(name) && !longer_unit(tail, name));
            let (name, size) = unit.ok_or_else(|| error("unknown unit; use h, m, s, ms, us or ns"))?;
            nanos += nanos_of(number, *size).ok_or_else(|| error("bad number"))?;
            rest = &tail[name.len()..];
        }
        let nanos = u64::try_from(nanos).map_err(|_| error("it is too long"))?;
        Ok(Self(std::time::Duration::from_nanos(nanos)))
    }
}

/// Whether `tail` starts with a longer unit than `name` (`ms` when `m` was tried).
fn longer_unit(tail: &str, name: &str) -> bool {
    name == "m" && tail.starts_with("ms")
}

/// `1.5` of a unit, in nanoseconds; `None` when it is no decimal number.
fn nanos_of(number: &str, unit_nanos: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 18 {
        return None;
    }
    let mut nanos = if whole.is_empty() {
        0
    } else {
        whole.parse::<u128>().ok()? * u128::from(unit_nanos)
    };
    let mut scale = u128::from(unit_nanos);
    for digit in fraction.bytes() {
        scale /= 10;
        nanos += u128::from(digit - b'0') * scale;
    }
    Some(nanos)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        match nanos {
            0 => write!(f, "{seconds}s"),
            n if n % 1_000_000 == 0 => write!(f, "{seconds}.{:03}s", n / 1_000_000),
            n if n % 1_000 == 0 => write!(f, "{seconds}.{:06}s", n / 1_000),
            n => write!(f, "{seconds}.{n:09}s"),
        }
    }
}

/// Protobuf `bytes`: base64 in JSON, standard or URL-safe alphabet, padded or not when read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Reads base64.
    pub(crate) fn from_base64(text: &str) -> Result<Self, base64::DecodeError> {
        let digits = text.trim_end_matches('=');
        let engine = if digits.contains(['-', '_']) {
            &URL_SAFE_NO_PAD
        } else {
            &STANDARD_NO_PAD
        };
        engine.decode(digits).map(Self)
    }

    /// Writes base64 with the standard alphabet.
    pub(crate) fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_duration(text: &str, milliseconds: u64) {
        assert_eq!(text.parse(), Ok(Duration::from_millis(milliseconds)), "{text}");
    }

    #[test]
    fn durations_read_gos_syntax() {
        check_duration("1.5s", 1500);
        check_duration("10ms", 10);
        check_duration("1h2m3.5s", 3_723_500);
        check_duration("0", 0);
        check_duration(".5s", 500);
        check_duration("5m", 300_000);
        assert_eq!("1000us".parse(), Ok(Duration::from_millis(1)));
        assert_eq!(
            "1.000000001s".parse::<Duration>().map(|d| d.0.subsec_nanos()),
            Ok(1)
        );
    }

    #[test]
    fn durations_refuse_nonsense_with_a_reason() {
        for text in ["", "5", "-1s", "1x", "1..5s", ".s", "s", "1e3s", "99999999999h"] {
            let error = text.parse::<Duration>().expect_err(text).to_string();
            assert!(
                error.starts_with(&format!("invalid duration {text:?}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn durations_write_protobufs_form() {
        assert_eq!(Duration::from_secs(90).to_string(), "90s");
        assert_eq!(Duration::from_millis(1500).to_string(), "1.500s");
        assert_eq!(
            Duration(std::time::Duration::from_nanos(1)).to_string(),
            "0.000000001s"
        );
    }

    #[test]
    fn bytes_read_every_base64_dialect() {
        for text in ["\"+/8=\"", "\"+/8\"", "\"-_8=\"", "\"-_8\""] {
            assert_eq!(
                serde_json::from_str::<Bytes>(text).expect(text),
                Bytes(vec![0xfb, 0xff])
            );
        }
        assert!(serde_json::from_str::<Bytes>("\"*\"").is_err());
    }
}
