//! The HTTP side: Istio's debug pages, metrics and readiness.

mod caller;
mod config_dump;
mod objects;
mod proxies;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connections::Connection;
use crate::metrics::Gauges;
use crate::serve::Discovery;
use crate::world::Publication;

pub use caller::Caller;

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

/// Every debug page: name, what it shows, and its handler.
fn pages() -> Vec<(&'static str, &'static str, MethodRouter<Pages>)> {
    vec![
        ("adsz", "ADS streams, and what each watches", get(proxies::adsz)),
        (
            "syncz",
            "what each proxy was sent and accepted",
            get(proxies::syncz),
        ),
        ("push_status", "the last publication", get(proxies::push_status)),
        (
            "config_dump",
            "one proxy's configuration",
            get(config_dump::config_dump),
        ),
        ("edsz", "one proxy's endpoints", get(config_dump::edsz)),
        ("ndsz", "one proxy's name table", get(config_dump::ndsz)),
        ("registryz", "all services", get(objects::registryz)),
        ("endpointz", "endpoints of all services", get(objects::endpointz)),
        ("configz", "all configuration objects", get(objects::configz)),
        ("mesh", "MeshConfig in force", get(objects::mesh)),
        (
            "diagnostics",
            "what is wrong with the configuration",
            get(objects::diagnostics),
        ),
    ]
}

/// The HTTP service. The debug pages are for requests whose [`ConnectInfo`](axum::extract::ConnectInfo) is
/// [`Caller::ThisHost`].
pub fn router(pages: Pages) -> Router {
    let mut debug = Router::new().route("/debug", get(index));
    for (name, _, handler) in self::pages() {
        debug = debug.route(&format!("/debug/{name}"), handler);
    }
    debug
        .route_layer(middleware::from_fn(caller::of_this_host))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/ready", get(ready))
        .with_state(pages)
}

/// The same for a server, which tells it who calls.
pub fn service(pages: Pages) -> IntoMakeServiceWithConnectInfo<Router, Caller> {
    router(pages).into_make_service_with_connect_info()
}

async fn index() -> Html<String> {
    let rows = pages().into_iter().map(|(name, about, _)| {
        format!("<tr><td><a href='/debug/{name}'>{name}</a></td><td>{about}</td></tr>\n")
    });
    Html(format!(
        "<html><head><title>Debug</title></head><body><table>\n{}</table>\n<p>Pages about one proxy want \
         ?proxyID=name.namespace.</p></body></html>\n",
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
    let mut text = pages.discovery.metrics().print(&gauges);
    if let Some(identities) = pages.discovery.identities() {
        text.push_str(&identities.print_metrics());
    }
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

fn pretty(value: &Value) -> Response {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The last publication; before the first there is nothing to show.
struct Current(Arc<Publication>);

impl FromRequestParts<Pages> for Current {
    type Rejection = (StatusCode, Json<Value>);

    async fn from_request_parts(_: &mut Parts, pages: &Pages) -> Result<Self, Self::Rejection> {
        let current = pages.discovery.world().current().map(Self);
        current.ok_or_else(|| {
            let error = json!({"error": "the world is not complete yet"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(error))
        })
    }
}

/// The proxy that a page is about, named by the query (`proxyID`).
struct Subject(Arc<Connection>);

impl FromRequestParts<Pages> for Subject {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, pages: &Pages) -> Result<Self, Self::Rejection> {
        let query = Query::<ProxyQuery>::try_from_uri(&parts.uri).unwrap_or_default();
        let Some(proxy) = &query.proxy_id else {
            let missing = "You must provide a proxyID in the query string";
            return Err((StatusCode::BAD_REQUEST, missing));
        };
        let found = pages.discovery.connections().find(proxy).map(Self);
        let unknown = "Proxy not connected to this control plane instance";
        found.ok_or((StatusCode::NOT_FOUND, unknown))
    }
}
