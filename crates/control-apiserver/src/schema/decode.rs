//! Decoding of built-in kinds: what Go's decoder does with a body — drop unknown fields and nulls, and refuse
//! values of the wrong type.

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine};
use serde_json::Value;

use super::{Schema, Type, child_path, type_of};
use crate::formats::FormatKind;

/// Brings `value` into the shape of `schema`. Paths of dropped fields are appended to `unknown`.
///
/// # Errors
/// The text of Go's `json: cannot unmarshal …`.
pub(crate) fn decode(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    Decoder { unknown }.value(schema, value, path, &schema.type_name)
}

struct Decoder<'u> {
    unknown: &'u mut Vec<String>,
}

impl Decoder<'_> {
    fn value(&mut self, schema: &Schema, value: &mut Value, path: &str, owner: &str) -> Result<(), String> {
        let owner = if schema.type_name.is_empty() {
            owner
        } else {
            &schema.type_name
        };
        if !fits(schema, value) {
            return Err(mismatch(schema, value, path, owner));
        }
        match value {
            Value::Object(map) => {
                map.retain(|_, child| !child.is_null());
                let mut failure = None;
                map.retain(|name, child| {
                    let Some(below) = schema
                        .properties
                        .get(name.as_str())
                        .or(schema.additional.as_ref())
                    else {
                        if !schema.preserve_unknown {
                            self.unknown.push(child_path(path, name));
                        }
                        return schema.preserve_unknown;
                    };
                    if failure.is_none() {
                        failure = self.value(below, child, &child_path(path, name), owner).err();
                    }
                    true
                });
                failure.map_or(Ok(()), Err)
            }
            Value::Array(items) => {
                let Some(below) = &schema.items else { return Ok(()) };
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(below, item, &format!("{path}[{index}]"), owner)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn fits(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || value.is_i64();
    }
    if schema.quantity {
        return value.is_string() || value.is_number();
    }
    let formatted = schema
        .constraints
        .as_ref()
        .and_then(|constraints| constraints.format);
    match schema.kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => {
            let checked = matches!(formatted, Some(FormatKind::DateTime | FormatKind::Byte));
            value.is_string() && (!checked || formatted.is_none_or(|format| format.accepts(value)))
        }
        Type::Integer => value.is_i64() && formatted.is_none_or(|format| format.accepts(value)),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    }
}

fn mismatch(schema: &Schema, value: &Value, path: &str, owner: &str) -> String {
    let format = schema
        .constraints
        .as_ref()
        .and_then(|constraints| constraints.format);
    if let (Some(FormatKind::DateTime), Value::String(text)) = (format, value) {
        return format!(
            "parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse {}",
            crate::status::quoted(text),
            crate::status::quoted(text)
        );
    }
    if let (Some(FormatKind::Byte), Value::String(text)) = (format, value) {
        let place = match STANDARD.decode(text) {
            Err(DecodeError::InvalidByte(place, _) | DecodeError::InvalidLastSymbol(place, _)) => place,
            _ => text.len(),
        };
        return format!("illegal base64 data at input byte {place}");
    }
    let wanted = match schema.kind {
        Type::Object if schema.type_name.is_empty() => "map[string]string".to_owned(),
        Type::Object => format!("v1.{}", schema.type_name),
        Type::Array => format!(
            "[]{}",
            schema
                .items
                .as_ref()
                .map_or("string".to_owned(), |items| go_type(items))
        ),
        _ => go_type(schema),
    };
    let shown = match value {
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if schema.kind == Type::Integer => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        other => type_of(other).to_owned(),
    };
    let place = plain_path(path);
    format!("json: cannot unmarshal {shown} into Go struct field {owner}.{place} of type {wanted}")
}

fn go_type(schema: &Schema) -> String {
    let format = schema
        .constraints
        .as_ref()
        .and_then(|constraints| constraints.format);
    match schema.kind {
        Type::Integer if format == Some(FormatKind::Int64) => "int64".to_owned(),
        Type::Integer => "int32".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::Boolean => "bool".to_owned(),
        Type::Object if !schema.type_name.is_empty() => format!("v1.{}", schema.type_name),
        Type::Object => "map[string]string".to_owned(),
        _ => "string".to_owned(),
    }
}

/// Go names fields without list indexes.
fn plain_path(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    plain
}
