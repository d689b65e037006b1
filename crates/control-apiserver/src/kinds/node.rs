//! `v1 Node`.

use serde_json::{Value, json};

use super::{BuiltInKind, age, column, name, wide};

pub(super) const KIND: BuiltInKind = BuiltInKind {
    short_names: &["no"],
    namespaced: false,
    has_status: true,
    columns: &[
        column("Name", "string"),
        column("Status", "string"),
        column("Roles", "string"),
        column("Age", "string"),
        column("Version", "string"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: |object, now| {
        let info = &object["status"]["nodeInfo"];
        vec![
            name(object),
            readiness(object).into(),
            roles(object).into(),
            age(object, now),
            info["kubeletVersion"].as_str().unwrap_or_default().into(),
            address(object, "InternalIP"),
            address(object, "ExternalIP"),
            known(&info["osImage"]),
            known(&info["kernelVersion"]),
            known(&info["containerRuntimeVersion"]),
        ]
    },
    selectable_fields: &["spec.unschedulable"],
    ..BuiltInKind::plain("", "v1", "nodes", "node", "Node", "io.k8s.api.core.v1.Node")
};

fn readiness(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions
        .filter(|condition| condition["type"] == "Ready")
        .map(|condition| &condition["status"])
        .next();
    let mut text = match ready.and_then(Value::as_str) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(object: &Value) -> String {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn address(object: &Value, kind: &str) -> Value {
    let addresses = object["status"]["addresses"].as_array().into_iter().flatten();
    let found = addresses
        .filter(|address| address["type"] == kind)
        .map(|address| address["address"].clone())
        .next();
    found.unwrap_or_else(|| json!("<none>"))
}

fn known(value: &Value) -> Value {
    if value.is_string() {
        value.clone()
    } else {
        json!("<unknown>")
    }
}
