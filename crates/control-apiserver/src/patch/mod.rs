//! The three patch types: merge (RFC 7396), JSON (RFC 6902) and Kubernetes' strategic merge.

mod json;
mod strategic;

use serde_json::Value;

use crate::catalog::Target;
use crate::decode;
use crate::status::Status;

pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const JSON: &str = "application/json-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A parsed patch.
pub(crate) enum Patch {
    Merge(Value),
    Json(json::Operations),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch; which types a resource takes depends on whether it is built in.
    /// Returns the fields that came twice, too.
    pub(crate) fn parse(
        target: &Target,
        content_type: &str,
        body: &[u8],
    ) -> Result<(Self, Vec<String>), Status> {
        let built_in = target.resource.built_in.is_some();
        match decode::media_type(content_type) {
            JSON => Ok((Self::Json(json::parse(body)?), Vec::new())),
            MERGE => {
                let decoded = object(body)?;
                Ok((Self::Merge(decoded.value), decoded.duplicates))
            }
            STRATEGIC if built_in => {
                let decoded = object(body)?;
                Ok((Self::Strategic(decoded.value), decoded.duplicates))
            }
            _ if built_in => Err(Status::unsupported_media_type(&[JSON, MERGE, STRATEGIC])),
            _ => Err(Status::unsupported_media_type(&[JSON, MERGE])),
        }
    }

    /// Applies the patch to a copy of `object`.
    pub(crate) fn apply(&self, target: &Target, object: &Value) -> Result<Value, Status> {
        let mut patched = object.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut patched, patch),
            Self::Json(operations) => json::apply(operations, &mut patched)?,
            Self::Strategic(patch) => strategic::apply(target.version().schema(), &mut patched, patch)?,
        }
        if !patched.is_object() {
            return Err(Status::bad_request("the patch does not leave an object"));
        }
        Ok(patched)
    }
}

fn object(body: &[u8]) -> Result<decode::Decoded, Status> {
    let decoded = decode::json(body)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {}", error.message)))?;
    if decoded.value.is_object() {
        Ok(decoded)
    } else {
        Err(Status::bad_request(
            "error decoding patch: a patch of this type must be an object",
        ))
    }
}
