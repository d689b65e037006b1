//! Reading and writing the types in protobuf's JSON form, by way of [`serde_json::Value`].
//!
//! Each type has one small function to read it and one to write it. Derived serde implementations would be made again
//! for every format that reads them, a visitor per type each time, and were half of the machine code of this crate and
//! of the one that reads the objects. The types are serde's all the same, by way of a `Value`.
//! Source: <https://protobuf.dev/programming-guides/json/>.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Unexpected;
use serde_json::{Map, Value};

use crate::well_known::{Bytes, Duration};

/// A type with a form in protobuf's JSON.
pub trait Json: Sized {
    /// Reads a value. `null` never gets here from a field, where it means absent.
    ///
    /// # Errors
    /// The value, or one inside it, is not of its type.
    fn read(value: Value) -> Result<Self, ReadError>;

    /// Writes the value.
    fn write(&self) -> Value;
}

/// A value is not of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    path: String,
    reason: String,
}

impl ReadError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            reason: reason.into(),
        }
    }

    fn wrong_type(value: &Value, expected: &str) -> Self {
        Self::new(format!("invalid type: {}, expected {expected}", shown(value)))
    }

    fn wrong_value(value: &Value, expected: &str) -> Self {
        Self::new(format!("invalid value: {}, expected {expected}", shown(value)))
    }

    /// The place below the value that was read, such as `http[0].timeout`; empty for the value itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn inside(mut self, field: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{field}{dot}{}", self.path);
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ReadError {}

/// A value as serde's errors show it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => Unexpected::Bool(*flag).to_string(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Unexpected::Signed(number).to_string(),
            (_, Some(number), _) => Unexpected::Unsigned(number).to_string(),
            (.., number) => Unexpected::Float(number.unwrap_or_default()).to_string(),
        },
        Value::String(text) => Unexpected::Str(text).to_string(),
        Value::Array(_) => Unexpected::Seq.to_string(),
        Value::Object(_) => Unexpected::Map.to_string(),
    }
}

/// The JSON names of a field: those given, else the lowerCamelCase of its Rust name.
pub(crate) fn names(field: &str, given: &[&str]) -> Vec<String> {
    if given.is_empty() {
        vec![lower_camel_case(field).collect()]
    } else {
        given.iter().map(ToString::to_string).collect()
    }
}

fn lower_camel_case(field: &str) -> impl Iterator<Item = char> {
    let mut capital = false;
    field
        .strip_prefix("r#")
        .unwrap_or(field)
        .chars()
        .filter_map(move |c| match c {
            '_' => {
                capital = true;
                None
            }
            c if std::mem::take(&mut capital) => Some(c.to_ascii_uppercase()),
            c => Some(c),
        })
}

/// The fields of a message on their way in or out.
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// The first thing that was wrong. It is kept here and looked at once, so that reading a field is one plain call.
    error: Option<ReadError>,
}

impl Fields {
    /// No fields yet.
    pub(crate) fn new() -> Self {
        Self {
            map: Map::new(),
            error: None,
        }
    }

    /// The fields of `value`, which must be an object.
    pub(crate) fn of(value: Value) -> Result<Self, ReadError> {
        match value {
            Value::Object(map) => Ok(Self { map, error: None }),
            other => Err(ReadError::wrong_type(&other, "a map")),
        }
    }

    /// Reads a field into its place, where the default of its type is; absent and `null` are the default of its type. Fields that nobody reads are ignored: the schema
    /// refuses them before.
    pub(crate) fn read<T: Json>(&mut self, field: &str, given: &[&str], place: &mut T) {
        let Some((name, value)) = self.take(field, given) else {
            return;
        };
        match T::read(value) {
            Ok(read) => *place = read,
            Err(error) => self.error = Some(error.inside(&name)),
        }
    }

    /// The message whose fields were read, unless one of them was wrong.
    pub(crate) fn finish<M>(self, message: M) -> Result<M, ReadError> {
        self.error.map_or(Ok(message), Err)
    }

    fn take(&mut self, field: &str, given: &[&str]) -> Option<(String, Value)> {
        if self.error.is_some() {
            return None;
        }
        let mut found = None;
        for (name, value) in &mut self.map {
            let is_field = if given.is_empty() {
                lower_camel_case(field).eq(name.chars())
            } else {
                given.contains(&name.as_str())
            };
            if is_field && !value.is_null() {
                if found.is_some() {
                    self.error = Some(ReadError::new(format!("duplicate field `{}`", given[0])));
                    return None;
                }
                found = Some((name.clone(), value.take()));
            }
        }
        found
    }

    /// Writes a field unless it has the default of its type, which protobuf leaves out.
    pub(crate) fn write<T: Json + Default + PartialEq>(&mut self, field: &str, given: &[&str], value: &T) {
        if *value != T::default() {
            self.put(field, given, value.write());
        }
    }

    fn put(&mut self, field: &str, given: &[&str], value: Value) {
        let name = match given {
            [] => lower_camel_case(field).collect(),
            [name, ..] => (*name).to_owned(),
        };
        self.map.insert(name, value);
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Object(fields.map)
    }
}

/// Finds an enum's value by name or number in its table of names and numbers; returns the place in the table.
pub(crate) fn read_enum(value: &Value, table: &[(&str, i32)]) -> Result<usize, ReadError> {
    let found = match value {
        Value::String(text) => table.iter().position(|(name, _)| name == text),
        Value::Number(number) => {
            let wanted = number.as_i64();
            table
                .iter()
                .position(|(_, number)| Some(i64::from(*number)) == wanted)
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        let expected = format!("one of {}", names.join(", "));
        if value.is_string() || value.is_number() {
            ReadError::wrong_value(value, &expected)
        } else {
            ReadError::wrong_type(value, &expected)
        }
    })
}

impl Json for String {
    fn read(value: Value) -> Result<Self, ReadError> {
        match value {
            Value::String(text) => Ok(text),
            other => Err(ReadError::wrong_type(&other, "a string")),
        }
    }

    fn write(&self) -> Value {
        self.as_str().into()
    }
}

impl Json for bool {
    fn read(value: Value) -> Result<Self, ReadError> {
        value
            .as_bool()
            .ok_or_else(|| ReadError::wrong_type(&value, "a boolean"))
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

macro_rules! integers {
    ($($name:ident by $method:ident),*) => {$(
        impl Json for $name {
            fn read(value: Value) -> Result<Self, ReadError> {
                let number = value.$method().and_then(|number| Self::try_from(number).ok());
                number.ok_or_else(|| match value.as_f64() {
                    Some(number) if number.fract() == 0.0 => ReadError::wrong_value(&value, stringify!($name)),
                    _ => ReadError::wrong_type(&value, stringify!($name)),
                })
            }

            fn write(&self) -> Value {
                (*self).into()
            }
        }
    )*};
}
integers!(i32 by as_i64, u32 by as_u64, u64 by as_u64);

impl Json for f64 {
    fn read(value: Value) -> Result<Self, ReadError> {
        value
            .as_f64()
            .ok_or_else(|| ReadError::wrong_type(&value, "a number"))
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Json for Duration {
    fn read(value: Value) -> Result<Self, ReadError> {
        String::read(value)?
            .parse()
            .map_err(|error: crate::well_known::DurationError| ReadError::new(error.to_string()))
    }

    fn write(&self) -> Value {
        self.to_string().into()
    }
}

impl Json for Bytes {
    fn read(value: Value) -> Result<Self, ReadError> {
        Self::from_base64(&String::read(value)?)
            .map_err(|error| ReadError::new(format!("invalid base64: {error}")))
    }

    fn write(&self) -> Value {
        self.to_base64().into()
    }
}

/// `google.protobuf.Struct`.
impl Json for Map<String, Value> {
    fn read(value: Value) -> Result<Self, ReadError> {
        match value {
            Value::Object(map) => Ok(map),
            other => Err(ReadError::wrong_type(&other, "a map")),
        }
    }

    fn write(&self) -> Value {
        Value::Object(self.clone())
    }
}

impl<T: Json> Json for Option<T> {
    fn read(value: Value) -> Result<Self, ReadError> {
        T::read(value).map(Some)
    }

    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::write)
    }
}

impl<T: Json> Json for Vec<T> {
    fn read(value: Value) -> Result<Self, ReadError> {
        let Value::Array(items) = value else {
            return Err(ReadError::wrong_type(&value, "a sequence"));
        };
        let read = |(index, item)| T::read(item).map_err(|error| error.inside(&format!("[{index}]")));
        items.into_iter().enumerate().map(read).collect()
    }

    fn write(&self) -> Value {
        self.iter().map(T::write).collect()
    }
}

impl<K: Ord + FromStr + ToString, T: Json> Json for BTreeMap<K, T> {
    fn read(value: Value) -> Result<Self, ReadError> {
        let mut read = Self::new();
        for (name, item) in Map::read(value)? {
            let key = name
                .parse()
                .map_err(|_| ReadError::new(format!("invalid key {name:?}")))?;
            read.insert(key, T::read(item).map_err(|error| error.inside(&name))?);
        }
        Ok(read)
    }

    fn write(&self) -> Value {
        let entries = self.iter().map(|(key, item)| (key.to_string(), item.write()));
        Value::Object(entries.collect())
    }
}

/// Makes a type that is [`Json`] one of serde's.
macro_rules! serde_by_value {
    ($($name:ty),+ $(,)?) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                crate::json::Json::write(self).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                <$name as crate::json::Json>::read(value).map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_by_value;

serde_by_value!(Duration, Bytes);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::networking::VirtualService;

    #[test]
    fn names_are_lower_camel_case() {
        for (field, expected) in [
            ("host", "host"),
            ("export_to", "exportTo"),
            ("r#match", "match"),
            ("consecutive_5xx_errors", "consecutive5xxErrors"),
            ("http2_max_requests", "http2MaxRequests"),
        ] {
            assert_eq!(names(field, &[]), [expected]);
        }
        assert_eq!(
            names("jwks_uri", &["jwksUri", "jwks_uri"]),
            ["jwksUri", "jwks_uri"]
        );
    }

    #[test]
    fn an_error_says_its_place() {
        for (spec, path, reason) in [
            (
                json!({"http": [{"timeout": []}]}),
                "http[0].timeout",
                "invalid type: sequence, expected a string",
            ),
            (
                json!({"http": [{"match": [{"headers": {"a": {"exact": 1}}}]}]}),
                "http[0].match[0].headers.a.exact",
                "invalid type: integer `1`, expected a string",
            ),
            (
                json!({"http": [{"route": [{"weight": 1.5}]}]}),
                "http[0].route[0].weight",
                "invalid type: floating point `1.5`, expected i32",
            ),
            (
                json!({"hosts": [null]}),
                "hosts[0]",
                "invalid type: null, expected a string",
            ),
            (json!([]), "", "invalid type: sequence, expected a map"),
        ] {
            let error = VirtualService::read(spec).expect_err(path);
            assert_eq!((error.path(), error.reason()), (path, reason));
        }
    }

    #[test]
    fn null_and_absent_are_the_default_and_are_not_written() {
        let read = VirtualService::read(json!({"hosts": null, "http": [{"timeout": null}]})).expect("valid");
        assert_eq!(read.write(), json!({"http": [{}]}));
    }

    #[test]
    fn one_field_under_both_its_names_is_refused() {
        let rule = |rule| crate::security::RequestAuthentication::read(json!({"jwtRules": [rule]}));
        assert!(rule(json!({"issuer": "a", "jwks_uri": "http://a"})).is_ok());
        let error =
            rule(json!({"issuer": "a", "jwks_uri": "http://a", "jwksUri": "http://b"})).expect_err("two");
        assert_eq!(error.to_string(), "jwtRules[0]: duplicate field `jwksUri`");
    }
}
