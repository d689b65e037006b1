//! `get`.

use http::{Response, StatusCode};

use super::{Call, render};
use crate::response::Body;
use crate::status::Status;

/// Answers with one object.
pub(super) fn get(call: &Call) -> Result<Response<Body>, Status> {
    render::object(call, StatusCode::OK, &*call.require()?)
}
