//! `create`.

use std::sync::Arc;

use http::{Response, StatusCode};
use rand::Rng;
use serde_json::Value;

use super::{Call, admission, render};
use crate::api::write_failure;
use crate::kinds::custom_resource_definition as crd;
use crate::request::dry_run;
use crate::response::Body;
use crate::status::Status;
use crate::store::{Change, Expected, Key, Object, ResourcePrefix, StoreError};

/// Letters of generated names: no vowels and nothing that looks like another letter.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const GENERATED_LETTERS: usize = 5;
/// Longest prefix of a generated name.
const GENERATE_PREFIX_MAX: usize = 58;

/// Creates an object from the body.
pub(super) async fn create(call: &Call) -> Result<Response<Body>, Status> {
    let object = admission::read_body(call)?;
    let created = insert(call, object).await?;
    render::object(call, StatusCode::CREATED, &created)
}

/// Creates `object`, which is pruned and has no type.
pub(super) async fn insert(call: &Call, mut object: Value) -> Result<Arc<Object>, Status> {
    let dry_run = dry_run(&call.query)?;
    check_namespace_is_open(call)?;
    name(&mut object);
    let metadata = &mut object["metadata"];
    let now = crate::clock::timestamp(call.api.now());
    if let Some(map) = metadata.as_object_mut() {
        for field in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "resourceVersion",
        ] {
            map.shift_remove(field);
        }
        map.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        map.insert("creationTimestamp".to_owned(), now.into());
        let counted = call.target.resource.built_in.is_none_or(|kind| kind.read_only);
        if counted {
            map.insert("generation".to_owned(), 1.into());
        }
    }
    // Users create what they want; what is, others report through /status.
    if call.target.version().has_status && !call.caller.trusted {
        remove(&mut object, "status");
    }
    let kind = call.target.resource.built_in;
    let _exclusive = match kind.is_some_and(|kind| kind.exclusive) {
        true => Some(call.api.exclusive.lock().await),
        false => None,
    };
    admission::prepare(call, &mut object, None)?;
    admission::validate(call, &object, None)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let key = call.key(&name);
    if dry_run {
        return if call.api.store.get(&key).is_some() {
            Err(exists(call, &name))
        } else {
            Ok(Arc::new(Object::draft(key, object)))
        };
    }
    let created = call
        .api
        .store
        .write(key, Expected::Absent, Change::Put(object))
        .await
        .map_err(|error| match error {
            StoreError::Exists => exists(call, &name),
            other => write_failure(&other),
        })?;
    after_write(call);
    Ok(created)
}

fn exists(call: &Call, name: &str) -> Status {
    Status::already_exists(&call.target.resource.group, &call.target.resource.plural, name)
}

/// A change of a CRD changes what is served, before anybody is told that it happened.
pub(super) fn after_write(call: &Call) {
    if call.target.resource.prefix == crd::prefix() {
        call.api.refresh_catalog();
    }
}

/// Removes a field of an object.
pub(super) fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.shift_remove(field);
    }
}

/// Generates the name where `generateName` asks for it.
fn name(object: &mut Value) {
    let metadata = &mut object["metadata"];
    if metadata["name"].as_str().is_some_and(|name| !name.is_empty()) {
        return;
    }
    let Some(prefix) = metadata["generateName"]
        .as_str()
        .filter(|prefix| !prefix.is_empty())
    else {
        return;
    };
    let end = prefix.len().min(GENERATE_PREFIX_MAX);
    let mut name = prefix.get(..end).unwrap_or_default().to_owned();
    let mut random = rand::rng();
    for _ in 0..GENERATED_LETTERS {
        name.push(char::from(
            NAME_LETTERS[random.random_range(0..NAME_LETTERS.len())],
        ));
    }
    metadata["name"] = name.into();
}

/// New objects need a namespace that exists and stays.
fn check_namespace_is_open(call: &Call) -> Result<(), Status> {
    let namespace = &call.path.namespace;
    if namespace.is_empty() {
        return Ok(());
    }
    let key = Key::new(&ResourcePrefix::new("", "namespaces"), "", namespace);
    match call.api.store.get(&key) {
        None => Err(Status::not_found("", "namespaces", namespace)),
        Some(found) if found.is_deleting() => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut status = Status::forbidden(
                &call.target.resource.group,
                &call.target.resource.plural,
                "",
                &why,
            );
            status.details["causes"] = serde_json::json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            }]);
            Err(status)
        }
        Some(_) => Ok(()),
    }
}
