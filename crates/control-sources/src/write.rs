//! Writes to the Kubernetes API.

use std::collections::BTreeMap;

use control_snapshot::Kind;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::Value;

use crate::Client;
use crate::watch::resource;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no such object.
    #[error("{0} not found")]
    NotFound(String),
    /// The object exists already, or has changed in between.
    #[error("{0} already exists or has changed")]
    Conflict(String),
    /// The API server refused the write.
    #[error("{object}: {message}")]
    Refused {
        /// Kind, namespace and name.
        object: String,
        /// What the server says.
        message: String,
    },
    /// The object lacks what every object has.
    #[error("{object} has no {field}{hint}")]
    Malformed {
        /// What is known of it: kind, namespace and name.
        object: String,
        /// What it lacks.
        field: &'static str,
        /// How to mend it, after a colon; empty where nothing useful can be said.
        hint: String,
    },
    /// The API server could not be asked.
    #[error("{object}")]
    Unavailable {
        /// Kind, namespace and name.
        object: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What [`apply`] did with one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It did not exist.
    Created,
    /// It existed and was merge-patched; it may be unchanged.
    Patched,
}

/// One object of the API, by kind and name.
#[derive(Clone, Debug)]
pub struct ObjectRef {
    /// `group/version`, or `v1`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// The object of this kind, namespace and name.
    #[must_use]
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let resource = resource(kind, 0);
        Self {
            api_version: resource.api_version,
            kind: resource.kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The object that this JSON describes.
    ///
    /// # Errors
    /// `apiVersion`, `kind` or `metadata.name` is missing.
    pub fn of(object: &Value) -> Result<Self, WriteError> {
        let text = |pointer, what| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| malformed(object, what))
        };
        Ok(Self {
            api_version: text("/apiVersion", "apiVersion")?,
            kind: text("/kind", "kind")?,
            namespace: text("/metadata/namespace", "namespace").unwrap_or_default(),
            name: text("/metadata/name", "metadata.name")?,
        })
    }

    fn gvk(&self) -> GroupVersionKind {
        let (group, version) = self
            .api_version
            .rsplit_once('/')
            .unwrap_or(("", &self.api_version));
        GroupVersionKind::gvk(group, version, &self.kind)
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&self.gvk());
        if self.namespace.is_empty() {
            Api::all_with(client.0.clone(), &resource)
        } else {
            Api::namespaced_with(client.0.clone(), &self.namespace, &resource)
        }
    }

    fn explain(&self, error: kube::Error) -> WriteError {
        let object = self.to_string();
        match error {
            kube::Error::Api(status) if status.code == 404 => WriteError::NotFound(object),
            kube::Error::Api(status) if status.code == 409 => WriteError::Conflict(object),
            kube::Error::Api(status) => WriteError::Refused {
                object,
                message: status.message.clone(),
            },
            source => WriteError::Unavailable {
                object,
                source: Box::new(source),
            },
        }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{}.{namespace}", self.kind, self.name),
        }
    }
}

/// What is wrong with an object that lacks a field. People leave `apiVersion` out most often, and of a kind that the mesh
/// reads it is known what it should be.
fn malformed(object: &Value, field: &'static str) -> WriteError {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let kind = Kind::named(text("/kind")).filter(|_| field == "apiVersion");
    let hint = kind.map(|kind| format!(": write `apiVersion: {}`", resource(kind, 0).api_version));
    let known = [text("/kind"), text("/metadata/name")];
    let known: Vec<&str> = known.into_iter().filter(|part| !part.is_empty()).collect();
    WriteError::Malformed {
        object: match known.is_empty() {
            true => "an object".to_owned(),
            false => known.join("/"),
        },
        field,
        hint: hint.unwrap_or_default(),
    }
}

/// Reads an object.
///
/// # Errors
/// There is none, or the API server cannot be asked.
pub async fn get(client: &Client, object: &ObjectRef) -> Result<Value, WriteError> {
    let found = object
        .api(client)
        .get(&object.name)
        .await
        .map_err(|e| object.explain(e))?;
    Ok(serde_json::to_value(found).unwrap_or_default())
}

/// Reads every object of a kind, in all namespaces. `object` gives the kind; its name is not used.
///
/// # Errors
/// The kind is not served, or the API server cannot be asked.
pub async fn list(client: &Client, object: &ObjectRef) -> Result<Vec<Value>, WriteError> {
    let found = object
        .api(client)
        .list(&Default::default())
        .await
        .map_err(|e| object.explain(e))?;
    Ok(found
        .items
        .into_iter()
        .filter_map(|item| serde_json::to_value(item).ok())
        .collect())
}

/// Creates an object.
///
/// # Errors
/// It exists, is refused, or the API server cannot be asked.
pub async fn create(client: &Client, object: &Value) -> Result<Value, WriteError> {
    let reference = ObjectRef::of(object)?;
    let dynamic: DynamicObject =
        serde_json::from_value(object.clone()).map_err(|_| malformed(object, "readable metadata"))?;
    let created = reference
        .api(client)
        .create(&PostParams::default(), &dynamic)
        .await;
    created
        .map(|o| serde_json::to_value(o).unwrap_or_default())
        .map_err(|e| reference.explain(e))
}

/// Changes an object by a JSON merge patch (RFC 7386).
///
/// # Errors
/// It does not exist, the result is refused, or the API server cannot be asked.
pub async fn patch(client: &Client, object: &ObjectRef, patch: &Value) -> Result<Value, WriteError> {
    let patched = object
        .api(client)
        .patch(&object.name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched
        .map(|o| serde_json::to_value(o).unwrap_or_default())
        .map_err(|e| object.explain(e))
}

/// Changes the status of an object by a JSON merge patch.
///
/// # Errors
/// As [`patch`].
pub async fn patch_status(client: &Client, object: &ObjectRef, patch: &Value) -> Result<(), WriteError> {
    let params = PatchParams::default();
    let patched = object
        .api(client)
        .patch_status(&object.name, &params, &Patch::Merge(patch))
        .await;
    patched.map(drop).map_err(|e| object.explain(e))
}

/// Deletes an object; one that is gone already counts as deleted.
///
/// # Errors
/// The deletion is refused, or the API server cannot be asked.
pub async fn delete(client: &Client, object: &ObjectRef) -> Result<(), WriteError> {
    match object
        .api(client)
        .delete(&object.name, &DeleteParams::default())
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => match object.explain(error) {
            WriteError::NotFound(_) => Ok(()),
            other => Err(other),
        },
    }
}

/// Kinds without a namespace among those that people apply.
const CLUSTER_WIDE: [&str; 5] = [
    "Namespace",
    "Node",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
];

/// Creates each object, or merge-patches the one that exists, in order. Objects that belong into a namespace and name
/// none go to `default`.
///
/// # Errors
/// The first object that cannot be written; those before it are.
pub async fn apply(client: &Client, objects: &[Value]) -> Result<BTreeMap<String, Applied>, WriteError> {
    let mut outcome = BTreeMap::new();
    for object in objects {
        let mut object = object.clone();
        let mut reference = ObjectRef::of(&object)?;
        if reference.namespace.is_empty() && !CLUSTER_WIDE.contains(&reference.kind.as_str()) {
            "default".clone_into(&mut reference.namespace);
            object["metadata"]["namespace"] = "default".into();
        }
        let applied = match create(client, &object).await {
            Ok(_) => Applied::Created,
            Err(WriteError::Conflict(_)) => {
                patch(client, &reference, &object).await?;
                Applied::Patched
            }
            Err(error) => return Err(error),
        };
        outcome.insert(reference.to_string(), applied);
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_without_api_version_is_refused_with_the_one_that_it_should_have() {
        let rule =
            json!({"kind": "DestinationRule", "metadata": {"name": "default", "namespace": "custom-ns"}});
        let error = ObjectRef::of(&rule).expect_err("malformed");
        assert_eq!(
            error.to_string(),
            "DestinationRule/default has no apiVersion: write `apiVersion: networking.istio.io/v1`"
        );
        let nameless = ObjectRef::of(&json!({"apiVersion": "v1", "kind": "Service"})).expect_err("malformed");
        assert_eq!(nameless.to_string(), "Service has no metadata.name");
    }
}
