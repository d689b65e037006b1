//! `update`, and the part of `patch` and of the subresources that is the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::create::{after_write, remove};
use super::{Call, admission, render};
use crate::api::write_failure;
use crate::request::dry_run;
use crate::response::Body;
use crate::status::{Cause, Status, quoted};
use crate::store::{Change, Expected, Object, StoreError};

/// Metadata that only the server sets.
const SYSTEM_METADATA: &[&str] = &[
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "namespace",
    "name",
];

/// Replaces the object, or the part of it that `subresource` names.
pub(super) async fn update(call: &Call, subresource: &str) -> Result<Response<Body>, Status> {
    let object = admission::read_body(call)?;
    if object["metadata"]["name"] != call.path.name.as_str() {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object["metadata"]["name"].as_str().unwrap_or_default(),
            call.path.name
        )));
    }
    let current = call.require()?;
    match object["metadata"]["resourceVersion"]
        .as_str()
        .filter(|version| !version.is_empty())
    {
        Some(version) if version != current.revision().to_string() => {
            return Err(call.conflict(&call.path.name));
        }
        Some(_) => {}
        None if call.target.resource.built_in.is_none() => {
            let cause = Cause::invalid(
                "metadata.resourceVersion",
                &json!(0),
                "must be specified for an update",
            );
            return Err(Status::invalid(
                &call.target.resource.group,
                &call.target.resource.kind,
                &call.path.name,
                vec![cause],
            ));
        }
        None => {}
    }
    let updated = replace(call, &current, object, subresource).await?;
    render::object(call, StatusCode::OK, &updated)
}

/// Stores `object` (pruned, without type) in place of `current`.
pub(super) async fn replace(
    call: &Call,
    current: &Arc<Object>,
    object: Value,
    subresource: &str,
) -> Result<Arc<Object>, Status> {
    let dry_run = dry_run(&call.query)?;
    let old = current.value();
    check_identity(call, &old, &object)?;
    let exclusive = call.target.resource.built_in.is_some_and(|kind| kind.exclusive);
    let _exclusive = if exclusive {
        Some(call.api.exclusive.lock().await)
    } else {
        None
    };
    let mut new = combine(call, &old, object, subresource);
    admission::prepare(call, &mut new, Some(&old))?;
    count_generation(call, &old, &mut new);
    admission::validate(call, &new, Some(&old))?;
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    let finished = is_finished(&new);
    if new == old && !finished {
        return Ok(Arc::clone(current));
    }
    if dry_run {
        return Ok(Arc::new(Object::draft(current.key().clone(), new)));
    }
    let change = if finished {
        Change::Remove(new)
    } else {
        Change::Put(new)
    };
    let written = call
        .api
        .store
        .write(
            current.key().clone(),
            Expected::Revision(current.revision()),
            change,
        )
        .await;
    let written = written.map_err(|error| match error {
        StoreError::Conflict => call.conflict(&call.path.name),
        StoreError::Missing => Status::not_found(
            &call.target.resource.group,
            &call.target.resource.plural,
            &call.path.name,
        ),
        other => write_failure(&other),
    })?;
    after_write(call);
    Ok(written)
}

/// An object that was being deleted and that nothing holds any more.
fn is_finished(object: &Value) -> bool {
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    object["metadata"]["deletionTimestamp"].is_string()
        && empty(&object["metadata"]["finalizers"])
        && empty(&object["spec"]["finalizers"])
}

fn check_identity(call: &Call, old: &Value, new: &Value) -> Result<(), Status> {
    let (was, is) = (&old["metadata"]["uid"], &new["metadata"]["uid"]);
    if is.as_str().is_some_and(|uid| !uid.is_empty()) && was != is {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            text(is),
            text(was)
        );
        let resource = &call.target.resource;
        return Err(Status::conflict_because(
            &resource.group,
            &resource.plural,
            &call.path.name,
            &why,
        ));
    }
    if old["metadata"]["deletionTimestamp"].is_string() {
        let had = old["metadata"]["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let added = new["metadata"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|finalizer| !had.contains(finalizer));
        if let Some(added) = added {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted(added.as_str().unwrap_or_default())
            );
            let cause = Cause::forbidden("metadata.finalizers", &detail);
            let resource = &call.target.resource;
            return Err(Status::invalid(
                &resource.group,
                &resource.kind,
                &call.path.name,
                vec![cause],
            ));
        }
    }
    Ok(())
}

/// The parts of `new` that this endpoint may change, over the rest of `old`.
fn combine(call: &Call, old: &Value, mut new: Value, subresource: &str) -> Value {
    let mut object = match subresource {
        "status" => {
            let mut object = old.clone();
            match new.get_mut("status") {
                Some(status) => object["status"] = status.take(),
                None => remove(&mut object, "status"),
            }
            object
        }
        "finalize" => {
            let mut object = old.clone();
            object["spec"]["finalizers"] = new["spec"]["finalizers"].take();
            object
        }
        _ => {
            // The trusted side writes objects whole, status included.
            if call.target.version().has_status && !call.caller.trusted {
                match old.get("status") {
                    Some(status) => new["status"] = status.clone(),
                    None => remove(&mut new, "status"),
                }
            }
            new
        }
    };
    if let (Some(target), Some(source)) = (object["metadata"].as_object_mut(), old["metadata"].as_object()) {
        for field in SYSTEM_METADATA {
            match source.get(*field) {
                Some(value) => target.insert((*field).to_owned(), value.clone()),
                None => target.shift_remove(*field),
            };
        }
    }
    object
}

/// `metadata.generation` counts changes of what is wanted: everything but metadata and status.
fn count_generation(call: &Call, old: &Value, new: &mut Value) {
    let Some(generation) = old["metadata"]["generation"].as_i64() else {
        return;
    };
    let has_status = call.target.version().has_status;
    if wanted(old, has_status) != wanted(new, has_status) {
        new["metadata"]["generation"] = (generation + 1).into();
    }
}

fn wanted(object: &Value, has_status: bool) -> BTreeMap<&str, &Value> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| *name != "metadata" && !(has_status && *name == "status"))
        .map(|(name, value)| (name.as_str(), value))
        .collect()
}
