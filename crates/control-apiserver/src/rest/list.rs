//! `list`, whole or in pages.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};

use super::{Call, render};
use crate::response::Body;
use crate::selectors::{FieldSelector, LabelSelector};
use crate::status::Status;
use crate::store::{Listing, Object};

/// What `labelSelector` and `fieldSelector` ask for.
pub(super) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(super) fn of(call: &Call) -> Result<Self, Status> {
        Ok(Self {
            labels: LabelSelector::parse(call.query.get("labelSelector"))?,
            fields: FieldSelector::parse(call.query.get("fieldSelector"), &call.target)?,
        })
    }

    pub(super) fn matches(&self, call: &Call, object: &Object) -> bool {
        let named = call.path.name.is_empty() || object.name() == call.path.name;
        let by_name = self.fields.only_name().is_none_or(|name| object.name() == name);
        named && by_name && self.labels.matches(object) && self.fields.matches(&call.target, object)
    }
}

/// Where a list in pages goes on: everything after `key`, as of `revision`.
struct Continue {
    revision: u64,
    key: String,
}

impl Continue {
    fn decode(token: &str) -> Result<Option<Self>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let fail = || Status::bad_request("continue key is not valid: the token is damaged");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| fail())?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| fail())?;
        match (value["rv"].as_u64(), value["start"].as_str()) {
            (Some(revision), Some(key)) => Ok(Some(Self {
                revision,
                key: key.to_owned(),
            })),
            _ => Err(fail()),
        }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD
            .encode(json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.key}).to_string())
    }
}

/// Parses a `resourceVersion`.
pub(super) fn revision(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let message = format!(
            "resourceVersion: Invalid value: {}: must be a number",
            crate::status::quoted(text)
        );
        Status::bad_request(message)
    })
}

/// Answers a list.
pub(super) fn list(call: &Call) -> Result<Response<Body>, Status> {
    let selection = Selection::of(call)?;
    let limit = call.query.number("limit")?.unwrap_or(0);
    let from = Continue::decode(call.query.get("continue"))?;
    let listing = listing(call, from.as_ref())?;
    let after_start = |object: &&Arc<Object>| {
        from.as_ref()
            .is_none_or(|from| object.key().as_str() > from.key.as_str())
    };
    let mut objects: Vec<Arc<Object>> = listing
        .objects
        .iter()
        .filter(after_start)
        .filter(|object| selection.matches(call, object))
        .cloned()
        .collect();
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit > 0 && objects.len() > limit {
        let remaining = objects.len() - limit;
        objects.truncate(limit);
        let last = objects
            .last()
            .map_or_else(String::new, |object| object.key().as_str().to_owned());
        metadata["continue"] = Continue {
            revision: listing.revision,
            key: last,
        }
        .encode()
        .into();
        metadata["remainingItemCount"] = remaining.into();
    }
    render::list(call, &metadata, &objects)
}

/// The objects at the revision the client asks for.
fn listing(call: &Call, from: Option<&Continue>) -> Result<Listing, Status> {
    let store = &call.api.store;
    let (prefix, namespace) = (&call.target.resource.prefix, &call.path.namespace);
    if let Some(from) = from {
        return store.list_at(prefix, namespace, from.revision).map_err(|_| {
            Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter.",
            )
        });
    }
    let asked = call.query.get("resourceVersion");
    let exact = call.query.get("resourceVersionMatch") == "Exact";
    if asked.is_empty() || asked == "0" {
        if exact {
            return Err(Status::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        return Ok(store.list(prefix, namespace));
    }
    let asked = revision(asked)?;
    let newest = store.revision();
    if asked > newest {
        return Err(too_large(asked, newest));
    }
    if exact {
        return store
            .list_at(prefix, namespace, asked)
            .map_err(|expired| too_old(asked, expired.oldest));
    }
    Ok(store.list(prefix, namespace))
}

/// 410 for a revision that is forgotten.
pub(super) fn too_old(asked: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {asked} ({oldest})"))
}

/// A revision that does not exist yet.
pub(super) fn too_large(asked: u64, newest: u64) -> Status {
    let mut status = Status::new(
        http::StatusCode::GATEWAY_TIMEOUT,
        "Timeout",
        format!("Timeout: Too large resource version: {asked}, current: {newest}"),
    );
    status.details =
        json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]});
    status
}
