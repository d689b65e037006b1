//! Protobuf's JSON form in serde: the `message!` and `proto_enum!` declarations, durations and bytes.
//!
//! Istio defines its API in protobuf and reads it in the JSON mapping of protobuf, with Go's leniency: a plain
//! scalar that is absent has its zero value, `null` means absent, wrapper types (`BoolValue`...) are plain values
//! that may be absent, enums are names or numbers, and durations are anything Go's `time.ParseDuration` reads.
//! Source: <https://protobuf.dev/programming-guides/json/>.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Declares a message: a struct with serde and an OpenAPI schema, from one list of documented fields.
///
/// `name: Type as "json" or "alias" [Rule, ...]`: the JSON name is the lowerCamelCase of the field unless `as` says
/// otherwise; `or` accepts a second spelling; the rules (see [`crate::schema::Rule`]) go into the schema. Rules of
/// the whole object stand after the struct's name.
macro_rules! message {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident $([$($rule:expr),* $(,)?])? {
            $(
                $(#[doc = $field_doc:literal])+
                pub $field:ident : $ty:ty $(as $json:literal $(or $alias:literal)?)? $([$($field_rule:expr),* $(,)?])?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[doc = $field_doc])+
                #[serde(
                    $(rename = $json, $(alias = $alias,)?)?
                    deserialize_with = "crate::proto::null_is_default",
                    skip_serializing_if = "crate::proto::is_default"
                )]
                pub $field: $ty,
            )*
        }

        impl crate::schema::Schema for $name {
            fn schema() -> serde_json::Value {
                #[allow(unused_imports)]
                use crate::schema::Rule::*;
                let rules: &[crate::schema::Rule] = &[$($($rule),*)?];
                let fields: Vec<crate::schema::Field> = vec![
                    $(crate::schema::Field {
                        names: crate::schema::json_names(stringify!($field), &[$($json $(, $alias)?)?]),
                        doc: &[$($field_doc),+],
                        schema: <$ty as crate::schema::Schema>::schema(),
                        rules: &[$($($field_rule),*)?],
                    }),*
                ];
                crate::schema::object(&[$($doc),+], fields, rules)
            }
        }
    };
}
pub(crate) use message;

/// Declares a protobuf enum: `Variant = "NAME" = number`. The first variant is the default (protobuf's zero value).
///
/// Both the name and the number are read; anything else is an error that lists the names, never a panic.
macro_rules! proto_enum {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident {
            $(
                $(#[doc = $variant_doc:literal])+
                $variant:ident = $proto:literal = $number:literal
            ),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $variant_doc])+ $variant),+
        }

        impl $name {
            /// Every value, in the order of the proto file.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in protobuf and in YAML.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $proto),+ }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::proto::enum_value(deserializer, &[$(($proto, $number, Self::$variant)),+])
            }
        }

        impl crate::schema::Schema for $name {
            fn schema() -> serde_json::Value {
                serde_json::json!({ "type": "string", "enum": [$($proto),+] })
            }
        }
    };
}
pub(crate) use proto_enum;

/// Whether a value is its type's default, and so absent in protobuf's JSON.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads a value, `null` being the default, as the protobuf JSON mapping says.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads an enum by name or number out of its table.
pub(crate) fn enum_value<'de, D: Deserializer<'de>, T: Copy>(
    deserializer: D,
    table: &[(&'static str, i32, T)],
) -> Result<T, D::Error> {
    struct Visitor<'a, T>(&'a [(&'static str, i32, T)]);
    impl<T: Copy> Visitor<'_, T> {
        fn names(&self) -> String {
            self.0
                .iter()
                .map(|(name, ..)| *name)
                .collect::<Vec<_>>()
                .join(", ")
        }
    }
    impl<T: Copy> de::Visitor<'_> for Visitor<'_, T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "one of {}", self.names())
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
            let found = self.0.iter().find(|(name, ..)| *name == value);
            found
                .map(|entry| entry.2)
                .ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
            let found = self.0.iter().find(|(_, number, _)| i64::from(*number) == value);
            found
                .map(|entry| entry.2)
                .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
            self.visit_i64(i64::try_from(value).unwrap_or(i64::MAX))
        }
    }
    deserializer.deserialize_any(Visitor(table))
}

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

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Protobuf `bytes`: base64 in JSON, standard or URL-safe alphabet, padded or not when read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let digits = text.trim_end_matches('=');
        let engine = if digits.contains(['-', '_']) {
            &URL_SAFE_NO_PAD
        } else {
            &STANDARD_NO_PAD
        };
        engine
            .decode(digits)
            .map(Bytes)
            .map_err(|error| de::Error::custom(format!("invalid base64: {error}")))
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
