//! The `scale` subresource of custom resources (`autoscaling/v1 Scale`).

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::Call;
use super::update::replace;
use crate::catalog::Scale;
use crate::decode;
use crate::response::{Body, json_value};
use crate::status::Status;
use crate::store::Object;

/// Reads or writes the replica counts at the paths that the CRD names.
pub(super) async fn scale(call: &Call, scale: &Scale, method: &Method) -> Result<Response<Body>, Status> {
    let current = call.require()?;
    let asked = match *method {
        Method::GET => return Ok(json_value(StatusCode::OK, &view(scale, &current))),
        Method::PUT => call.decode_body()?.value,
        Method::PATCH if decode::media_type(call.content_type()) == crate::patch::MERGE => {
            let mut view = view(scale, &current);
            json_patch::merge(&mut view, &decode::json(&call.body)?.value);
            view
        }
        Method::PATCH => return Err(Status::unsupported_media_type(&[crate::patch::MERGE])),
        _ => return Err(super::unsupported(call, method)),
    };
    let version = asked["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if !version.is_empty() && version != current.revision().to_string() {
        return Err(call.conflict(&call.path.name));
    }
    let mut object = current.value();
    let replicas = asked["spec"]["replicas"].as_i64().unwrap_or(0);
    let target = path(&scale.spec_replicas).fold(&mut object, |at, field| &mut at[field]);
    *target = replicas.into();
    let updated = replace(call, &current, object, "").await?;
    Ok(json_value(StatusCode::OK, &view(scale, &updated)))
}

/// The fields of a dotted path such as `.spec.replicas`.
fn path(text: &str) -> impl Iterator<Item = &str> {
    text.split('.').filter(|field| !field.is_empty())
}

fn view(scale: &Scale, object: &Object) -> Value {
    let value = object.value();
    let at = |text: &str| path(text).try_fold(&value, |at, field| at.get(field)).cloned();
    let metadata = &value["metadata"];
    let selector = scale.label_selector.as_deref().and_then(at);
    let mut view = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": at(&scale.spec_replicas).unwrap_or_else(|| json!(0))},
        "status": {"replicas": at(&scale.status_replicas).unwrap_or_else(|| json!(0))},
    });
    if let Some(selector) = selector {
        view["status"]["selector"] = selector;
    }
    view
}
