//! Pages about the configuration of one proxy, in the shape of Envoy's `/config_dump` (`envoy.admin.v3.ConfigDump`).

use api_envoy::any::pack;
use api_envoy::envoy::admin::v3 as admin;
use api_envoy::json::{Schema, Style};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use xds::server::Outgoing;

use super::{Subject, pretty};
use crate::generate::Translated;
use crate::session::Session;

/// Clusters, listeners, routes and endpoints as the control plane has them for a proxy.
pub(super) async fn config_dump(Subject(connection): Subject) -> Response {
    let dump = {
        let session = connection.session.lock();
        session.translated().map(|translated| dump(&session, translated))
    };
    let dump = dump.unwrap_or_default();
    match Schema::get().print(&dump, Style::Canonical) {
        Ok(json) => pretty(&json),
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn dump(session: &Session, translated: &Translated) -> admin::ConfigDump {
    let version = session.publication().version.to_string();
    let clusters = translated
        .clusters
        .iter()
        .map(|c| admin::clusters_config_dump::DynamicCluster {
            version_info: version.clone(),
            cluster: Some((*c.body).clone()),
            ..Default::default()
        });
    let listeners = translated
        .listeners
        .iter()
        .map(|l| admin::listeners_config_dump::DynamicListener {
            name: l.name.to_string(),
            active_state: Some(admin::listeners_config_dump::DynamicListenerState {
                version_info: version.clone(),
                listener: Some((*l.body).clone()),
                ..Default::default()
            }),
            ..Default::default()
        });
    let routes = translated
        .routes
        .values()
        .map(|r| admin::routes_config_dump::DynamicRouteConfig {
            version_info: version.clone(),
            route_config: Some((*r.body).clone()),
            ..Default::default()
        });
    let endpoints =
        session
            .endpoints()
            .into_iter()
            .map(|e| admin::endpoints_config_dump::DynamicEndpointConfig {
                version_info: version.clone(),
                endpoint_config: Some((*e.body).clone()),
                ..Default::default()
            });
    let clusters = admin::ClustersConfigDump {
        version_info: version.clone(),
        dynamic_active_clusters: clusters.collect(),
        ..Default::default()
    };
    let listeners = admin::ListenersConfigDump {
        version_info: version.clone(),
        dynamic_listeners: listeners.collect(),
        ..Default::default()
    };
    let routes = admin::RoutesConfigDump {
        dynamic_route_configs: routes.collect(),
        ..Default::default()
    };
    let endpoints = admin::EndpointsConfigDump {
        dynamic_endpoint_configs: endpoints.collect(),
        ..Default::default()
    };
    admin::ConfigDump {
        configs: vec![pack(&clusters), pack(&listeners), pack(&routes), pack(&endpoints)],
    }
}

/// The endpoints a proxy subscribes to.
pub(super) async fn edsz(Subject(connection): Subject) -> Response {
    let endpoints = connection.session.lock().endpoints();
    let schema = Schema::get();
    pretty(&endpoints.iter().map(|e| print(&schema, e)).collect())
}

/// The name table of a proxy.
pub(super) async fn ndsz(Subject(connection): Subject) -> Response {
    let translated = connection.session.lock().translated().cloned();
    let names = translated.map(|translated| print(&Schema::get(), translated.name_table()));
    pretty(&names.unwrap_or_default())
}

fn print(schema: &Schema, resource: &Outgoing) -> Value {
    let printed = schema.print_any(&resource.body, Style::Canonical);
    printed.unwrap_or_else(|e| json!({"error": e.to_string()}))
}
