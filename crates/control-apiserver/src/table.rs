//! `meta.k8s.io/v1 Table`: what `kubectl get` prints.

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::catalog::{Column, Target};
use crate::clock::age;

/// How much of each object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically.";
const AGE_DESCRIPTION: &str =
    "CreationTimestamp is a timestamp representing the server time when this object was created.";

/// Column definitions of a resource.
pub(crate) fn columns(target: &Target) -> Vec<Value> {
    if let Some(kind) = target.resource.built_in {
        let defined = kind.columns.iter().map(|column| {
            let format = if column.name == "Name" { "name" } else { "" };
            definition(column.name, column.kind, format, "", column.priority)
        });
        return defined.collect();
    }
    let mut defined = vec![definition("Name", "string", "name", NAME_DESCRIPTION, 0)];
    let columns = &target.version().columns;
    defined.extend(columns.iter().map(|column| {
        definition(
            &column.name,
            &column.kind,
            &column.format,
            &column.description,
            column.priority,
        )
    }));
    if columns.is_empty() {
        defined.push(definition("Age", "date", "", AGE_DESCRIPTION, 0));
    }
    defined
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

/// The row of one object, which is complete with `apiVersion` and `kind`.
pub(crate) fn row(target: &Target, object: &Value, include: IncludeObject, now: OffsetDateTime) -> Value {
    let cells = match target.resource.built_in {
        Some(kind) => (kind.cells)(object, now)
            .into_iter()
            .map(|cell| if cell.is_null() { "".into() } else { cell })
            .collect(),
        None => custom_cells(target, object, now),
    };
    match include {
        IncludeObject::None => json!({"cells": cells}),
        IncludeObject::Metadata => json!({"cells": cells, "object": partial_metadata(object)}),
        IncludeObject::Object => json!({"cells": cells, "object": object}),
    }
}

/// `meta.k8s.io/v1 PartialObjectMetadata` of an object.
pub(crate) fn partial_metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn custom_cells(target: &Target, object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let mut cells = vec![object["metadata"]["name"].clone()];
    let columns = &target.version().columns;
    cells.extend(columns.iter().map(|column| custom_cell(column, object, now)));
    if columns.is_empty() {
        cells.push(age(&object["metadata"]["creationTimestamp"], now).into());
    }
    cells
}

/// The value at the column's path, if it has the column's type.
fn custom_cell(column: &Column, object: &Value, now: OffsetDateTime) -> Value {
    let found = column.path.find(object);
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match (column.kind.as_str(), first) {
        ("date", value) => age(value, now).into(),
        ("integer", Value::Number(number)) => number.as_i64().map_or(Value::Null, Into::into),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
        ("string", _) => {
            let texts: Vec<String> = found.iter().map(|value| plain(value)).collect();
            texts.join(",").into()
        }
        _ => Value::Null,
    }
}

/// Strings as they are, everything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
