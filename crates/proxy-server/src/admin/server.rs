//! HTTP on the admin address. It runs on the main thread and serves few, trusted callers, hence hyper.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use super::handlers::answer;
use super::reply::Reply;
use super::source::AdminSource;
use crate::limits;

/// Serves until the task is dropped. Must run inside a `LocalSet`.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, source: Rc<dyn AdminSource>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    source.admin_bound(listener.local_addr()?);
    let permits = Arc::new(Semaphore::new(limits::MAX_ADMIN_CONNECTIONS));
    loop {
        // Further connections wait in the accept queue. Nobody closes the semaphore.
        let permit = Arc::clone(&permits).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(limits::REST_AFTER_ACCEPT_ERROR).await;
            continue;
        };
        let source = Rc::clone(&source);
        spawn_local(async move {
            let _permit = permit;
            let service = service_fn(move |request| respond(Rc::clone(&source), request));
            // A caller that goes away in the middle is no concern of ours.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    source: Rc<dyn AdminSource>,
    request: Request<Incoming>,
) -> Result<Response<http_body_util::Full<Bytes>>, Infallible> {
    let uri = request.uri();
    let reply = answer(
        Rc::clone(&source),
        request.method().as_str(),
        uri.path(),
        uri.query().unwrap_or_default(),
    )
    .await;
    source.answered();
    Ok(response(reply))
}

fn response(reply: Reply) -> Response<http_body_util::Full<Bytes>> {
    let body = http_body_util::Full::new(Bytes::from(reply.body));
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap_or_default();
    let headers = response.headers_mut();
    let text = hyper::header::HeaderValue::from_static;
    headers.insert("content-type", text(reply.content_type));
    headers.insert("cache-control", text("no-cache, max-age=0"));
    headers.insert("x-content-type-options", text("nosniff"));
    headers.insert("server", text("envoy"));
    response
}
