//! Requests and answers as the handlers see them: whole, small, in memory.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::Value;

/// A request whose body has been read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// The segments of the path, without empty ones: `/reviews/0` is `["reviews", "0"]`.
    pub(crate) fn path(&self) -> Vec<&str> {
        self.uri
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect()
    }
}

/// What an answer carries: bytes, and trailers where it is gRPC's.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body {
    /// Bytes with trailers behind them.
    pub(crate) fn with_trailers(bytes: Bytes, trailers: HeaderMap) -> Self {
        Self {
            bytes: Some(bytes),
            trailers: Some(trailers),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes: Some(bytes).filter(|bytes| !bytes.is_empty()),
            trailers: None,
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.bytes.take().map(Frame::data);
        let frame = bytes.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

pub(crate) type Reply = Response<Body>;

/// What each of the HTTP services is: a function from request to answer.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, value: &Value) -> Reply {
    respond(status, "application/json", value.to_string())
}

/// An answer of `{"error": ...}`.
pub(crate) fn error(status: StatusCode, message: &str) -> Reply {
    json(status, &serde_json::json!({ "error": message }))
}

/// An answer of text, `content_type` says which kind.
pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Body::from(body.into()));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// The answer to a path that does not exist.
pub(crate) fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "not found")
}

/// The product id in a path, or the answer that refuses it: bookinfo wants a number.
pub(crate) fn product_id(segment: &str) -> Result<u64, Box<Reply>> {
    segment.parse().map_err(|_| {
        Box::new(error(
            StatusCode::BAD_REQUEST,
            "please provide numeric product id",
        ))
    })
}
