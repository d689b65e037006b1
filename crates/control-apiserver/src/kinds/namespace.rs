//! `v1 Namespace`.

use serde_json::{Value, json};

use super::{BuiltInKind, Preparation, age, column, name};
use crate::status::Status;

/// The finalizer in `spec.finalizers` that holds a namespace until its content is gone.
pub(crate) const FINALIZER: &str = "kubernetes";

/// Namespaces that every server has.
pub(crate) const INITIAL: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// Namespaces that nobody may delete.
pub(crate) const PERMANENT: &[&str] = &["default", "kube-public", "kube-system"];

pub(super) const KIND: BuiltInKind = BuiltInKind {
    short_names: &["ns"],
    namespaced: false,
    has_status: true,
    columns: &[
        column("Name", "string"),
        column("Status", "string"),
        column("Age", "string"),
    ],
    cells: |object, now| vec![name(object), object["status"]["phase"].clone(), age(object, now)],
    selectable_fields: &["status.phase"],
    prepare,
    ..BuiltInKind::plain(
        "",
        "v1",
        "namespaces",
        "namespace",
        "Namespace",
        "io.k8s.api.core.v1.Namespace",
    )
};

/// New namespaces are Active; each carries its own name as a label.
fn prepare(object: &mut Value, old: Option<&Value>, _: &Preparation<'_>) -> Result<(), Status> {
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name(object);
    match old {
        None => {
            object["spec"] = json!({"finalizers": [FINALIZER]});
            object["status"] = json!({"phase": "Active"});
        }
        Some(old) => {
            object["spec"]["finalizers"] = old["spec"]["finalizers"].clone();
        }
    }
    Ok(())
}
