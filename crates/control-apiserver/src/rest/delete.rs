//! `delete`, with preconditions, propagation policies and finalizers.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Call, render};
use crate::api::{Api, write_failure};
use crate::catalog::Target;
use crate::decode;
use crate::kinds::{custom_resource_definition as crd, namespace};
use crate::limits;
use crate::request::{Query, dry_run};
use crate::response::{Body, json_value};
use crate::status::{Cause, Status, deleted};
use crate::store::{Change, Expected, Key, Object, StoreError};

/// What happens to the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted afterwards.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    /// The finalizer that carries the policy until the garbage collector has done its part.
    pub(crate) fn finalizer(self) -> Option<&'static str> {
        match self {
            Self::Background => None,
            Self::Foreground => Some("foregroundDeletion"),
            Self::Orphan => Some("orphan"),
        }
    }
}

/// `meta/v1 DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    pub(crate) propagation: Propagation,
    pub(crate) dry_run: bool,
    uid: Option<String>,
    revision: Option<String>,
}

impl Deletion {
    /// Reads body and query.
    pub(super) fn of(call: &Call) -> Result<Self, Status> {
        let body = if call.body.is_empty() {
            json!({})
        } else {
            decode::object(&call.body, call.content_type())?.value
        };
        Self::parse(&body, &call.query)
    }

    fn parse(body: &Value, query: &Query) -> Result<Self, Status> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let policy =
            text(&body["propagationPolicy"]).unwrap_or_else(|| query.get("propagationPolicy").to_owned());
        let propagation = match policy.as_str() {
            "" if body["orphanDependents"] == true => Propagation::Orphan,
            "" | "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            other => {
                let supported = ["Background", "Foreground", "Orphan"].map(str::to_owned);
                let cause = Cause::not_supported("propagationPolicy", &other.into(), &supported);
                return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
            }
        };
        let in_body = body["dryRun"]
            .as_array()
            .is_some_and(|list| list.iter().any(|item| item == "All"));
        Ok(Self {
            propagation,
            dry_run: in_body || dry_run(query)?,
            uid: text(&body["preconditions"]["uid"]),
            revision: text(&body["preconditions"]["resourceVersion"]),
        })
    }
}

/// What became of the object.
pub(crate) enum Outcome {
    /// It is gone.
    Gone(Arc<Object>),
    /// Finalizers hold it.
    Waiting(Arc<Object>),
}

/// Deletes the object the call names.
pub(super) async fn delete(call: &Call) -> Result<Response<Body>, Status> {
    let deletion = Deletion::of(call)?;
    let resource = &call.target.resource;
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    if is_namespace && namespace::PERMANENT.contains(&call.path.name.as_str()) {
        let why = "this namespace may not be deleted";
        return Err(Status::forbidden(
            &resource.group,
            &resource.plural,
            &call.path.name,
            why,
        ));
    }
    let outcome = delete_object(&call.api, &call.target, &call.key(&call.path.name), &deletion).await?;
    match outcome {
        Outcome::Waiting(object) => render::object(call, StatusCode::OK, &object),
        Outcome::Gone(object) => Ok(json_value(
            StatusCode::OK,
            &deleted(&resource.group, &resource.plural, object.name(), object.uid()),
        )),
    }
}

/// Deletes one object, or marks it when something holds it.
pub(crate) async fn delete_object(
    api: &Api,
    target: &Target,
    key: &Key,
    deletion: &Deletion,
) -> Result<Outcome, Status> {
    let resource = &target.resource;
    let name = key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    for _ in 0..limits::WRITE_ATTEMPTS {
        let Some(current) = api.store.get(key) else {
            return Err(Status::not_found(&resource.group, &resource.plural, &name));
        };
        check_preconditions(target, &current, deletion)?;
        let (change, waits) = plan(api, &current, deletion);
        if deletion.dry_run {
            return Ok(if waits {
                Outcome::Waiting(current)
            } else {
                Outcome::Gone(current)
            });
        }
        let Some(change) = change else {
            return Ok(Outcome::Waiting(current));
        };
        match api
            .store
            .write(key.clone(), Expected::Revision(current.revision()), change)
            .await
        {
            Ok(object) => {
                if resource.prefix == crd::prefix() {
                    api.refresh_catalog();
                }
                return Ok(if waits {
                    Outcome::Waiting(object)
                } else {
                    Outcome::Gone(object)
                });
            }
            Err(StoreError::Conflict | StoreError::Missing) => {}
            Err(other) => return Err(write_failure(&other)),
        }
    }
    Err(Status::conflict(&resource.group, &resource.plural, &name))
}

/// What to write, if anything, and whether the object stays for now.
fn plan(api: &Api, current: &Object, deletion: &Deletion) -> (Option<Change>, bool) {
    let mut object = current.value();
    let before = object.clone();
    let metadata = &mut object["metadata"];
    if let Some(finalizer) = deletion.propagation.finalizer()
        && !current.is_deleting()
    {
        if !metadata["finalizers"].is_array() {
            metadata["finalizers"] = json!([]);
        }
        if let Some(list) = metadata["finalizers"].as_array_mut()
            && !list.iter().any(|known| known == finalizer)
        {
            list.push(finalizer.into());
        }
    }
    let held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    if !held(&metadata["finalizers"]) && !held(&before["spec"]["finalizers"]) {
        return (Some(Change::Remove(object)), false);
    }
    if !current.is_deleting() {
        metadata["deletionTimestamp"] = crate::clock::timestamp(api.now()).into();
        metadata["deletionGracePeriodSeconds"] = 0.into();
        if before["spec"]["finalizers"].is_array() && before["status"]["phase"] == "Active" {
            object["status"]["phase"] = "Terminating".into();
        }
    }
    let change = (object != before).then_some(Change::Put(object));
    (change, true)
}

fn check_preconditions(target: &Target, current: &Object, deletion: &Deletion) -> Result<(), Status> {
    let refuse = |what: &str, asked: &str, found: &str| {
        let why =
            format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}");
        Err(Status::conflict_because(
            &target.resource.group,
            &target.resource.plural,
            current.name(),
            &why,
        ))
    };
    if let Some(uid) = &deletion.uid
        && uid != current.uid()
    {
        return refuse("UID", uid, current.uid());
    }
    if let Some(revision) = &deletion.revision
        && *revision != current.revision().to_string()
    {
        return refuse("ResourceVersion", revision, &current.revision().to_string());
    }
    Ok(())
}
