//! The agent's own page, for a workload on the port where Istio's agent has its status: `/metrics`.

use std::net::SocketAddr;
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

/// What the page shows, asked anew each time.
pub(crate) type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// The page of one workload's certificate.
pub(crate) fn of_workload(metrics: Arc<Metrics>, state: watch::Receiver<State>, clock: Clock) -> Page {
    Arc::new(move || metrics.print(&state.borrow().expiries(), clock()))
}

/// Serves the page, for ever. Its agent does without it where the port is taken.
pub(crate) async fn serve(address: SocketAddr, page: Page) {
    let served = match TcpListener::bind(address).await {
        Ok(listener) => axum::serve(listener, router(page)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::warn!(%address, %error, "the agent's metrics are not served");
    }
}

fn router(page: Page) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(page)
}

async fn metrics(Shared(page): Shared<Page>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], page()).into_response()
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
        let metrics = Arc::<Metrics>::default();
        metrics.file_failed();
        let page = of_workload(metrics, state, Arc::new(SystemTime::now));
        let ask = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            router(Arc::clone(&page)).oneshot(request)
        };
        let answer = ask("/metrics").await.unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; version=0.0.4");
        let body = to_bytes(answer.into_body(), 1 << 16).await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("num_file_secret_failures_total 1\n"), "{text}");
        assert_eq!(ask("/other").await.unwrap().status(), StatusCode::NOT_FOUND);
    }
}
