//! Workloads shown as Pods, so that `kubectl get pods` lists what runs. For people only: the watches skip these Pods.

use serde_json::{Value, json};

use crate::watch::VIEW_ANNOTATION;

/// The Pod that shows a WorkloadEntry.
#[must_use]
pub fn pod_of(entry: &Value) -> Value {
    let meta = &entry["metadata"];
    let address = entry["spec"]["address"].as_str().unwrap_or_default();
    let started = &meta["creationTimestamp"];
    let ready = is_ready(entry);
    let flag = if ready { "True" } else { "False" };
    let app = meta["labels"]["app"].as_str().unwrap_or("app");
    let registered = meta["annotations"]["istio.io/autoRegistrationGroup"].is_string();
    let names = std::iter::once(app).chain(registered.then_some("istio-proxy"));
    let containers: Vec<_> = names
        .clone()
        .map(|name| json!({"name": name, "image": "process"}))
        .collect();
    let statuses: Vec<_> = names
        .map(|name| {
            json!({
                "name": name, "image": "process", "imageID": "", "restartCount": 0,
                "ready": ready || name == "istio-proxy", "started": true,
                "state": {"running": {"startedAt": started}},
            })
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": meta["labels"],
            "annotations": {VIEW_ANNOTATION: format!("WorkloadEntry/{}", meta["name"].as_str().unwrap_or_default())},
            "ownerReferences": [{
                "apiVersion": entry["apiVersion"], "kind": entry["kind"],
                "name": meta["name"], "uid": meta["uid"], "controller": true,
            }],
        },
        "spec": {
            "containers": containers,
            "serviceAccountName": entry["spec"]["serviceAccount"].as_str().unwrap_or("default"),
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": started,
            "conditions": [
                {"type": "Ready", "status": flag},
                {"type": "ContainersReady", "status": flag},
            ],
            "containerStatuses": statuses,
        },
    })
}

/// Whether the entry gets traffic: its health is not checked, or is reported as good.
fn is_ready(entry: &Value) -> bool {
    let conditions = entry["status"]["conditions"].as_array().into_iter().flatten();
    let healthy = conditions
        .clone()
        .find(|c| c["type"] == "Healthy")
        .map(|c| c["status"] == "True");
    let checked = entry["metadata"]["annotations"]["proxy.istio.io/health-checks-enabled"] == "true";
    healthy.unwrap_or(!checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_shown_with_its_address_and_its_health() {
        let mut entry = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {
                "name": "reviews-v1-127.66.0.4", "namespace": "default", "uid": "u",
                "labels": {"app": "reviews"},
                "annotations": {
                    "istio.io/autoRegistrationGroup": "reviews-v1",
                    "proxy.istio.io/health-checks-enabled": "true",
                },
            },
            "spec": {"address": "127.66.0.4"},
        });
        let pod = pod_of(&entry);
        assert_eq!(pod["status"]["podIP"], "127.66.0.4");
        assert_eq!(pod["spec"]["containers"][0]["name"], "reviews");
        let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"].clone();
        assert_eq!(ready(&pod), false);
        entry["status"] = json!({"conditions": [{"type": "Healthy", "status": "True"}]});
        assert_eq!(ready(&pod_of(&entry)), true);
    }
}
