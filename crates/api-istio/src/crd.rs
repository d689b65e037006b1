//! CustomResourceDefinitions of the fifteen kinds, made from the types.
//!
//! [`crds`] is what the embedded API server has built in. `crds/*.yaml` is the same as text, for `kubectl apply` and for
//! reading; it is written by `cargo run -p api-istio --bin generate-crds`, and a test holds it equal to [`crds`].

use serde_json::{Value, json};

use crate::kinds::{KINDS, Kind};
use crate::meta::IstioStatus;
use crate::schema::Schema;

/// The CustomResourceDefinition of every kind, in the order of [`KINDS`]. Schemas are moved into their place, not put
/// there by `json!`, which copies them anew on every level.
pub fn crds() -> Vec<Value> {
    KINDS.iter().map(crd).collect()
}

/// The CustomResourceDefinition of one kind.
pub fn crd(kind: &Kind) -> Value {
    let schema = schema(kind);
    let versions: Vec<Value> = kind
        .versions
        .iter()
        .map(|version| self::version(kind, version, &schema))
        .collect();
    let mut names = json!({
        "categories": ["istio-io", category(kind)],
        "kind": kind.kind,
        "listKind": format!("{}List", kind.kind),
        "plural": kind.plural,
        "singular": kind.kind.to_lowercase(),
    });
    if !kind.short_names.is_empty() {
        names["shortNames"] = json!(kind.short_names);
    }
    let mut crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": kind.crd_name() },
        "spec": { "group": kind.group, "names": names, "scope": "Namespaced" },
    });
    crd["spec"]["versions"] = versions.into();
    crd
}

/// `networking-istio-io` for the group `networking.istio.io`.
fn category(kind: &Kind) -> String {
    kind.group.replace('.', "-")
}

fn version(kind: &Kind, version: &str, schema: &Value) -> Value {
    let mut value = json!({
        "name": version,
        "served": true,
        "storage": version == kind.storage_version,
        "subresources": { "status": {} },
    });
    value["schema"]["openAPIV3Schema"] = schema.clone();
    if !kind.columns.is_empty() {
        value["additionalPrinterColumns"] = kind
            .columns
            .iter()
            .map(|column| {
                json!({
                    "description": column.description,
                    "jsonPath": column.json_path,
                    "name": column.name,
                    "type": column.kind,
                })
            })
            .collect();
    }
    value
}

/// Schema of a whole object, which is described as its spec is, for `kubectl explain KIND`; metadata is the API server's
/// to add. The status keeps what it does not name, such as
/// the addresses of a ServiceEntry.
fn schema(kind: &Kind) -> Value {
    let spec = (kind.spec)();
    let mut schema = json!({ "description": spec["description"], "type": "object" });
    schema["properties"]["spec"] = spec;
    schema["properties"]["status"] = IstioStatus::schema();
    if kind.spec_required {
        schema["required"] = json!(["spec"]);
    }
    schema
}
