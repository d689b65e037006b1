//! `v1 Pod`: the server's own view of the workloads that run. Users read it; only the server side writes it.

use serde_json::{Value, json};

use super::{BuiltInKind, age, column, name, wide};

pub(super) const KIND: BuiltInKind = BuiltInKind {
    short_names: &["po"],
    categories: &["all"],
    has_status: true,
    read_only: true,
    columns: &[
        column("Name", "string"),
        column("Ready", "string"),
        column("Status", "string"),
        column("Restarts", "string"),
        column("Age", "string"),
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells: |object, now| {
        let statuses = object["status"]["containerStatuses"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ready = statuses.iter().filter(|status| status["ready"] == true).count();
        let total = object["spec"]["containers"].as_array().map_or(0, Vec::len);
        let restarts: u64 = statuses
            .iter()
            .filter_map(|status| status["restartCount"].as_u64())
            .sum();
        vec![
            name(object),
            format!("{ready}/{total}").into(),
            status(object, statuses),
            restarts.to_string().into(),
            age(object, now),
            or_none(&object["status"]["podIP"]),
            or_none(&object["spec"]["nodeName"]),
            or_none(&object["status"]["nominatedNodeName"]),
            json!("<none>"),
        ]
    },
    selectable_fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "spec.hostNetwork",
    ],
    ..BuiltInKind::plain("", "v1", "pods", "pod", "Pod", "io.k8s.api.core.v1.Pod")
};

/// The phase, or why a container waits or ended.
fn status(object: &Value, containers: &[Value]) -> Value {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return json!("Terminating");
    }
    let mut reasons = containers.iter().flat_map(|container| {
        [
            &container["state"]["waiting"]["reason"],
            &container["state"]["terminated"]["reason"],
        ]
    });
    let reason = reasons.rfind(|reason| reason.is_string());
    reason
        .or(Some(&object["status"]["reason"]).filter(|reason| reason.is_string()))
        .unwrap_or(&object["status"]["phase"])
        .clone()
}

fn or_none(value: &Value) -> Value {
    if value.is_string() {
        value.clone()
    } else {
        json!("<none>")
    }
}
