//! Workloads: registered as their streams come and go, and shown as Pods.

use std::collections::BTreeSet;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::wkt;
use control_apiserver::TrustedWriter;
use control_discovery::StreamEvent;
use control_snapshot::Proxy;
use control_sources::pod_view::pod_of;
use control_sources::registration::{self, Announcement, Belonging, Registrar};
use control_sources::watch::{Change, VIEW_ANNOTATION};
use serde_json::Value;
use tokio::sync::mpsc;

/// Changes of workloads that may wait to be shown.
const SHOWN_QUEUE: usize = 1024;

/// Hands stream events of workloads to the registrar.
pub(super) async fn register(mut heard: mpsc::Receiver<StreamEvent>, registrar: Registrar) {
    while let Some(event) = heard.recv().await {
        let event = match event {
            StreamEvent::Connected { stream, proxy, node } => {
                let Some(announcement) = announcement(&proxy, &node) else {
                    continue;
                };
                registration::StreamEvent::Connected { stream, announcement }
            }
            StreamEvent::Disconnected { stream } => registration::StreamEvent::Disconnected { stream },
            StreamEvent::Health {
                stream,
                healthy,
                message,
            } => registration::StreamEvent::Health {
                stream,
                healthy,
                message,
            },
        };
        registrar.report(event).await;
    }
}

/// `None` for proxies that belong to no group and no entry, such as those of Pods.
fn announcement(proxy: &Proxy, node: &Node) -> Option<Announcement> {
    let metadata = node.metadata.as_ref().map(wkt::json_struct).unwrap_or_default();
    let belonging = match (
        proxy.auto_register_group.as_ref(),
        metadata["WORKLOAD_ENTRY"].as_str(),
    ) {
        ("", None | Some("")) => return None,
        ("", Some(entry)) => Belonging::Entry(entry.to_owned()),
        (group, _) => Belonging::Group(group.to_owned()),
    };
    let config: Value = serde_json::from_str(&proxy.profile.proxy_config).unwrap_or_default();
    let locality = &proxy.locality;
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    let parts: Vec<&str> = parts
        .into_iter()
        .map(AsRef::as_ref)
        .take_while(|part: &&str| !part.is_empty())
        .collect();
    Some(Announcement {
        namespace: proxy.profile.namespace.to_string(),
        belonging,
        address: proxy
            .addresses
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        network: proxy.network.to_string(),
        labels: proxy.profile.labels.clone(),
        locality: parts.join("/"),
        health_checked: config["readinessProbe"].is_object(),
    })
}

/// Shows WorkloadEntries as Pods; send it their changes.
pub(super) fn show(store: TrustedWriter) -> mpsc::Sender<Change> {
    let (sender, mut changes) = mpsc::channel(SHOWN_QUEUE);
    tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while let Some(change) = changes.recv().await {
            match change {
                Change::Apply { object, .. } => {
                    let pod = pod_of(&object);
                    seen.insert(key(&pod));
                    if let Err(status) = store.put(&pod).await {
                        tracing::warn!(%status, "workload not shown as a Pod");
                    }
                }
                Change::Delete { namespace, name, .. } => remove(&store, &namespace, &name).await,
                Change::Synced { .. } => remove_stale(&store, &seen).await,
            }
        }
    });
    sender
}

/// Pods whose WorkloadEntries went away while nobody watched.
async fn remove_stale(store: &TrustedWriter, seen: &BTreeSet<(String, String)>) {
    for pod in store.list("v1", "Pod", "").unwrap_or_default() {
        let (namespace, name) = key(&pod);
        let view = pod["metadata"]["annotations"][VIEW_ANNOTATION].is_string();
        if view && !seen.contains(&(namespace.clone(), name.clone())) {
            remove(store, &namespace, &name).await;
        }
    }
}

async fn remove(store: &TrustedWriter, namespace: &str, name: &str) {
    if let Err(status) = store.delete("v1", "Pod", namespace, name).await {
        tracing::warn!(%status, "a workload that is gone is still shown as a Pod");
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
