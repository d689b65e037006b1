//! The HTTP server that the services share. It speaks HTTP/1 and, with prior knowledge, HTTP/2.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{MAX_CONNECTIONS, MAX_REQUEST_BODY_BYTES, SHUTDOWN_GRACE};
use crate::reply::{Handler, Reply, Request, error};

/// Accepts connections until `shutdown`, then lets running requests finish.
pub(crate) async fn run<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted?,
            () = &mut shutdown => break,
        };
        serve_connection(accepted, Arc::clone(&handler), &graceful);
    }
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((connection, _)) => return Ok((connection, permit)),
            // Out of descriptors, or a client that left while it waited: the listener itself is fine.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

fn serve_connection<H: Handler>(
    (connection, permit): (TcpStream, OwnedSemaphorePermit),
    handler: Arc<H>,
    graceful: &GracefulShutdown,
) {
    let _ = connection.set_nodelay(true);
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, std::convert::Infallible>(answer(&*handler, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    let connection = builder
        .serve_connection(TokioIo::new(connection), service)
        .into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
        drop(permit);
    });
}

async fn answer(handler: &impl Handler, request: hyper::Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_REQUEST_BODY_BYTES).collect().await else {
        return error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request body is too large or was cut short",
        );
    };
    let head = parts.method == Method::HEAD;
    let method = if head { Method::GET } else { parts.method };
    let request = Request {
        method,
        uri: parts.uri,
        headers: parts.headers,
        body: body.to_bytes(),
    };
    handler.handle(request).await
}
