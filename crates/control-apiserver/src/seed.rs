//! What is there from the first moment: namespaces and the built-in CRDs.

use aws_lc_rs::digest::{SHA256, digest};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::api::Api;
use crate::kinds::{self, Preparation, custom_resource_definition as crd, namespace};
use crate::store::{Change, Expected, Key, ResourcePrefix, StoreError};

/// Says which text a built-in CRD was made from, so that a new version of the program replaces it.
const SOURCE_ANNOTATION: &str = "lateen.io/built-in-source";

/// Stores what is missing, in one commit as far as possible.
pub(crate) async fn seed(api: &Api, definitions: &[Value]) -> Result<(), StoreError> {
    let namespaces = namespace::INITIAL
        .iter()
        .filter_map(|name| missing_namespace(api, name));
    let definitions = definitions
        .iter()
        .filter_map(|definition| outdated_definition(api, definition));
    let writes: Vec<_> = namespaces.chain(definitions).collect();
    try_join_all(
        writes
            .into_iter()
            .map(|(key, expected, value)| api.store.write(key, expected, Change::Put(value))),
    )
    .await?;
    api.refresh_catalog();
    Ok(())
}

fn prepare(api: &Api, plural: &str, object: &mut Value, old: Option<&Value>) {
    let preparation = Preparation {
        store: &api.store,
        now: api.now(),
    };
    let kind = kinds::ALL.iter().find(|kind| kind.plural == plural);
    if let Some(Err(status)) = kind.map(|kind| (kind.prepare)(object, old, &preparation)) {
        tracing::error!(%status, plural, "a built-in object could not be prepared");
    }
}

fn system_metadata(api: &Api) -> Value {
    json!({"uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": crate::clock::timestamp(api.now())})
}

fn missing_namespace(api: &Api, name: &str) -> Option<(Key, Expected, Value)> {
    let key = Key::new(&ResourcePrefix::new("", "namespaces"), "", name);
    if api.store.get(&key).is_some() {
        return None;
    }
    let mut object = json!({"metadata": system_metadata(api)});
    object["metadata"]["name"] = name.into();
    prepare(api, "namespaces", &mut object, None);
    Some((key, Expected::Absent, object))
}

/// The CRD as it must be written, or `None` when it is there in this version, or was changed by the user.
fn outdated_definition(api: &Api, definition: &Value) -> Option<(Key, Expected, Value)> {
    let name = definition["metadata"]["name"].as_str()?;
    let key = Key::new(&crd::prefix(), "", name);
    let source: String = digest(&SHA256, definition.to_string().as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let current = api.store.get(&key);
    let old = current.as_ref().map(|object| object.value());
    let old_source = old.as_ref().map(|old| {
        old["metadata"]["annotations"][SOURCE_ANNOTATION]
            .as_str()
            .unwrap_or_default()
    });
    if old_source.is_some_and(|old| old == source || old.is_empty()) {
        return None;
    }
    let mut object = definition.clone();
    if let Some(map) = object.as_object_mut() {
        map.shift_remove("apiVersion");
        map.shift_remove("kind");
        map.shift_remove("status");
    }
    let system = old
        .as_ref()
        .map_or_else(|| system_metadata(api), |old| old["metadata"].clone());
    for field in ["uid", "creationTimestamp", "deletionTimestamp"] {
        if !system[field].is_null() {
            object["metadata"][field] = system[field].clone();
        }
    }
    let generation = system["generation"].as_i64().unwrap_or(0) + 1;
    object["metadata"]["generation"] = generation.into();
    object["metadata"]["annotations"][SOURCE_ANNOTATION] = source.clone().into();
    prepare(api, "customresourcedefinitions", &mut object, old.as_ref());
    let expected = current.map_or(Expected::Absent, |current| Expected::Revision(current.revision()));
    Some((key, expected, object))
}
