//! A stored object: its JSON bytes, plus the few metadata fields that the server itself looks at.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::{Key, StoreError};

/// An owner reference, as far as garbage collection needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Arc<str>,
    pub(crate) blocks_deletion: bool,
}

/// An immutable object as stored. The body has neither `apiVersion` nor `kind`: those depend on the version that a
/// client asks for, and are written in front of the body when it is sent.
#[derive(Debug)]
pub(crate) struct Object {
    key: Key,
    revision: u64,
    body: Bytes,
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
    finalizers: Box<[Box<str>]>,
    owners: Box<[Owner]>,
    deleting: bool,
}

impl Object {
    /// Seals `value` as the state of `key` at `revision`, writing `metadata.resourceVersion`.
    pub(super) fn seal(key: Key, revision: u64, mut value: Value) -> Result<Self, StoreError> {
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let body = serde_json::to_vec(&value).map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self::index(key, revision, body.into(), &value))
    }

    /// An object that is shown but not stored: the answer of a dry run.
    pub(crate) fn draft(key: Key, value: Value) -> Self {
        Self::index(key, 0, value.to_string().into_bytes().into(), &value)
    }

    /// Reads an object back from disk.
    pub(super) fn load(key: Key, body: Bytes) -> Result<Self, StoreError> {
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| StoreError::Io(format!("{}: {error}", key.as_str())))?;
        let revision = value["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        Ok(Self::index(key, revision, body, &value))
    }

    fn index(key: Key, revision: u64, body: Bytes, value: &Value) -> Self {
        let metadata = &value["metadata"];
        let text = |field: &str| -> Arc<str> { metadata[field].as_str().unwrap_or_default().into() };
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        let finalizers = metadata["finalizers"].as_array().into_iter().flatten();
        Self {
            revision,
            body,
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            labels: labels
                .map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into()))
                .collect(),
            finalizers: finalizers.filter_map(Value::as_str).map(Into::into).collect(),
            owners: owners
                .map(|owner| Owner {
                    uid: owner["uid"].as_str().unwrap_or_default().into(),
                    blocks_deletion: owner["blockOwnerDeletion"].as_bool().unwrap_or(false),
                })
                .collect(),
            deleting: metadata["deletionTimestamp"].is_string(),
            key,
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The revision of the last change: `metadata.resourceVersion`.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// JSON of the object without `apiVersion` and `kind`.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// The value of a label.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }

    pub(crate) fn finalizers(&self) -> &[Box<str>] {
        &self.finalizers
    }

    pub(crate) fn owners(&self) -> &[Owner] {
        &self.owners
    }

    /// Whether `metadata.deletionTimestamp` is set.
    pub(crate) fn is_deleting(&self) -> bool {
        self.deleting
    }

    /// The parsed object, without `apiVersion` and `kind`. Stored bytes are our own JSON, so this cannot fail.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Appends the object's JSON as the given version and kind.
    pub(crate) fn write_json(&self, api_version: &str, kind: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"apiVersion\":\"");
        out.extend_from_slice(api_version.as_bytes());
        out.extend_from_slice(b"\",\"kind\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&self.body[1..]);
    }
}
