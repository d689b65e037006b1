//! The server as a `tower` service: the same over TCP and in process.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::json;

use crate::api::Api;
use crate::auth::{Caller, ISSUER};
use crate::catalog::Target;
use crate::request::{Query, ResourcePath};
use crate::response::{Body, failure, json_value, with_type};
use crate::rest::{self, Call};
use crate::status::Status;
use crate::{discovery, limits, openapi, reviews};

/// Where requests come from, and so who sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// This process: trusted, no token.
    InProcess,
    /// A socket: every request carries a token.
    Network,
}

/// The API server as a service. A `kube::Client` can be built over the in-process one that
/// [`Handle::service`](crate::Handle::service) returns; clones share the server.
#[derive(Clone)]
pub struct ApiService {
    api: Arc<Api>,
    access: Access,
}

impl ApiService {
    pub(crate) fn new(api: Arc<Api>, access: Access) -> Self {
        Self { api, access }
    }
}

impl std::fmt::Debug for ApiService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiService")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (api, access) = (Arc::clone(&self.api), self.access);
        Box::pin(async move {
            // A defect in one request must not take the others down.
            let answered = AssertUnwindSafe(answer(api, access, request))
                .catch_unwind()
                .await;
            let result =
                answered.unwrap_or_else(|_| Err(Status::internal("the request made the server panic")));
            Ok(result.unwrap_or_else(|status| failure(&status)))
        })
    }
}

async fn answer<B>(api: Arc<Api>, access: Access, request: Request<B>) -> Result<Response<Body>, Status>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if head.method == Method::GET
        && let Some(response) = open_to_all(path)
    {
        return Ok(response);
    }
    let caller = match access {
        Access::InProcess => Caller::in_process(),
        Access::Network => api
            .authenticator
            .authenticate(&head.headers, &api.store, api.now())?,
    };
    let caller = caller.impersonating(&head.headers)?;
    if head.method == Method::GET
        && let Some(response) = documents(&api, &head)
    {
        return Ok(response);
    }
    let path = ResourcePath::parse(path).ok_or_else(Status::no_such_resource)?;
    let body = read(body).await?;
    let content_type = head
        .headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if let Some(review) = reviews::find(&path.group, &path.version, &path.plural) {
        if head.method != Method::POST || !path.name.is_empty() {
            return Err(Status::method_not_allowed(
                review.group,
                review.plural,
                &head.method.as_str().to_lowercase(),
            ));
        }
        return reviews::create(review, &api, &caller, &body, content_type);
    }
    let target = target(&api, &path)?;
    let call = Call {
        target,
        caller,
        path,
        query: Query::parse(head.uri.query()),
        headers: head.headers,
        body,
        warnings: parking_lot::Mutex::default(),
        api,
    };
    rest::handle(call, &head.method).await
}

/// The resource of a path, whose scope must fit.
fn target(api: &Api, path: &ResourcePath) -> Result<Target, Status> {
    let target = api
        .catalog
        .load()
        .find(&path.group, &path.version, &path.plural)
        .ok_or_else(Status::no_such_resource)?;
    let namespaced = target.resource.namespaced;
    let misplaced = if namespaced {
        path.namespace.is_empty() && !path.name.is_empty()
    } else {
        !path.namespace.is_empty()
    };
    if misplaced {
        Err(Status::no_such_resource())
    } else {
        Ok(target)
    }
}

async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, limits::REQUEST_BODY_MAX_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!(
                "Request entity too large: limit is {}",
                limits::REQUEST_BODY_MAX_BYTES
            );
            Err(Status::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                message,
            ))
        }
        Err(error) => Err(Status::bad_request(format!(
            "the body could not be read: {error}"
        ))),
    }
}

/// Paths that need no token.
fn open_to_all(path: &str) -> Option<Response<Body>> {
    match path.trim_end_matches('/') {
        "/healthz" | "/livez" | "/readyz" => {
            Some(with_type(StatusCode::OK, "text/plain; charset=utf-8", "ok"))
        }
        "/version" => Some(discovery::version()),
        _ => None,
    }
}

/// Paths below which there are documents, not resources.
fn documents(api: &Api, head: &http::request::Parts) -> Option<Response<Body>> {
    let catalog = api.catalog.load();
    let accept = head
        .headers
        .get(http::header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let segments: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
    match segments.as_slice() {
        [""] => Some(json_value(
            StatusCode::OK,
            &json!({"paths": ["/api", "/apis", "/openapi/v3", "/version"]}),
        )),
        ["api"] => Some(discovery::root(&catalog, accept, true)),
        ["apis"] => Some(discovery::root(&catalog, accept, false)),
        ["api", version] => discovery::resources(&catalog, "", version),
        ["apis", group] => discovery::group(&catalog, group),
        ["apis", group, version] => discovery::resources(&catalog, group, version),
        ["openapi", "v2"] if accept.contains("protobuf") => Some(openapi::version_2()),
        ["openapi", "v3"] => Some(openapi::index(&catalog)),
        ["openapi", "v3", "api", version] => openapi::document(&catalog, "", version),
        ["openapi", "v3", "apis", group, version] => openapi::document(&catalog, group, version),
        ["openid", "v1", "jwks"] => Some(json_value(StatusCode::OK, &api.authenticator.signer().key_set())),
        [".well-known", "openid-configuration"] => Some(json_value(
            StatusCode::OK,
            &json!({
                "issuer": ISSUER, "jwks_uri": "/openid/v1/jwks", "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
            }),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::atomic::Ordering;
    use std::time::SystemTime;

    use arc_swap::ArcSwap;
    use http_body_util::Full;
    use serde_json::Value;
    use tokio_util::sync::CancellationToken;
    use tower::Service;

    use super::*;
    use crate::auth::Authenticator;
    use crate::catalog::Catalog;
    use crate::store::breakable::breakable;

    async fn send(service: &ApiService, method: Method, uri: &str, body: &Value) -> (u16, Value) {
        let body = Full::new(Bytes::from(body.to_string()));
        let request = Request::builder().method(method).uri(uri).body(body).unwrap();
        let response = service.clone().call(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap())
    }

    /// Writes while the disk fails with `kind`: the answer to the write, and to reads before it is mended.
    async fn write_to_a_failing_disk(kind: ErrorKind) -> (u16, Value) {
        let directory = tempfile::tempdir().unwrap();
        let (store, broken) = breakable(kind);
        let api = Arc::new(Api {
            catalog: ArcSwap::from_pointee(Catalog::built_in()),
            store,
            authenticator: Authenticator::open(directory.path()).unwrap(),
            clock: Arc::new(SystemTime::now),
            exclusive: tokio::sync::Mutex::default(),
            stopping: CancellationToken::new(),
        });
        crate::seed::seed(&api, &[]).await.unwrap();
        let service = ApiService::new(api, Access::InProcess);
        let maps = "/api/v1/namespaces/default/configmaps";
        let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        assert_eq!(send(&service, Method::POST, maps, &map("a")).await.0, 201);
        broken.store(true, Ordering::SeqCst);
        let refused = send(&service, Method::POST, maps, &map("b")).await;
        assert_eq!(
            send(&service, Method::GET, &format!("{maps}/a"), &Value::Null)
                .await
                .0,
            200
        );
        assert_eq!(
            send(&service, Method::GET, &format!("{maps}/b"), &Value::Null)
                .await
                .0,
            404
        );
        broken.store(false, Ordering::SeqCst);
        assert_eq!(
            send(&service, Method::POST, maps, &map("b")).await.0,
            201,
            "the disk is mended"
        );
        refused
    }

    #[tokio::test]
    async fn a_full_disk_is_507_for_writes_and_nothing_for_reads() {
        let (code, status) = write_to_a_failing_disk(ErrorKind::StorageFull).await;
        assert_eq!((code, &status["reason"]), (507, &json!("InsufficientStorage")));
        assert!(
            status["message"]
                .as_str()
                .unwrap()
                .starts_with("the change was not stored, the disk takes no more data")
        );
    }

    #[tokio::test]
    async fn a_broken_disk_is_500_for_writes_and_nothing_for_reads() {
        let (code, status) = write_to_a_failing_disk(ErrorKind::Other).await;
        assert_eq!((code, &status["reason"]), (500, &json!("InternalError")));
    }
}
