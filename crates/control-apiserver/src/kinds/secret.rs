//! `v1 Secret`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::config_map::immutable;
use super::{BuiltInKind, Preparation, age, check_data_keys, column, count, name};
use crate::limits;
use crate::status::{Cause, Status};

pub(super) const KIND: BuiltInKind = BuiltInKind {
    columns: &[
        column("Name", "string"),
        column("Type", "string"),
        column("Data", "string"),
        column("Age", "string"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            object["type"].clone(),
            json!(count(&object["data"])),
            age(object, now),
        ]
    },
    selectable_fields: &["type"],
    prepare,
    validate,
    ..BuiltInKind::plain(
        "",
        "v1",
        "secrets",
        "secret",
        "Secret",
        "io.k8s.api.core.v1.Secret",
    )
};

/// `stringData` is written into `data`, and the type gets its default.
fn prepare(object: &mut Value, _old: Option<&Value>, _: &Preparation<'_>) -> Result<(), Status> {
    if let Some(Value::Object(plain)) = object
        .as_object_mut()
        .and_then(|map| map.shift_remove("stringData"))
    {
        for (key, value) in plain {
            object["data"][key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
    }
    if object["type"].as_str().is_none_or(str::is_empty) {
        object["type"] = "Opaque".into();
    }
    Ok(())
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_data_keys(&object["data"], "data", &mut causes);
    let required: &[&str] = match object["type"].as_str() {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        if object["data"].get(*key).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
    let total: usize = object["data"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, value)| value.as_str().map_or(0, str::len) * 3 / 4)
        .sum();
    if total > limits::DATA_MAX_BYTES {
        causes.push(Cause::new(
            "FieldValueTooLong",
            "data",
            format!("Too long: may not be more than {} bytes", limits::DATA_MAX_BYTES),
        ));
    }
    if let Some(old) = old
        && old["type"] != object["type"]
    {
        causes.push(Cause::invalid("type", &object["type"], "field is immutable"));
    }
    immutable(object, old, &["data"], &mut causes);
    causes
}
