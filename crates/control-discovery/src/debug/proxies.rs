//! Pages about connected proxies: `adsz`, `syncz`, `push_status`.

use api_envoy::{type_url, wkt};
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;
use xds::server::Watch;

use super::{Current, Pages, pretty};
use crate::connections::Connection;

/// Istio's `AdsClients`.
pub(super) async fn adsz(State(pages): State<Pages>) -> Response {
    let connections = pages.discovery.connections().all();
    let clients: Vec<_> = connections.iter().map(|c| client(c)).collect();
    pretty(&json!({"totalClients": clients.len(), "clients": clients}))
}

fn client(connection: &Connection) -> Value {
    let session = connection.session.lock();
    let watches: Map<String, Value> = session
        .stream()
        .watches()
        .map(|(type_url, watch)| (type_url.to_owned(), json!(watch.names())))
        .collect();
    let refused: Map<String, Value> = session
        .stream()
        .watches()
        .filter_map(|(type_url, watch)| Some((type_url.to_owned(), nack(watch)?)))
        .collect();
    let node = session.node();
    json!({
        "connectionId": format!("{}-{}", connection.proxy_name(), connection.stream),
        "connectedAt": connection.connected_at.format(&Rfc3339).unwrap_or_default(),
        "address": connection.peer.map(|p| p.to_string()).unwrap_or_default(),
        "delta": connection.variant == xds::Variant::Delta,
        "metadata": node.and_then(|n| n.metadata.as_ref()).map(wkt::json_struct),
        "locality": node.and_then(|n| n.locality.as_ref()).map(|l| json!({
            "region": l.region, "zone": l.zone, "subZone": l.sub_zone,
        })),
        "watches": watches,
        "rejected": refused,
    })
}

fn nack(watch: &Watch) -> Option<Value> {
    let nack = watch.nack()?;
    Some(json!({"message": nack.reason, "nonce": nack.nonce, "version": nack.version}))
}

/// The fields of Istio's `SyncStatus` for one type: name of the field, and the type.
const SYNCED: [(&str, &str); 5] = [
    ("cluster", type_url::CLUSTER),
    ("listener", type_url::LISTENER),
    ("route", type_url::ROUTE),
    ("endpoint", type_url::ENDPOINT),
    ("extensionconfig", type_url::EXTENSION_CONFIG),
];

/// Istio's `SyncStatus` of every proxy. Streams of agents, which get no configuration, are left out.
pub(super) async fn syncz(State(pages): State<Pages>) -> Response {
    let all: Vec<_> = pages
        .discovery
        .connections()
        .all()
        .iter()
        .filter_map(|c| sync_status(c))
        .collect();
    pretty(&all.into())
}

fn sync_status(connection: &Connection) -> Option<Value> {
    let session = connection.session.lock();
    let stream = session.stream();
    stream
        .watch(type_url::CLUSTER)
        .or(stream.watch(type_url::LISTENER))?;
    let metadata = session
        .node()
        .and_then(|n| n.metadata.as_ref())
        .map(wkt::json_struct)
        .unwrap_or_default();
    let mut status = Map::new();
    let mut put = |key: String, value: &str| {
        if !value.is_empty() {
            status.insert(key, value.into());
        }
    };
    put(
        "cluster_id".into(),
        metadata["CLUSTER_ID"].as_str().unwrap_or_default(),
    );
    put("proxy".into(), connection.proxy_name());
    put(
        "proxy_type".into(),
        connection.proxy_id.split('~').next().unwrap_or_default(),
    );
    put(
        "proxy_version".into(),
        metadata["ISTIO_VERSION"].as_str().unwrap_or_default(),
    );
    put(
        "istio_version".into(),
        metadata["ISTIO_VERSION"].as_str().unwrap_or_default(),
    );
    for (field, type_url) in SYNCED {
        let Some(watch) = stream.watch(type_url) else {
            continue;
        };
        put(format!("{field}_sent"), watch.nonce_sent());
        put(format!("{field}_acked"), watch.nonce_acked());
        // Ours: Istio's tools read the reason of a refusal from its log.
        put(
            format!("{field}_error"),
            watch.nack().map_or("", |nack| &nack.reason),
        );
    }
    Some(status.into())
}

/// What the last publication was, and who has not accepted it yet.
pub(super) async fn push_status(Current(publication): Current, State(pages): State<Pages>) -> Response {
    let mut pending = Vec::new();
    let mut refused = Map::new();
    for connection in pages.discovery.connections().all() {
        let session = connection.session.lock();
        if session.stream().watches().any(|(_, watch)| watch.is_pending()) {
            pending.push(connection.proxy_name().to_owned());
        }
        for (type_url, watch) in session.stream().watches() {
            if let Some(nack) = nack(watch) {
                refused.insert(
                    format!("{} {}", connection.proxy_name(), crate::metrics::short(type_url)),
                    nack,
                );
            }
        }
    }
    pretty(&json!({
        "version": &*publication.version,
        "sequence": publication.sequence,
        "pending": pending,
        "rejected": refused,
        "diagnostics": publication.snapshot.diagnostics().len(),
    }))
}
