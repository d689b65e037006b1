//! What every object passes before it is stored: decoding, pruning, defaulting, validation.

use serde_json::Value;

use super::Call;
use crate::catalog::{self, Target};
use crate::kinds::Preparation;
use crate::request::FieldValidation;
use crate::status::{Cause, Status, quoted};
use crate::{names, rules, schema};

/// Fields that were dropped or that came twice, in the server's words.
pub(super) struct Complaints(pub(super) Vec<String>);

impl Complaints {
    pub(super) fn of(unknown: &[String], duplicates: &[String]) -> Self {
        let unknown = unknown
            .iter()
            .map(|field| format!("unknown field {}", quoted(field)));
        let duplicates = duplicates.iter().map(|field| {
            // What YAML says about a duplicate is a sentence already.
            if field.starts_with("yaml:") {
                field.clone()
            } else {
                format!("duplicate field {}", quoted(field))
            }
        });
        Self(duplicates.chain(unknown).collect())
    }

    /// The text of the strict decoding error.
    pub(super) fn strict(&self) -> String {
        format!("strict decoding error: {}", self.0.join(", "))
    }
}

/// Does what `fieldValidation` asks for; `refuse` makes the error of Strict.
pub(super) fn complain(
    call: &Call,
    complaints: &Complaints,
    refuse: impl Fn(&str) -> Status,
) -> Result<(), Status> {
    if complaints.0.is_empty() {
        return Ok(());
    }
    match FieldValidation::of(&call.query)? {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Strict => Err(refuse(&complaints.strict())),
        FieldValidation::Warn => {
            for complaint in &complaints.0 {
                call.warn(complaint.clone());
            }
            Ok(())
        }
    }
}

/// `X in version "v1" cannot be handled as a X: …`.
pub(super) fn cannot_be_handled(target: &Target, why: &str) -> Status {
    let kind = &target.resource.kind;
    Status::bad_request(format!(
        "{kind} in version {} cannot be handled as a {kind}: {why}",
        quoted(&target.version().name)
    ))
}

/// Checks `apiVersion` and `kind` of a body against the resource, and takes them off.
pub(super) fn strip_type(target: &Target, object: &mut Value) -> Result<(), Status> {
    let Some(map) = object.as_object_mut() else {
        return Err(cannot_be_handled(target, "the body must be an object"));
    };
    let mut take = |field: &str| {
        map.shift_remove(field)
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let (api_version, kind) = (take("apiVersion"), take("kind"));
    let expected = target.api_version();
    if kind.is_empty() || api_version.is_empty() {
        let missing = if kind.is_empty() { "Kind" } else { "apiVersion" };
        return Err(Status::bad_request(format!(
            "Object '{missing}' is missing in the request body"
        )));
    }
    if api_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    if kind != target.resource.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: no kind {} is registered for version {} in scheme",
            quoted(&target.version().name),
            target.resource.kind,
            quoted(&kind),
            quoted(&api_version),
        )));
    }
    Ok(())
}

/// Brings a body without `apiVersion` and `kind` into the resource's shape. Returns the unknown fields.
pub(super) fn decode(target: &Target, object: &mut Value) -> Result<Vec<String>, Status> {
    let mut unknown = Vec::new();
    let version_schema = target.version().schema();
    if target.resource.built_in.is_some() {
        schema::decode(version_schema, object, "", &mut unknown)
            .map_err(|why| cannot_be_handled(target, &why))?;
        if object["metadata"].is_null() {
            object["metadata"] = Value::Object(serde_json::Map::new());
        }
    } else {
        schema::coerce_metadata(catalog::object_meta(), object, &mut unknown)
            .map_err(|why| cannot_be_handled(target, &why))?;
        schema::prune(version_schema, object, "", true, &mut unknown);
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        // Field ownership comes with server-side apply; until then nobody's claims are kept.
        metadata.shift_remove("managedFields");
        metadata.shift_remove("selfLink");
        // Go's ObjectMeta does not write what is empty: a label taken off leaves no `labels: {}`.
        metadata.retain(|_, value| !is_empty(value));
    }
    Ok(unknown)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Fills in what is not there yet.
pub(super) fn prepare(call: &Call, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    match call.target.resource.built_in {
        Some(kind) => {
            if let Some(conversion) = kind.conversion {
                (conversion.to_stored)(object);
            }
            (kind.prepare)(
                object,
                old,
                &Preparation {
                    store: &call.api.store,
                    now: call.api.now(),
                },
            )
        }
        None => {
            schema::apply_defaults(call.target.version().schema(), object);
            Ok(())
        }
    }
}

/// Everything that is wrong with an object, as one 422.
pub(super) fn validate(call: &Call, object: &Value, old: Option<&Value>) -> Result<(), Status> {
    let resource = &call.target.resource;
    let mut causes = Vec::new();
    let label_name =
        resource.group.is_empty() && ["namespaces", "services"].contains(&resource.plural.as_str());
    names::check_metadata(&object["metadata"], resource.namespaced, label_name, &mut causes);
    match resource.built_in {
        Some(kind) => causes.extend((kind.validate)(object, old)),
        None => validate_custom(&call.target, object, old, &mut causes),
    }
    if causes.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(Status::invalid(&resource.group, &resource.kind, name, causes))
}

/// Schema first; rules only where the schema finds nothing that would mislead them.
fn validate_custom(target: &Target, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let version_schema = target.version().schema();
    schema::validate(version_schema, object, "", true, causes);
    const MISLEADING: &[&str] = &[
        "FieldValueRequired",
        "FieldValueTypeInvalid",
        "FieldValueNotSupported",
        "FieldValueTooLong",
        "FieldValueTooMany",
    ];
    if rules::has_rules(version_schema) && causes.iter().any(|cause| MISLEADING.contains(&cause.reason)) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors \
                      to complete validation";
        causes.push(Cause::invalid_type("<nil>", "null", detail));
        return;
    }
    rules::check(version_schema, object, old, causes);
}

/// A body decoded, stripped of its type and pruned, with complaints handled.
pub(super) fn read_body(call: &Call) -> Result<Value, Status> {
    let decoded = call.decode_body()?;
    let mut object = decoded.value;
    strip_type(&call.target, &mut object)?;
    let unknown = decode(&call.target, &mut object)?;
    let complaints = Complaints::of(&unknown, &decoded.duplicates);
    complain(call, &complaints, |why| cannot_be_handled(&call.target, why))?;
    check_namespace(call, &mut object)?;
    Ok(object)
}

/// The body's namespace must be the path's, or absent.
fn check_namespace(call: &Call, object: &mut Value) -> Result<(), Status> {
    let path = &call.path.namespace;
    let metadata = &mut object["metadata"];
    match metadata["namespace"].as_str().unwrap_or_default() {
        "" if path.is_empty() => {
            if let Some(map) = metadata.as_object_mut() {
                map.shift_remove("namespace");
            }
        }
        "" => metadata["namespace"] = path.clone().into(),
        namespace if namespace == path => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}
