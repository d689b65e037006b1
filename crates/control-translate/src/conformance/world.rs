//! Reading a recorded world: Kubernetes objects, MeshConfig and Istio objects of a scenario.

use std::path::Path;

use api_istio::mesh::merge_mesh;
use control_snapshot::{Kind, Objects, Settings};
use serde_json::{Value, json};

use super::RecordingError;

/// The API server makes its own Service before anybody else makes anything.
const SERVER_CREATED: &str = "2019-12-31T00:00:00Z";
/// What existed before a scenario is older than what the scenario adds; age decides conflicts.
const BASE_CREATED: &str = "2020-01-01T00:00:00Z";
/// When the objects of a scenario were applied.
const SCENARIO_CREATED: &str = "2020-01-01T00:01:00Z";

/// The names of the folders in a folder, sorted.
pub(super) fn folders(dir: &Path) -> Result<Vec<String>, RecordingError> {
    let entries = std::fs::read_dir(dir).map_err(|e| RecordingError::Read(dir.to_owned(), e))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// A file as text.
fn text(file: &Path) -> Result<String, RecordingError> {
    std::fs::read_to_string(file).map_err(|e| RecordingError::Read(file.to_owned(), e))
}

/// A JSON file.
pub(super) fn json(file: &Path) -> Result<Value, RecordingError> {
    serde_json::from_str(&text(file)?).map_err(|e| RecordingError::Parse(file.to_owned(), e.to_string()))
}

/// The world of a scenario.
pub(super) fn load(dir: &Path, scenario: &str) -> Result<Objects, RecordingError> {
    let mut objects = Objects::new(Settings {
        identity: true,
        ..Settings::default()
    });
    let scenario = dir.join(scenario);
    let mut mesh = documents(&dir.join("mesh-base.yaml"))?.pop().unwrap_or_default();
    if scenario.join("mesh.yaml").exists() {
        let over = documents(&scenario.join("mesh.yaml"))?.pop().unwrap_or_default();
        merge_mesh(&mut mesh, over);
    }
    objects
        .set_mesh(&mesh.to_string())
        .map_err(|e| RecordingError::Parse(scenario.join("mesh.yaml"), e))?;
    apply(&mut objects, vec![kubernetes_service()], SERVER_CREATED);
    apply(&mut objects, documents(&dir.join("world.yaml"))?, BASE_CREATED);
    for file in ["objects.yaml", "config.yaml"] {
        let file = scenario.join(file);
        if file.exists() {
            apply(&mut objects, documents(&file)?, SCENARIO_CREATED);
        }
    }
    Ok(objects)
}

/// The API server's own Service, which every cluster has.
fn kubernetes_service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]},
    })
}

/// The documents of a YAML file that are not empty.
fn documents(file: &Path) -> Result<Vec<Value>, RecordingError> {
    let all: Vec<Value> = serde_saphyr::from_multiple(&text(file)?)
        .map_err(|e| RecordingError::Parse(file.to_owned(), e.to_string()))?;
    Ok(all.into_iter().filter(|v| !v.is_null()).collect())
}

/// Applies objects of kinds the mesh reads; others take no part in the comparison.
fn apply(objects: &mut Objects, documents: Vec<Value>, created: &str) {
    for mut document in documents {
        let text = |key: &str| {
            document
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let kind = Kind::parse(&text("apiVersion"), &text("kind"));
        if let Some(kind) = kind {
            document["metadata"]["creationTimestamp"] = created.into();
            objects.apply(kind, document);
        }
    }
}
