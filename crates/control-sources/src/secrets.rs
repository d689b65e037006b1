//! Single Secrets by name, read and written as plain bytes.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_snapshot::Kind;
use serde_json::{Value, json};

use crate::Client;
use crate::write::{self, ObjectRef, WriteError};

/// The `data` of a Secret, and which version of it this is. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// The entries.
    pub data: BTreeMap<String, Vec<u8>>,
    /// `metadata.resourceVersion`.
    pub version: String,
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSecret").finish_non_exhaustive()
    }
}

/// A Secret has an entry that is not base64. An API server does not take such a one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry {0} is not base64")]
pub struct NotBase64(pub String);

/// Why a Secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The API server could not be asked, or did not want to tell.
    #[error(transparent)]
    Server(#[from] WriteError),
    /// What it told is damaged.
    #[error(transparent)]
    Damaged(#[from] NotBase64),
}

impl StoredSecret {
    /// Reads the JSON of a Secret.
    ///
    /// # Errors
    /// When an entry is not base64.
    pub fn of(object: &Value) -> Result<Self, NotBase64> {
        let entries = object["data"].as_object();
        let decoded = entries.into_iter().flatten().map(|(name, value)| {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default());
            Ok((name.clone(), bytes.map_err(|_| NotBase64(name.clone()))?))
        });
        Ok(Self {
            data: decoded.collect::<Result<_, _>>()?,
            version: version(object),
        })
    }
}

fn version(object: &Value) -> String {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.unwrap_or_default().to_owned()
}

fn encode(data: &BTreeMap<String, Vec<u8>>) -> Value {
    let entries = data
        .iter()
        .map(|(name, bytes)| (name.clone(), STANDARD.encode(bytes).into()));
    Value::Object(entries.collect())
}

/// The Secret of this name, if there is one.
///
/// # Errors
/// The API server cannot be asked, or refuses.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Option<StoredSecret>, ReadError> {
    match write::get(client, &ObjectRef::new(Kind::Secret, namespace, name)).await {
        Ok(object) => Ok(Some(StoredSecret::of(&object)?)),
        Err(WriteError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a Secret of this type; returns its version.
///
/// # Errors
/// There is one already, it is refused, or the API server cannot be asked.
pub async fn create(
    client: &Client,
    namespace: &str,
    name: &str,
    kind: &str,
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<String, WriteError> {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": name, "namespace": namespace},
        "data": encode(data),
    });
    Ok(version(&write::create(client, &object).await?))
}

/// Writes new entries into a Secret of which `replaced` is the last known version; returns the new one.
///
/// # Errors
/// It has changed meanwhile ([`WriteError::Conflict`]), is gone or refused, or the API server cannot be asked.
pub async fn replace(
    client: &Client,
    namespace: &str,
    name: &str,
    data: &BTreeMap<String, Vec<u8>>,
    replaced: &str,
) -> Result<String, WriteError> {
    // A merge patch that names a version is refused when the object has another one.
    let patch = json!({"metadata": {"resourceVersion": replaced}, "data": encode(data)});
    let reference = ObjectRef::new(Kind::Secret, namespace, name);
    Ok(version(&write::patch(client, &reference, &patch).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_bytes_and_nothing_shows_them() {
        let object = json!({"metadata": {"resourceVersion": "7"}, "data": {"a": "c2VjcmV0"}});
        let secret = StoredSecret::of(&object).expect("base64");
        assert_eq!(
            (secret.data["a"].as_slice(), secret.version.as_str()),
            (&b"secret"[..], "7")
        );
        assert_eq!(encode(&secret.data), object["data"]);
        assert_eq!(format!("{secret:?}"), "StoredSecret { .. }");
        let damaged = json!({"data": {"a": "%"}});
        assert_eq!(StoredSecret::of(&damaged), Err(NotBase64("a".to_owned())));
    }
}
