//! How one service asks another: a GET with forwarded headers and a time limit.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client as PooledClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

use crate::limits::{IDLE_CONNECTION_TIMEOUT, MAX_RESPONSE_BODY_BYTES};

/// A client that keeps its connections for a while.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: PooledClient<HttpConnector, Empty<Bytes>>,
}

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = PooledClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
            .build(connector);
        Self { pool }
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
