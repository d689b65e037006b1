//! Writes of the server's own side: Pods and Nodes that show the workloads, EndpointSlices, status.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::api::Api;
use crate::auth::Caller;
use crate::catalog::Target;
use crate::limits;
use crate::request::{Query, ResourcePath};
use crate::response::Body;
use crate::rest::{self, Call, Deletion, delete_object, object_value};
use crate::status::Status;
use crate::store::Key;

/// A writer that may write every kind, status included. Objects are whole Kubernetes objects with `apiVersion`,
/// `kind` and `metadata`; they pass the same decoding and validation as those of users.
#[derive(Clone)]
pub struct TrustedWriter {
    api: Arc<Api>,
}

impl TrustedWriter {
    pub(crate) fn new(api: Arc<Api>) -> Self {
        Self { api }
    }

    fn target(&self, api_version: &str, kind: &str) -> Result<Target, Status> {
        self.api
            .catalog
            .load()
            .find_kind(api_version, kind)
            .ok_or_else(Status::no_such_resource)
    }

    fn key(target: &Target, namespace: &str, name: &str) -> Key {
        Key::new(&target.resource.prefix, namespace, name)
    }

    /// Creates the object, or replaces the one of its name, and returns what is stored. Nothing is written when
    /// nothing would change.
    ///
    /// # Errors
    /// Any [`Status`] that a create or update may be answered with.
    pub async fn put(&self, object: &Value) -> Result<Value, Status> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let target = self.target(&text(&object["apiVersion"]), &text(&object["kind"]))?;
        let (namespace, name) = (
            text(&object["metadata"]["namespace"]),
            text(&object["metadata"]["name"]),
        );
        let mut last = Status::conflict(&target.resource.group, &target.resource.plural, &name);
        for _ in 0..limits::WRITE_ATTEMPTS {
            let current = self.api.store.get(&Self::key(&target, &namespace, &name));
            let mut object = object.clone();
            let method = match &current {
                None => Method::POST,
                Some(current) => {
                    object["metadata"]["resourceVersion"] = current.revision().to_string().into();
                    Method::PUT
                }
            };
            match self.send(&target, &namespace, &name, &method, &object).await {
                Err(status)
                    if ["Conflict", "AlreadyExists", "NotFound"].contains(&status.reason)
                        && status.details["kind"] != "namespaces" =>
                {
                    last = status
                }
                other => return other,
            }
        }
        Err(last)
    }

    async fn send(
        &self,
        target: &Target,
        namespace: &str,
        name: &str,
        method: &Method,
        object: &Value,
    ) -> Result<Value, Status> {
        let call = Call {
            api: Arc::clone(&self.api),
            caller: Caller::in_process(),
            path: ResourcePath {
                group: target.resource.group.clone(),
                version: target.version().name.clone(),
                plural: target.resource.plural.clone(),
                namespace: namespace.to_owned(),
                name: if *method == Method::POST {
                    String::new()
                } else {
                    name.to_owned()
                },
                subresource: String::new(),
            },
            target: target.clone(),
            query: Query::parse(Some("fieldValidation=Strict")),
            headers: HeaderMap::new(),
            body: Bytes::from(object.to_string()),
            warnings: parking_lot::Mutex::default(),
        };
        let response: Response<Body> = rest::handle(call, method).await?;
        let bytes = match response.into_body().collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(never) => match never {},
        };
        serde_json::from_slice(&bytes).map_err(Status::internal)
    }

    /// Deletes an object; that it is not there is no error.
    ///
    /// # Errors
    /// When the kind is not served or the deletion cannot be stored.
    pub async fn delete(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let target = self.target(api_version, kind)?;
        match delete_object(
            &self.api,
            &target,
            &Self::key(&target, namespace, name),
            &Deletion::default(),
        )
        .await
        {
            Ok(_) => Ok(()),
            Err(status) if status.reason == "NotFound" => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// When the kind is not served.
    pub fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        let target = self.target(api_version, kind)?;
        let object = self.api.store.get(&Self::key(&target, namespace, name));
        Ok(object.map(|object| object_value(&target, &object)))
    }

    /// Reads all objects of a kind; `namespace` may be empty for all namespaces.
    ///
    /// # Errors
    /// When the kind is not served.
    pub fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Result<Vec<Value>, Status> {
        let target = self.target(api_version, kind)?;
        let listing = self.api.store.list(&target.resource.prefix, namespace);
        Ok(listing
            .objects
            .iter()
            .map(|object| object_value(&target, object))
            .collect())
    }
}
