//! The work that kube-controller-manager does behind the real server: garbage collection, emptying namespaces and
//! CRDs that are deleted, and the default ServiceAccount.
//!
//! It runs after every change, over the state as a whole; each step is safe to repeat.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::service_accounts;
use crate::kinds::custom_resource_definition as crd;
use crate::kinds::{namespace, service_account};
use crate::rest::{Deletion, Propagation, delete_object};
use crate::store::{Change, Expected, Key, Object, ResourcePrefix, StoreError};

/// Changes that come within this time are worked on together.
const SETTLE: Duration = Duration::from_millis(10);
/// Pause after a write that failed, so that a full disk is not written to without end.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the server stops.
pub(crate) async fn run(api: Arc<Api>) {
    let mut revisions = api.store.revisions();
    loop {
        revisions.borrow_and_update();
        let pause = match sweep(&api).await {
            Ok(()) => SETTLE,
            Err(error) => {
                tracing::warn!(%error, "background work could not be stored, trying again");
                RETRY
            }
        };
        tokio::select! {
            () = api.stopping.cancelled() => return,
            changed = revisions.changed(), if pause == SETTLE => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if pause == RETRY => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// Looks at everything once and does what is due.
pub(crate) async fn sweep(api: &Api) -> Result<(), StoreError> {
    let objects = api.store.all();
    let living: HashSet<&str> = objects.iter().map(|object| object.uid()).collect();
    for object in &objects {
        if object.is_deleting() {
            go_on_deleting(api, object, &objects).await?;
            continue;
        }
        if is_namespace(object) {
            ensure_default_account(api, object).await?;
        }
        let ownerless =
            !object.owners().is_empty() && !object.owners().iter().any(|owner| living.contains(&*owner.uid));
        if ownerless {
            delete(api, object).await?;
        }
    }
    Ok(())
}

/// Does what the finalizers of a deleted object wait for.
async fn go_on_deleting(api: &Api, object: &Object, objects: &[Arc<Object>]) -> Result<(), StoreError> {
    if is_namespace(object) {
        empty_namespace(api, object, objects).await?;
    }
    if holds(object, crd::FINALIZER) && object.key().resource() == crd::prefix() {
        empty_resource(api, object).await?;
    }
    let foreground = Propagation::Foreground.finalizer().unwrap_or_default();
    if holds(object, foreground) {
        delete_dependents(api, object, objects, foreground).await?;
    }
    let orphan = Propagation::Orphan.finalizer().unwrap_or_default();
    if holds(object, orphan) {
        release_dependents(api, object, objects, orphan).await?;
    }
    Ok(())
}

/// Asked of every object after every change, so the key is taken apart only where it can be one.
fn is_namespace(object: &Object) -> bool {
    object.namespace().is_empty() && object.key().resource().parts() == ("", "namespaces")
}

fn holds(object: &Object, finalizer: &str) -> bool {
    object.finalizers().iter().any(|known| &**known == finalizer)
}

/// Deletes an object in the background; that somebody else changed or deleted it meanwhile is no error.
async fn delete(api: &Api, object: &Object) -> Result<(), StoreError> {
    let target = api.catalog.load().find_prefix(&object.key().resource());
    match target {
        Some(target) => match delete_object(api, &target, object.key(), &Deletion::default()).await {
            Ok(_) => Ok(()),
            Err(status) if ["NotFound", "Conflict"].contains(&status.reason) => Ok(()),
            Err(status) => Err(StoreError::Io(status.message)),
        },
        // Its CRD is gone already.
        None => ignore_race(write(api, object, Change::Remove(object.value())).await),
    }
}

async fn write(api: &Api, object: &Object, change: Change) -> Result<(), StoreError> {
    api.store
        .write(
            object.key().clone(),
            Expected::Revision(object.revision()),
            change,
        )
        .await
        .map(drop)
}

/// The next sweep sees what changed in between.
fn ignore_race(result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(StoreError::Conflict | StoreError::Missing | StoreError::Exists) => Ok(()),
        other => other,
    }
}

/// Takes a finalizer off; when it was the last one, the object goes.
async fn finalize(api: &Api, object: &Object, place: &str, finalizer: &str) -> Result<(), StoreError> {
    let mut value = object.value();
    if let Some(list) = value[place]["finalizers"].as_array_mut() {
        list.retain(|known| known != finalizer);
    }
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let finished = empty(&value["metadata"]["finalizers"]) && empty(&value["spec"]["finalizers"]);
    let change = if finished {
        Change::Remove(value)
    } else {
        Change::Put(value)
    };
    ignore_race(write(api, object, change).await)?;
    if object.key().resource() == crd::prefix() {
        api.refresh_catalog();
    }
    Ok(())
}

async fn empty_namespace(api: &Api, object: &Object, objects: &[Arc<Object>]) -> Result<(), StoreError> {
    let mut empty = true;
    for inside in objects
        .iter()
        .filter(|inside| inside.namespace() == object.name())
    {
        empty = false;
        if !inside.is_deleting() {
            delete(api, inside).await?;
        }
    }
    // What was deleted just now is gone at the next sweep, which its deletion starts.
    let held = object.value()["spec"]["finalizers"]
        .as_array()
        .is_some_and(|list| list.iter().any(|f| f == namespace::FINALIZER));
    if empty && held {
        finalize(api, object, "spec", namespace::FINALIZER).await
    } else {
        Ok(())
    }
}

async fn empty_resource(api: &Api, definition: &Object) -> Result<(), StoreError> {
    let value = definition.value();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let prefix = ResourcePrefix::new(
        &text(&value["spec"]["group"]),
        &text(&value["spec"]["names"]["plural"]),
    );
    let inside = api.store.list(&prefix, "").objects;
    for object in inside.iter().filter(|object| !object.is_deleting()) {
        delete(api, object).await?;
    }
    if inside.is_empty() {
        finalize(api, definition, "metadata", crd::FINALIZER).await
    } else {
        Ok(())
    }
}

async fn delete_dependents(
    api: &Api,
    owner: &Object,
    objects: &[Arc<Object>],
    finalizer: &str,
) -> Result<(), StoreError> {
    let mut blocked = false;
    for dependent in objects {
        let Some(reference) = dependent
            .owners()
            .iter()
            .find(|reference| &*reference.uid == owner.uid())
        else {
            continue;
        };
        blocked |= reference.blocks_deletion;
        if !dependent.is_deleting() {
            delete(api, dependent).await?;
        }
    }
    if blocked {
        Ok(())
    } else {
        finalize(api, owner, "metadata", finalizer).await
    }
}

async fn release_dependents(
    api: &Api,
    owner: &Object,
    objects: &[Arc<Object>],
    finalizer: &str,
) -> Result<(), StoreError> {
    for dependent in objects
        .iter()
        .filter(|dependent| dependent.owners().iter().any(|o| &*o.uid == owner.uid()))
    {
        let mut value = dependent.value();
        if let Some(list) = value["metadata"]["ownerReferences"].as_array_mut() {
            list.retain(|reference| reference["uid"] != owner.uid());
        }
        // A race here must not lose the dependent: the finalizer stays until all are released.
        match write(api, dependent, Change::Put(value)).await {
            Ok(()) => {}
            Err(StoreError::Conflict | StoreError::Missing) => return Ok(()),
            Err(other) => return Err(other),
        }
    }
    finalize(api, owner, "metadata", finalizer).await
}

async fn ensure_default_account(api: &Api, object: &Object) -> Result<(), StoreError> {
    let key = Key::new(&service_accounts(), object.name(), service_account::DEFAULT);
    if api.store.get(&key).is_some() {
        return Ok(());
    }
    let account = json!({"metadata": {
        "name": service_account::DEFAULT,
        "namespace": object.name(),
        "uid": uuid::Uuid::new_v4().to_string(),
        "creationTimestamp": crate::clock::timestamp(api.now()),
    }});
    ignore_race(
        api.store
            .write(key, Expected::Absent, Change::Put(account))
            .await
            .map(drop),
    )
}
