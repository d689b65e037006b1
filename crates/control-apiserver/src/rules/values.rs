//! JSON to CEL values, typed by the schema.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use cel::Value as CelValue;
use cel::objects::{Key, Map};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::formats::{FormatKind, go_duration_nanos};
use crate::schema::{Schema, Type};

/// CEL's view of `value`. Property names that are not identifiers are escaped as Kubernetes escapes them.
pub(super) fn to_cel(value: &Value, schema: Option<&Schema>) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(flag) => CelValue::Bool(*flag),
        Value::Number(number) => {
            let is_number = schema.is_some_and(|schema| schema.kind == Type::Number);
            match number.as_i64() {
                Some(integer) if !is_number => CelValue::Int(integer),
                _ => CelValue::Float(number.as_f64().unwrap_or_default()),
            }
        }
        Value::String(text) => string(text, schema),
        Value::Array(items) => {
            let below = schema.and_then(|schema| schema.items.as_deref());
            CelValue::List(Arc::new(items.iter().map(|item| to_cel(item, below)).collect()))
        }
        Value::Object(map) => {
            let entries = map.iter().map(|(name, child)| {
                let property = schema.and_then(|schema| schema.properties.get(name.as_str()));
                let below = property.or_else(|| schema.and_then(|schema| schema.additional.as_ref()));
                let name = if property.is_some() {
                    escape(name)
                } else {
                    name.clone()
                };
                (
                    Key::String(Arc::new(name)),
                    to_cel(child, below.map(|below| &**below)),
                )
            });
            CelValue::Map(Map {
                map: Arc::new(entries.collect::<HashMap<_, _>>()),
            })
        }
    }
}

fn string(text: &str, schema: Option<&Schema>) -> CelValue {
    let format = schema
        .and_then(|schema| schema.constraints.as_ref())
        .and_then(|constraints| constraints.format);
    let plain = || CelValue::String(Arc::new(text.to_owned()));
    match format {
        Some(FormatKind::Duration) => go_duration_nanos(text).map_or_else(plain, |nanos| {
            CelValue::Duration(chrono::Duration::nanoseconds(nanos))
        }),
        Some(FormatKind::DateTime) => timestamp(text).map_or_else(plain, CelValue::Timestamp),
        Some(FormatKind::Byte) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_or_else(|_| plain(), |bytes| CelValue::Bytes(Arc::new(bytes))),
        _ => plain(),
    }
}

fn timestamp(text: &str) -> Option<chrono::DateTime<chrono::FixedOffset>> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let utc = chrono::DateTime::from_timestamp(parsed.unix_timestamp(), parsed.nanosecond())?;
    Some(utc.fixed_offset())
}

/// Words that CEL reserves.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// `__dash__` and the like for property names that are not identifiers.
fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}
