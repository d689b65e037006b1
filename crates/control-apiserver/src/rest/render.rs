//! Objects, lists and events in the form that the client accepts.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::Call;
use crate::catalog::Target;
use crate::request::Form;
use crate::response::{Body, json_bytes, json_value};
use crate::status::Status;
use crate::store::Object;
use crate::table;

/// The object as a value of the target's version, with `apiVersion` and `kind` in front.
pub(crate) fn object_value(target: &Target, object: &Object) -> Value {
    let mut body = object.value();
    if let Some(conversion) = target.resource.built_in.and_then(|kind| kind.conversion) {
        (conversion.from_stored)(&mut body);
    }
    typed(target, body)
}

/// Puts `apiVersion` and `kind` in front of a body.
pub(super) fn typed(target: &Target, body: Value) -> Value {
    let mut value = Map::new();
    value.insert("apiVersion".to_owned(), target.api_version().into());
    value.insert("kind".to_owned(), target.resource.kind.clone().into());
    if let Value::Object(body) = body {
        value.extend(body);
    }
    Value::Object(value)
}

/// Appends the object's JSON as the target's version.
pub(super) fn write_object(target: &Target, object: &Object, out: &mut Vec<u8>) {
    if target
        .resource
        .built_in
        .is_some_and(|kind| kind.conversion.is_some())
    {
        out.extend_from_slice(object_value(target, object).to_string().as_bytes());
    } else {
        object.write_json(&target.api_version(), &target.resource.kind, out);
    }
}

/// One object in the accepted form, appended to `out`. `with_columns` is false for all but the first Table of a watch.
pub(super) fn write_form(call: &Call, form: &Form, object: &Object, with_columns: bool, out: &mut Vec<u8>) {
    match form {
        Form::Object => write_object(&call.target, object, out),
        Form::Metadata => {
            let value = table::partial_metadata(&object_value(&call.target, object));
            out.extend_from_slice(value.to_string().as_bytes());
        }
        Form::Table { version, include } => {
            let row = table::row(
                &call.target,
                &object_value(&call.target, object),
                *include,
                call.api.now(),
            );
            let columns = if with_columns {
                table::columns(&call.target)
            } else {
                Vec::new()
            };
            let metadata = json!({"resourceVersion": object.revision().to_string()});
            let table = table_value(version, metadata, columns, vec![row]);
            out.extend_from_slice(table.to_string().as_bytes());
        }
    }
}

fn table_value(version: &str, metadata: Value, columns: Vec<Value>, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// Answers with one object.
pub(super) fn object(call: &Call, code: StatusCode, object: &Object) -> Result<Response<Body>, Status> {
    let form = call.form()?;
    let mut out = Vec::with_capacity(object.body().len() + 128);
    write_form(call, &form, object, true, &mut out);
    Ok(json_bytes(code, out))
}

/// Answers with a list; `metadata` is the list's own.
pub(super) fn list(call: &Call, metadata: &Value, objects: &[Arc<Object>]) -> Result<Response<Body>, Status> {
    let target = &call.target;
    match call.form()? {
        Form::Object => {
            let head = json!({
                "kind": target.resource.list_kind, "apiVersion": target.api_version(), "metadata": metadata,
            });
            let mut out = head.to_string().into_bytes();
            // The closing brace makes room for the items.
            out.pop();
            out.extend_from_slice(b",\"items\":[");
            for (index, object) in objects.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_object(target, object, &mut out);
            }
            out.extend_from_slice(b"]}");
            Ok(json_bytes(StatusCode::OK, out))
        }
        Form::Metadata => {
            let items: Vec<Value> = objects
                .iter()
                .map(|object| table::partial_metadata(&object_value(target, object)))
                .collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
            });
            Ok(json_value(StatusCode::OK, &list))
        }
        Form::Table { version, include } => {
            let now = call.api.now();
            let rows = objects
                .iter()
                .map(|object| table::row(target, &object_value(target, object), include, now));
            let value = table_value(&version, metadata.clone(), table::columns(target), rows.collect());
            Ok(json_value(StatusCode::OK, &value))
        }
    }
}
