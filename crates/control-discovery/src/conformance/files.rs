//! Reading a folder of recordings.

use std::path::Path;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::json::{Schema, yaml_to_json};
use control_snapshot::Kind;
use serde_json::{Value, json};

use super::ReplayError;

fn read(path: &Path) -> Result<String, ReplayError> {
    std::fs::read_to_string(path).map_err(|source| ReplayError::Read {
        path: path.display().to_string(),
        source,
    })
}

fn malformed(path: &Path, reason: impl ToString) -> ReplayError {
    ReplayError::Malformed {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

pub(super) fn json(path: &Path) -> Result<Value, ReplayError> {
    serde_json::from_str(&read(path)?).map_err(|e| malformed(path, e))
}

/// Every object of the base world that the mesh reads.
pub(super) fn world(directory: &Path) -> Result<Vec<(Kind, Value)>, ReplayError> {
    let path = directory.join("world.yaml");
    let mut objects = Vec::new();
    for document in read(&path)?.split("\n---\n") {
        let object = yaml_to_json(document).map_err(|e| malformed(&path, e))?;
        let field = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        if let Some(kind) = Kind::parse(&field("apiVersion"), &field("kind")) {
            objects.push((kind, object));
        }
    }
    objects.push((Kind::Service, api_server_service()));
    let mesh = read(&directory.join("mesh-base.yaml"))?;
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": mesh},
    });
    objects.push((Kind::ConfigMap, config));
    Ok(objects)
}

/// The Service that every API server makes for itself.
fn api_server_service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    })
}

/// The node of this id among the recorded nodes.
pub(super) fn node(directory: &Path, id: &str) -> Result<Node, ReplayError> {
    let folder = directory.join("nodes");
    let name = id
        .split('~')
        .nth(2)
        .and_then(|name| name.split('.').next())
        .unwrap_or_default();
    let path = folder.join(format!("{name}.json"));
    Schema::get()
        .parse(&json(&path)?)
        .map_err(|e| malformed(&path, e))
}
