//! Pruning: fields that the schema does not know are dropped, and reported for `fieldValidation`.

use serde_json::Value;

use super::{Schema, child_path};

/// Fields that every object has, whatever its schema says.
const TYPE_FIELDS: &[&str] = &["apiVersion", "kind", "metadata"];

/// Drops unknown fields of `value` and appends their paths to `unknown`.
/// `is_resource` is true where `apiVersion`, `kind` and `metadata` are known in any case.
pub(crate) fn prune(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    is_resource: bool,
    unknown: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => {
            map.retain(|name, child| {
                if is_resource && TYPE_FIELDS.contains(&name.as_str()) {
                    return true;
                }
                let below = schema
                    .properties
                    .get(name.as_str())
                    .or(schema.additional.as_ref());
                match below {
                    Some(below) => {
                        prune(
                            below,
                            child,
                            &child_path(path, name),
                            below.embedded_resource,
                            unknown,
                        );
                        true
                    }
                    None if schema.preserve_unknown => true,
                    None => {
                        unknown.push(child_path(path, name));
                        false
                    }
                }
            });
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(
                        below,
                        item,
                        &format!("{path}[{index}]"),
                        below.embedded_resource,
                        unknown,
                    );
                }
            }
        }
        _ => {}
    }
}
