//! The verbs of the Kubernetes API on stored resources, one file each.

mod admission;
mod create;
mod delete;
mod delete_collection;
mod get;
mod list;
mod patch;
mod render;
mod scale;
mod token;
mod update;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use parking_lot::Mutex;

use crate::api::Api;
use crate::auth::Caller;
use crate::catalog::Target;
use crate::decode::{self, Decoded};
use crate::request::{Form, Query, ResourcePath};
use crate::response::{Body, add_warnings};
use crate::status::{Status, quoted};
use crate::store::{Key, Object};

pub(crate) use delete::{Deletion, Propagation, delete_object};
pub(crate) use render::object_value;

/// One request on a resource.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) caller: Caller,
    pub(crate) target: Target,
    pub(crate) path: ResourcePath,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Sent with the answer.
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl Call {
    fn header(&self, name: http::HeaderName) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub(crate) fn content_type(&self) -> &str {
        self.header(http::header::CONTENT_TYPE)
    }

    fn form(&self) -> Result<Form, Status> {
        Form::negotiate(self.header(http::header::ACCEPT), &self.query)
    }

    pub(crate) fn decode_body(&self) -> Result<Decoded, Status> {
        decode::object(&self.body, self.content_type())
    }

    fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(&self.target.resource.prefix, &self.path.namespace, name)
    }

    /// The object the path names, or 404.
    pub(crate) fn require(&self) -> Result<Arc<Object>, Status> {
        self.api
            .store
            .get(&self.key(&self.path.name))
            .ok_or_else(|| self.not_found())
    }

    fn not_found(&self) -> Status {
        Status::not_found(
            &self.target.resource.group,
            &self.target.resource.plural,
            &self.path.name,
        )
    }

    fn conflict(&self, name: &str) -> Status {
        Status::conflict(&self.target.resource.group, &self.target.resource.plural, name)
    }
}

/// Answers a call.
pub(crate) async fn handle(call: Call, method: &Method) -> Result<Response<Body>, Status> {
    authorize(&call, method)?;
    if let Some(deprecation) = &call.target.version().deprecation {
        call.warn(deprecation.clone());
    }
    let mut response = if call.path.subresource.is_empty() {
        resource(&call, method).await?
    } else {
        subresource(&call, method).await?
    };
    add_warnings(&mut response, &call.warnings.lock());
    Ok(response)
}

async fn resource(call: &Call, method: &Method) -> Result<Response<Body>, Status> {
    let named = !call.path.name.is_empty();
    let needs_namespace = call.target.resource.namespaced && call.path.namespace.is_empty();
    match (method, named) {
        (&Method::GET, true) if call.query.flag("watch") => watch::watch(call),
        (&Method::GET, true) => get::get(call),
        (&Method::GET, false) if call.query.flag("watch") => watch::watch(call),
        (&Method::GET, false) => list::list(call),
        (&Method::POST, false) if !needs_namespace => create::create(call).await,
        (&Method::PUT, true) => update::update(call, "").await,
        (&Method::PATCH, true) => patch::patch(call, "").await,
        (&Method::DELETE, true) => delete::delete(call).await,
        (&Method::DELETE, false) if !needs_namespace => delete_collection::delete_collection(call).await,
        _ => Err(unsupported(call, method)),
    }
}

async fn subresource(call: &Call, method: &Method) -> Result<Response<Body>, Status> {
    let version = call.target.version();
    let name = call.path.subresource.as_str();
    let is_namespace = call.target.resource.group.is_empty() && call.target.resource.plural == "namespaces";
    match (name, method) {
        ("status", &Method::GET) if version.has_status => get::get(call),
        ("status", &Method::PUT) if version.has_status => update::update(call, name).await,
        ("status", &Method::PATCH) if version.has_status => patch::patch(call, name).await,
        ("finalize", &Method::PUT) if is_namespace => update::update(call, name).await,
        ("scale", method) => match &version.scale {
            Some(scale) => scale::scale(call, &scale.clone(), method).await,
            None => Err(Status::no_such_resource()),
        },
        ("token", &Method::POST) if call.target.resource.prefix == crate::auth::service_accounts() => {
            token::create(call)
        }
        ("status" | "finalize" | "token", _) => Err(unsupported(call, method)),
        _ => Err(Status::no_such_resource()),
    }
}

fn unsupported(call: &Call, method: &Method) -> Status {
    Status::method_not_allowed(
        &call.target.resource.group,
        &call.target.resource.plural,
        verb(call, method),
    )
}

/// The verb of a request, as authorization and messages name it.
fn verb(call: &Call, method: &Method) -> &'static str {
    match (method, call.path.name.is_empty()) {
        (&Method::GET, _) if call.query.flag("watch") => "watch",
        (&Method::GET, true) => "list",
        (&Method::GET, false) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "deletecollection",
        (&Method::DELETE, false) => "delete",
        _ => "unknown",
    }
}

/// Administrators may do everything but write what the server writes itself.
fn authorize(call: &Call, method: &Method) -> Result<(), Status> {
    let resource = &call.target.resource;
    if !call.caller.is_administrator() {
        let scope = if call.path.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {}", quoted(&call.path.namespace))
        };
        let why = format!(
            "User {} cannot {} resource {} in API group {} {scope}",
            quoted(&call.caller.user),
            verb(call, method),
            quoted(&resource.plural),
            quoted(&resource.group),
        );
        return Err(Status::forbidden(
            &resource.group,
            &resource.plural,
            &call.path.name,
            &why,
        ));
    }
    let read_only = resource.built_in.is_some_and(|kind| kind.read_only);
    if read_only && !["", "status"].contains(&call.path.subresource.as_str()) {
        let mut status = unsupported(call, method);
        status.message = format!(
            "{0}/{1} is not served: {0} show the processes that run in the mesh; `lateen ps` lists these and \
             `lateen logs` prints what they write",
            resource.plural, call.path.subresource,
        );
        return Err(status);
    }
    if read_only && method != Method::GET && !call.caller.trusted {
        let mut status = unsupported(call, method);
        status.message = format!(
            "{} is not supported on {}: they show the workloads that run and are written by the server only",
            verb(call, method),
            resource.plural,
        );
        return Err(status);
    }
    Ok(())
}
