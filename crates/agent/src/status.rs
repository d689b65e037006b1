//! The agent's own page for a workload, on the port where Istio's agent has its status: `/metrics`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::certificates::{Clock, State};
use crate::metrics::Metrics;

/// The port on the workload's address (Istio's).
pub const STATUS_PORT: u16 = 15020;

/// What the page shows.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) clock: Clock,
}

/// Serves the page on the workload's address, for ever. A workload does without it where the port is taken.
pub(crate) async fn serve(address: Ipv4Addr, pages: Pages) {
    let address = SocketAddr::new(address.into(), STATUS_PORT);
    let served = match TcpListener::bind(address).await {
        Ok(listener) => axum::serve(listener, router(pages)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::warn!(%address, %error, "the agent's metrics are not served");
    }
}

fn router(pages: Pages) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(pages)
}

async fn metrics(Shared(pages): Shared<Pages>) -> Response {
    let text = pages
        .metrics
        .print(&pages.state.borrow().expiries(), (pages.clock)());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn the_page_shows_what_is_counted() {
        let (_sender, state) = watch::channel(State::default());
        let pages = Pages {
            metrics: Arc::default(),
            state,
            clock: Arc::new(SystemTime::now),
        };
        pages.metrics.file_failed();
        let ask = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            router(pages.clone()).oneshot(request)
        };
        let answer = ask("/metrics").await.unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; version=0.0.4");
        let body = to_bytes(answer.into_body(), 1 << 16).await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("num_file_secret_failures_total 1\n"), "{text}");
        assert_eq!(ask("/other").await.unwrap().status(), StatusCode::NOT_FOUND);
    }
}
