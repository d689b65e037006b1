//! Workloads shown as Pods, so that people see them.

use std::collections::BTreeSet;

use control_apiserver::TrustedWriter;
use control_snapshot::Kind;
use control_sources::pod_view::pod_of;
use control_sources::watch::{Change, VIEW_ANNOTATION};
use serde_json::Value;
use tokio::sync::mpsc;

/// Changes of workloads that may wait to be shown.
const SHOWN_QUEUE: usize = 1024;

/// Shows a change, if it is one of a workload. Showing workloads must not hold back the mesh; what is dropped is shown
/// with the next change.
pub(super) fn report(shown: &mpsc::Sender<Change>, change: &Change) {
    let (Change::Apply { kind, .. } | Change::Delete { kind, .. } | Change::Synced { kind }) = change;
    if *kind == Kind::WorkloadEntry && shown.try_send(change.clone()).is_err() {
        tracing::warn!("workloads change faster than they can be shown");
    }
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
