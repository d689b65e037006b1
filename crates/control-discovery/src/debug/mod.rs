//! The HTTP side: Istio's debug pages, metrics and readiness.

mod config_dump;
mod objects;
mod proxies;

use std::time::Instant;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::metrics::Gauges;
use crate::serve::Discovery;

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The server.
    pub discovery: Discovery,
    /// The version of this program.
    pub version: &'static str,
    /// When the process began.
    pub started: Instant,
}

/// The query of pages about one proxy.
#[derive(Debug, Default, Deserialize)]
struct ProxyQuery {
    #[serde(rename = "proxyID")]
    proxy_id: Option<String>,
}

/// Every debug page: path, what it shows, and its handler.
fn pages() -> Vec<(&'static str, &'static str, MethodRouter<Pages>)> {
    vec![
        (
            "/debug/adsz",
            "open ADS streams, with what each watches",
            get(proxies::adsz),
        ),
        (
            "/debug/syncz",
            "per proxy: what was sent and what was accepted",
            get(proxies::syncz),
        ),
        (
            "/debug/push_status",
            "the last publication",
            get(proxies::push_status),
        ),
        (
            "/debug/config_dump",
            "configuration of one proxy (?proxyID=name.namespace)",
            get(config_dump::config_dump),
        ),
        (
            "/debug/edsz",
            "endpoints of one proxy (?proxyID=name.namespace)",
            get(config_dump::edsz),
        ),
        (
            "/debug/ndsz",
            "name table of one proxy (?proxyID=name.namespace)",
            get(config_dump::ndsz),
        ),
        ("/debug/registryz", "all services", get(objects::registryz)),
        (
            "/debug/endpointz",
            "endpoints of all services",
            get(objects::endpointz),
        ),
        (
            "/debug/configz",
            "all configuration objects",
            get(objects::configz),
        ),
        ("/debug/mesh", "MeshConfig in force", get(objects::mesh)),
        (
            "/debug/diagnostics",
            "what is wrong with the configuration",
            get(objects::diagnostics),
        ),
    ]
}

/// The HTTP service.
pub fn router(pages: Pages) -> Router {
    let mut router = Router::new()
        .route("/debug", get(index))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/ready", get(ready));
    for (path, _, handler) in self::pages() {
        router = router.route(path, handler);
    }
    router.with_state(pages)
}

async fn index() -> Html<String> {
    let rows = pages()
        .into_iter()
        .map(|(path, about, _)| format!("<tr><td><a href='{path}'>{path}</a></td><td>{about}</td></tr>\n"));
    Html(format!(
        "<html><head><title>Debug</title></head><body><table>\n{}</table></body></html>\n",
        rows.collect::<String>()
    ))
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let current = pages.discovery.world().current();
    let snapshot = current.as_ref().map(|publication| &publication.snapshot);
    let gauges = Gauges {
        streams: pages.discovery.connections().count(),
        services: snapshot.map_or(0, |s| s.registry().services.len()),
        virtual_services: snapshot.map_or(0, |s| s.virtual_services().iter().count()),
        uptime: pages.started.elapsed(),
        version: pages.version,
    };
    let text = pages.discovery.metrics().print(&gauges);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn version(State(pages): State<Pages>) -> String {
    pages.version.to_owned()
}

/// Ready once the world is complete: proxies that come earlier wait.
async fn ready(State(pages): State<Pages>) -> StatusCode {
    match pages.discovery.world().current() {
        Some(_) => StatusCode::OK,
        None => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn bad_request(message: &str) -> Response {
    (StatusCode::BAD_REQUEST, message.to_owned()).into_response()
}

fn not_found(message: &str) -> Response {
    (StatusCode::NOT_FOUND, message.to_owned()).into_response()
}

fn pretty(value: &Value) -> Response {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// What a page says before the first publication.
fn not_ready() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        Json(json!({"error": "the world is not complete yet"})),
    )
        .into_response()
}

/// The connection that a page is about.
fn connection(
    pages: &Pages,
    query: &Query<ProxyQuery>,
) -> Result<std::sync::Arc<crate::connections::Connection>, Box<Response>> {
    let Some(proxy) = &query.proxy_id else {
        return Err(Box::new(bad_request(
            "You must provide a proxyID in the query string",
        )));
    };
    let found = pages.discovery.connections().find(proxy);
    found.ok_or_else(|| Box::new(not_found("Proxy not connected to this control plane instance")))
}
