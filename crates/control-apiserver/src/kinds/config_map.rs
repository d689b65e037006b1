//! `v1 ConfigMap`.

use serde_json::{Value, json};

use super::{BuiltInKind, age, check_data_keys, column, count, name};
use crate::limits;
use crate::status::Cause;

pub(super) const KIND: BuiltInKind = BuiltInKind {
    short_names: &["cm"],
    columns: &[
        column("Name", "string"),
        column("Data", "string"),
        column("Age", "string"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            json!(count(&object["data"]) + count(&object["binaryData"])),
            age(object, now),
        ]
    },
    validate,
    ..BuiltInKind::plain(
        "",
        "v1",
        "configmaps",
        "configmap",
        "ConfigMap",
        "io.k8s.api.core.v1.ConfigMap",
    )
};

fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_data_keys(&object["data"], "data", &mut causes);
    check_data_keys(&object["binaryData"], "binaryData", &mut causes);
    for key in object["binaryData"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        if object["data"].get(key).is_some() {
            causes.push(Cause::invalid(
                format!("binaryData[{key}]"),
                &key.as_str().into(),
                "duplicate of key present in data",
            ));
        }
    }
    let values = [&object["data"], &object["binaryData"]]
        .into_iter()
        .filter_map(Value::as_object)
        .flatten();
    let total: usize = values.map(|(_, value)| value.as_str().map_or(0, str::len)).sum();
    if total > limits::DATA_MAX_BYTES {
        causes.push(Cause::new(
            "FieldValueTooLong",
            // How Go prints the path of a field without a name, which is what the real server gives here.
            "[]",
            format!("Too long: may not be more than {} bytes", limits::DATA_MAX_BYTES),
        ));
    }
    immutable(object, old, &["data", "binaryData"], &mut causes);
    causes
}

/// Fields of an object that was declared immutable.
pub(super) fn immutable(object: &Value, old: Option<&Value>, fields: &[&str], causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else {
        return;
    };
    if object["immutable"] != true {
        causes.push(Cause::forbidden(
            "immutable",
            "field is immutable when `immutable` is set",
        ));
    }
    for field in fields {
        if object[*field] != old[*field] {
            causes.push(Cause::forbidden(
                *field,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}
