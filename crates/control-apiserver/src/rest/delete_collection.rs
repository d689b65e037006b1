//! `deletecollection`: everything that the selectors match.

use http::Response;
use serde_json::json;

use super::delete::{Deletion, delete_object};
use super::list::Selection;
use super::{Call, render};
use crate::response::Body;
use crate::status::Status;

/// Deletes the matching objects and answers with the list of them.
pub(super) async fn delete_collection(call: &Call) -> Result<Response<Body>, Status> {
    let selection = Selection::of(call)?;
    let deletion = Deletion::of(call)?;
    let listing = call
        .api
        .store
        .list(&call.target.resource.prefix, &call.path.namespace);
    let mut objects = listing.objects;
    objects.retain(|object| selection.matches(call, object));
    for object in &objects {
        match delete_object(&call.api, &call.target, object.key(), &deletion).await {
            Ok(_) => {}
            Err(status) if status.reason == "NotFound" => {}
            Err(status) => return Err(status),
        }
    }
    let metadata = json!({"resourceVersion": call.api.store.revision().to_string()});
    render::list(call, &metadata, &objects)
}
