//! What a cluster says about itself under the metadata key `istio`; telemetry and tools read it.

use api_envoy::envoy::config::core::v3::Metadata;
use control_snapshot::{Rule, Service};
use serde_json::{Map, Value, json};

use crate::extension;

/// The key.
pub(crate) const ISTIO: &str = "istio";

/// Metadata of a cluster of this service.
pub(super) fn of(service: &Service, rule: Option<&Rule>, subset: &str) -> Metadata {
    let mut fields = Map::new();
    if let Some(rule) = rule {
        fields.insert("config".to_owned(), rule.config.path().into());
    }
    if !subset.is_empty() {
        fields.insert("subset".to_owned(), subset.into());
    }
    // Istio marks the cluster of the whole service only.
    if service.external && subset.is_empty() {
        fields.insert("external".to_owned(), true.into());
    }
    let name = json!({"host": &*service.hostname, "name": &*service.name, "namespace": &*service.namespace});
    fields.insert("services".to_owned(), Value::Array(vec![name]));
    extension::metadata(ISTIO, &Value::Object(fields))
}
