//! `patch`: read, change, write, and once more when somebody else was faster.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::Value;

use super::update::replace;
use super::{Call, admission, render};
use crate::limits;
use crate::patch::Patch;
use crate::response::Body;
use crate::status::{Cause, Status};
use crate::store::Object;

/// Patches the object, or the part of it that `subresource` names.
pub(super) async fn patch(call: &Call, subresource: &str) -> Result<Response<Body>, Status> {
    let (patch, duplicates) = Patch::parse(&call.target, call.content_type(), &call.body)?;
    let mut last = call.conflict(&call.path.name);
    for _ in 0..limits::PATCH_ATTEMPTS {
        let current = call.require()?;
        match attempt(call, &patch, &duplicates, &current, subresource).await {
            Ok(updated) => return render::object(call, StatusCode::OK, &updated),
            Err(Attempt::Lost(status)) => last = status,
            Err(Attempt::Refused(status)) => return Err(status),
        }
    }
    Err(last)
}

/// Why an attempt did not succeed.
enum Attempt {
    /// Somebody else was faster; worth another try.
    Lost(Status),
    Refused(Status),
}

impl From<Status> for Attempt {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

async fn attempt(
    call: &Call,
    patch: &Patch,
    duplicates: &[String],
    current: &Arc<Object>,
    subresource: &str,
) -> Result<Arc<Object>, Attempt> {
    let before = render::object_value(&call.target, current);
    let mut object = patch.apply(&call.target, &before)?;
    admission::strip_type(&call.target, &mut object)?;
    check_name(call, &object)?;
    let unknown = admission::decode(&call.target, &mut object)?;
    call.warnings.lock().clear();
    let complaints = admission::Complaints::of(&unknown, duplicates);
    admission::complain(call, &complaints, |why| {
        // The object as patched, before it was pruned.
        let shown = patch.apply(&call.target, &before).unwrap_or_default();
        let cause = Cause::invalid("patch", &shown, why);
        Status::invalid("", "", "", vec![cause])
    })?;
    // A patch that names a version wants exactly that version.
    let wanted = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let names_version = wanted != current.revision().to_string();
    if names_version && !wanted.is_empty() {
        return Err(Attempt::Refused(call.conflict(&call.path.name)));
    }
    replace(call, current, object, subresource)
        .await
        .map_err(|status| {
            if status.reason == "Conflict" && !status.message.contains("Precondition") {
                Attempt::Lost(status)
            } else {
                Attempt::Refused(status)
            }
        })
}

fn check_name(call: &Call, object: &Value) -> Result<(), Status> {
    let metadata = &object["metadata"];
    for (field, expected) in [("name", &call.path.name), ("namespace", &call.path.namespace)] {
        let found = metadata[field].as_str().unwrap_or_default();
        if found != expected {
            let resource = &call.target.resource;
            let cause = Cause::invalid(
                format!("metadata.{field}"),
                &metadata[field],
                "field is immutable",
            );
            return Err(Status::invalid(
                &resource.group,
                &resource.kind,
                &call.path.name,
                vec![cause],
            ));
        }
    }
    Ok(())
}
