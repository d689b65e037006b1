//! JSON patch (RFC 6902).

use http::StatusCode;
use serde_json::Value;

use crate::limits;
use crate::status::Status;

/// The operations of a patch.
pub(crate) type Operations = json_patch::Patch;

pub(super) fn parse(body: &[u8]) -> Result<Operations, Status> {
    let operations: Operations = serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    if operations.0.len() > limits::JSON_PATCH_OPERATIONS {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {}, got {}",
            limits::JSON_PATCH_OPERATIONS,
            operations.0.len()
        );
        return Err(Status::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
        ));
    }
    Ok(operations)
}

/// A patch that does not fit is the client's error: 422 without a subject, as the real server answers.
pub(super) fn apply(operations: &Operations, object: &mut Value) -> Result<(), Status> {
    json_patch::patch(object, &operations.0).map_err(|error| {
        Status::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {error}"),
        )
    })
}
