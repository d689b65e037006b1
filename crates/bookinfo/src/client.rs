//! How one service asks another: a GET, or a gRPC call, with forwarded headers and a time limit.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue, TE};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client as PooledClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use serde_json::Value;

use crate::grpc;
use crate::limits::{IDLE_CONNECTION_TIMEOUT, MAX_RESPONSE_BODY_BYTES};

/// A client that keeps its connections for a while.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: PooledClient<HttpConnector, Empty<Bytes>>,
    calls: PooledClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = PooledClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
            .build(connector.clone());
        let calls = PooledClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
            .http2_only(true)
            .build(connector);
        Self { pool, calls }
    }

    /// Gets `url`. `None` when there was no complete answer in time; a body that is not JSON reads as null.
    pub(crate) async fn get(
        &self,
        url: &str,
        headers: &HeaderMap,
        limit: Duration,
    ) -> Option<(StatusCode, Value)> {
        let answered = tokio::time::timeout(limit, self.fetch(url, headers)).await;
        match answered {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::warn!(url, error, "no answer");
                None
            }
            Err(_elapsed) => {
                tracing::warn!(url, ?limit, "no answer in time");
                None
            }
        }
    }

    /// Calls a method of the service at `base`. `None` when it did not end well in time.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        (base, method): (&str, &str),
        headers: &HeaderMap,
        message: &impl Message,
        limit: Duration,
    ) -> Option<A> {
        let call = self.unary(format!("{base}{method}"), headers, grpc::frame(message), limit);
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::warn!(base, method, error, "the call failed");
                None
            }
            Err(_elapsed) => {
                tracing::warn!(base, method, ?limit, "no answer in time");
                None
            }
        }
    }

    async fn unary<A: Message + Default>(
        &self,
        url: String,
        headers: &HeaderMap,
        frame: Bytes,
        limit: Duration,
    ) -> Result<A, String> {
        let request = Request::post(url).body(Full::new(frame));
        let mut request = request.map_err(|error| error.to_string())?;
        let fields = request.headers_mut();
        fields.extend(headers.clone());
        fields.insert(CONTENT_TYPE, grpc::GRPC);
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(grpc::TIMEOUT, grpc::timeout(limit));
        let response = self.calls.request(request).await;
        let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BODY_BYTES).collect().await;
        let body = body.map_err(|error| error.to_string())?;
        let status = head.headers.get(grpc::STATUS);
        let status = status.or_else(|| body.trailers().and_then(|trailers| trailers.get(grpc::STATUS)));
        match status {
            Some(status) if status == "0" => {}
            Some(status) => {
                return Err(format!(
                    "gRPC status {}",
                    String::from_utf8_lossy(status.as_bytes())
                ));
            }
            None => return Err(format!("HTTP status {}, and no gRPC", head.status)),
        }
        grpc::message(&body.to_bytes()).ok_or_else(|| "the answer is no message".to_owned())
    }

    async fn fetch(&self, url: &str, headers: &HeaderMap) -> Result<(StatusCode, Value), String> {
        let mut request = Request::get(url)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        request.headers_mut().extend(headers.clone());
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("*/*"));
        let response = self
            .pool
            .request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BODY_BYTES);
        let body = body
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}
