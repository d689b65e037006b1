//! The HTTP upstream, for HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::header::{HeaderMap, HeaderName};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::connection::{Caller, Front};
use super::{NAME_HEADER, PEER_HEADER, PROTOCOL_HEADER, SERVER_NAME_HEADER, Seen};
use crate::limits::{MAX_BODY_BYTES, MAX_UPSTREAM_DELAY};

/// Answers connections until the runtime ends.
pub(super) async fn serve(listener: TcpListener, front: Front, name: String) {
    let name: Arc<str> = name.into();
    while let Ok((connection, _)) = listener.accept().await {
        let (name, front) = (Arc::clone(&name), front.clone());
        tokio::spawn(async move {
            // A connection that fails or ends early is the proxy's business; the exchange shows what came of it.
            let Ok((connection, caller)) = front.accept(connection).await else {
                return;
            };
            let service = service_fn(|request| answer(request, Arc::clone(&name), caller.clone()));
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http2().enable_connect_protocol();
            let _ = builder
                .serve_connection_with_upgrades(TokioIo::new(connection), service)
                .await;
        });
    }
}

/// What an answer carries.
type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    mut request: Request<Incoming>,
    name: Arc<str>,
    caller: Caller,
) -> Result<Response<Body>, Infallible> {
    if let Some(agreed) = websocket(&mut request, &name) {
        return Ok(agreed);
    }
    let (head, body) = request.into_parts();
    let protocol = match head.version {
        hyper::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1",
    };
    let _ = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let authority = head.uri.authority().map(ToString::to_string);
    let seen = Seen {
        upstream: name.to_string(),
        method: head.method.to_string(),
        path: head
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned(),
        authority: authority
            .or_else(|| head.headers.get("host").map(text))
            .unwrap_or_default(),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .chain(learnt(&caller))
            .collect(),
    };
    tokio::time::sleep(delay(&seen.path)).await;
    let call = scripted(&seen.path, "call").and_then(|text| text.parse().ok());
    let body = Full::from(serde_json::to_vec(&seen).unwrap_or_default());
    let body = match call.clone() {
        None => body.boxed(),
        Some(status) => {
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
            body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed()
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status(&seen.path);
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        hyper::header::HeaderValue::from_static(match call {
            None => "application/json",
            Some(_) => "application/grpc",
        }),
    );
    headers.insert(
        "x-powered-by",
        hyper::header::HeaderValue::from_static("casebook"),
    );
    headers.insert(PROTOCOL_HEADER, hyper::header::HeaderValue::from_static(protocol));
    if let Some(status) = scripted(&seen.path, "grpc").and_then(|text| text.parse().ok()) {
        headers.insert("grpc-status", status);
    }
    if let Ok(value) = name.parse() {
        headers.insert(NAME_HEADER, value);
    }
    Ok(response)
}

/// Agrees to WebSocket, where that is asked for, and answers each line with the upstream's name and the line. Frames are
/// nobody's business here: a proxy does not look at them.
fn websocket(request: &mut Request<Incoming>, name: &Arc<str>) -> Option<Response<Body>> {
    let by_http1 = request
        .headers()
        .get("upgrade")
        .is_some_and(|protocol| protocol == "websocket");
    let by_http2 = request.extensions().get::<Protocol>().is_some();
    if !by_http1 && !by_http2 {
        return None;
    }
    let (upgraded, said_by) = (hyper::upgrade::on(request), Arc::clone(name));
    tokio::spawn(async move {
        let Ok(connection) = upgraded.await else { return };
        let (reader, mut writer) = tokio::io::split(TokioIo::new(connection));
        let mut lines = BufReader::new(reader.take(MAX_BODY_BYTES as u64)).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = format!("{said_by} {line}\n");
            if writer.write_all(answer.as_bytes()).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::builder()
        .header(PROTOCOL_HEADER, if by_http2 { "HTTP/2" } else { "HTTP/1" })
        .header(NAME_HEADER, &**name);
    if by_http1 {
        response = response
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
    }
    response.body(Full::default().boxed()).ok()
}

/// What the connection tells about the caller.
fn learnt(caller: &Caller) -> impl Iterator<Item = (String, String)> {
    let identity = caller.identity.clone().map(|id| (PEER_HEADER.to_owned(), id));
    let server_name = caller.server_name.clone();
    let server_name = server_name.map(|name| (SERVER_NAME_HEADER.to_owned(), name));
    identity.into_iter().chain(server_name)
}

/// What follows `/word/` at the beginning of a path.
fn scripted<'a>(path: &'a str, word: &str) -> Option<&'a str> {
    let rest = path.strip_prefix('/')?.strip_prefix(word)?.strip_prefix('/')?;
    rest.split(['/', '?']).next()
}

fn delay(path: &str) -> Duration {
    let delay = scripted(path, "delay").and_then(|text| text.parse::<api_istio::Duration>().ok());
    delay
        .map_or(Duration::ZERO, Duration::from)
        .min(MAX_UPSTREAM_DELAY)
}

fn status(path: &str) -> StatusCode {
    scripted(path, "status")
        .and_then(|text| text.parse().ok())
        .unwrap_or(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_script_the_answer() {
        assert_eq!(status("/status/418/x"), StatusCode::IM_A_TEAPOT);
        assert_eq!(status("/statuses/418"), StatusCode::OK);
        assert_eq!(delay("/delay/500ms?a"), Duration::from_millis(500));
        assert_eq!(delay("/delay/9h"), MAX_UPSTREAM_DELAY);
        assert_eq!(delay("/delay/soon"), Duration::ZERO);
    }
}
