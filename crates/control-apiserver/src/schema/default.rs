//! Defaulting: absent fields get the schema's `default`, and so do nulls where null is not a value.

use serde_json::Value;

use super::Schema;

/// Fills in defaults, outermost first, so that defaults inside a defaulted object apply as well.
pub(crate) fn apply_defaults(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in &schema.properties {
                let Some(default) = &below.default else { continue };
                let absent = match map.get(&**name) {
                    None => true,
                    Some(Value::Null) => !below.nullable,
                    Some(_) => false,
                };
                if absent {
                    map.insert(name.to_string(), (**default).clone());
                }
            }
            for (name, child) in map.iter_mut() {
                if let Some(below) = schema
                    .properties
                    .get(name.as_str())
                    .or(schema.additional.as_ref())
                {
                    apply_defaults(below, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for item in items {
                    apply_defaults(below, item);
                }
            }
        }
        _ => {}
    }
}
