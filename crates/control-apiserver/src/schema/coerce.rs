//! `metadata` of any object: brought into the shape of `meta/v1 ObjectMeta`, unknown fields dropped.

use serde_json::Value;

use super::{Schema, decode};

/// Coerces `object.metadata`.
///
/// # Errors
/// The text of Go's decoding error when a field has the wrong type.
pub(crate) fn metadata(schema: &Schema, object: &mut Value, unknown: &mut Vec<String>) -> Result<(), String> {
    let metadata = &mut object["metadata"];
    if metadata.is_null() {
        *metadata = Value::Object(serde_json::Map::new());
    }
    decode(schema, metadata, "metadata", unknown)
}
