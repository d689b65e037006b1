//! The inputs: every object the mesh reads, parsed once when it arrives.
//!
//! An object that does not parse leaves the store and becomes a [`Diagnostic`]; the others are not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_istio::json::Json;
use api_istio::networking::{
    DestinationRule, Gateway, ServiceEntry, Sidecar, VirtualService, WorkloadEntry, WorkloadGroup,
};
use diagnostics::{Code, Diagnostic, ResourceRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{Config, ConfigMeta};
use crate::kubernetes::{ConfigMap, EndpointSlice, Namespace, Node, ObjectMeta, Pod, Service};
use crate::mesh::Mesh;
use crate::shared::Shared;

/// The kinds the mesh reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1/Namespace`.
    Namespace,
    /// `v1/Node`.
    Node,
    /// `v1/Service`.
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    EndpointSlice,
    /// `v1/Pod`.
    Pod,
    /// `v1/ConfigMap`, of which only MeshConfig is read.
    ConfigMap,
    /// `networking.istio.io/VirtualService`.
    VirtualService,
    /// `networking.istio.io/DestinationRule`.
    DestinationRule,
    /// `networking.istio.io/Gateway`.
    Gateway,
    /// `networking.istio.io/ServiceEntry`.
    ServiceEntry,
    /// `networking.istio.io/WorkloadEntry`.
    WorkloadEntry,
    /// `networking.istio.io/WorkloadGroup`.
    WorkloadGroup,
    /// `networking.istio.io/Sidecar`.
    Sidecar,
}

impl Kind {
    /// Every kind, with its API group and name.
    pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Namespace, "", "Namespace"),
        (Self::Node, "", "Node"),
        (Self::Service, "", "Service"),
        (Self::EndpointSlice, "discovery.k8s.io", "EndpointSlice"),
        (Self::Pod, "", "Pod"),
        (Self::ConfigMap, "", "ConfigMap"),
        (Self::VirtualService, "networking.istio.io", "VirtualService"),
        (Self::DestinationRule, "networking.istio.io", "DestinationRule"),
        (Self::Gateway, "networking.istio.io", "Gateway"),
        (Self::ServiceEntry, "networking.istio.io", "ServiceEntry"),
        (Self::WorkloadEntry, "networking.istio.io", "WorkloadEntry"),
        (Self::WorkloadGroup, "networking.istio.io", "WorkloadGroup"),
        (Self::Sidecar, "networking.istio.io", "Sidecar"),
    ];

    /// The kind of this `apiVersion` (any version of the group) and name, if the mesh reads it.
    #[must_use]
    pub fn parse(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        Self::ALL
            .iter()
            .find(|(_, g, k)| *g == group && *k == kind)
            .map(|(this, ..)| *this)
    }

    /// The name, for example `VirtualService`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(this, ..)| *this == self)
            .map_or("", |(.., name)| name)
    }
}

/// Namespace and name.
pub type Key = (String, String);

/// The objects of one kind.
pub(crate) type Table<T> = BTreeMap<Key, Arc<T>>;

/// What the whole world shares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The namespace whose configuration applies everywhere.
    pub root_namespace: Arc<str>,
    /// The suffix of Kubernetes names.
    pub domain: Arc<str>,
    /// The name of this Kubernetes cluster.
    pub cluster: Arc<str>,
    /// Whether workloads can get identities. Without them nothing offers or expects the mesh's mutual TLS.
    pub identity: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".into(),
            domain: "cluster.local".into(),
            cluster: "Kubernetes".into(),
            identity: false,
        }
    }
}

/// The ConfigMap that holds MeshConfig, and the key in it.
const MESH_CONFIG_MAP: (&str, &str) = ("istio", "mesh");

/// The workload's agent reports its health, so no report means not healthy (Istio's WorkloadEntry health checks).
const HEALTH_CHECKED: &str = "proxy.istio.io/health-checks-enabled";

/// The typed store of inputs.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub(crate) settings: Settings,
    pub(crate) mesh: Shared<Mesh>,
    pub(crate) namespaces: Table<Namespace>,
    pub(crate) nodes: Table<Node>,
    pub(crate) services: Table<Service>,
    pub(crate) endpoint_slices: Table<EndpointSlice>,
    pub(crate) pods: Table<Pod>,
    pub(crate) virtual_services: Table<Config<VirtualService>>,
    pub(crate) destination_rules: Table<Config<DestinationRule>>,
    pub(crate) gateways: Table<Config<Gateway>>,
    pub(crate) service_entries: Table<Config<ServiceEntry>>,
    pub(crate) workload_entries: Table<Config<WorkloadEntry>>,
    pub(crate) workload_groups: Table<Config<WorkloadGroup>>,
    pub(crate) sidecars: Table<Config<Sidecar>>,
    /// WorkloadEntries that get no traffic: their agents say so, or have not said anything yet.
    pub(crate) unhealthy_entries: BTreeSet<Key>,
    broken: BTreeMap<(Kind, Key), Diagnostic>,
}

impl Objects {
    /// An empty world.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// What the whole world shares.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Stores a new or changed object (the complete JSON, metadata included).
    ///
    /// Returns what is wrong with it, if it does not parse; it is then treated as absent.
    pub fn apply(&mut self, kind: Kind, object: Value) -> Option<Diagnostic> {
        let meta = metadata(&object);
        let key = (meta.namespace.clone(), meta.name.clone());
        let result = self.store(kind, meta, key.clone(), object);
        match result {
            Ok(()) => {
                self.broken.remove(&(kind, key));
                None
            }
            Err(reason) => {
                let resource = ResourceRef::new(kind.name(), key.0.as_str(), key.1.as_str());
                self.remove(kind, &key);
                let diagnostic = Diagnostic::new(Code::SchemaValidationError, resource, reason.message)
                    .at(reason.field)
                    .hint("the object has no effect until it is corrected");
                self.broken.insert((kind, key), diagnostic.clone());
                Some(diagnostic)
            }
        }
    }

    /// Removes an object; one that is not there is removed already.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.broken.remove(&(kind, key.clone()));
        self.remove(kind, &key);
    }

    /// Whether a valid object of this name is stored. ConfigMaps are read, not kept: for them this is always false.
    #[must_use]
    pub fn contains(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        match kind {
            Kind::Namespace => self.namespaces.contains_key(&key),
            Kind::Node => self.nodes.contains_key(&key),
            Kind::Service => self.services.contains_key(&key),
            Kind::EndpointSlice => self.endpoint_slices.contains_key(&key),
            Kind::Pod => self.pods.contains_key(&key),
            Kind::ConfigMap => false,
            Kind::VirtualService => self.virtual_services.contains_key(&key),
            Kind::DestinationRule => self.destination_rules.contains_key(&key),
            Kind::Gateway => self.gateways.contains_key(&key),
            Kind::ServiceEntry => self.service_entries.contains_key(&key),
            Kind::WorkloadEntry => self.workload_entries.contains_key(&key),
            Kind::WorkloadGroup => self.workload_groups.contains_key(&key),
            Kind::Sidecar => self.sidecars.contains_key(&key),
        }
    }

    /// Sets MeshConfig from its YAML, merged over Istio's defaults.
    ///
    /// # Errors
    /// Text that is not YAML, or a field of a wrong type; MeshConfig stays as it was.
    pub fn set_mesh(&mut self, yaml: &str) -> Result<(), String> {
        self.mesh = Shared::new(Mesh::from_yaml(yaml)?);
        self.settings.root_namespace = self.mesh.root_namespace.as_str().into();
        Ok(())
    }

    /// What is wrong with objects that did not parse.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.broken.values()
    }

    /// The WorkloadGroup of this namespace and name.
    #[must_use]
    pub fn workload_group(&self, namespace: &str, name: &str) -> Option<&Config<WorkloadGroup>> {
        self.workload_groups
            .get(&(namespace.to_owned(), name.to_owned()))
            .map(|group| &**group)
    }

    /// The metadata and the canonical JSON of the spec of every Istio object, by kind, for debug pages.
    pub fn configs(&self) -> impl Iterator<Item = (&ConfigMeta, &str)> {
        specs(&self.virtual_services)
            .chain(specs(&self.destination_rules))
            .chain(specs(&self.gateways))
            .chain(specs(&self.service_entries))
            .chain(specs(&self.workload_entries))
            .chain(specs(&self.workload_groups))
            .chain(specs(&self.sidecars))
    }

    /// Reads a WorkloadEntry's condition `Healthy`, which decides unless nobody checks.
    fn note_health(&mut self, meta: &ObjectMeta, key: &Key, object: &Value) {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let condition = conditions.into_iter().flatten().find(|c| c["type"] == "Healthy");
        let checked = meta.annotations.get(HEALTH_CHECKED).is_some_and(|v| v == "true");
        if condition.map_or(checked, |c| c["status"] != "True") {
            self.unhealthy_entries.insert(key.clone());
        } else {
            self.unhealthy_entries.remove(key);
        }
    }

    fn store(&mut self, kind: Kind, meta: ObjectMeta, key: Key, object: Value) -> Result<(), Reason> {
        if kind == Kind::WorkloadEntry {
            self.note_health(&meta, &key, &object);
        }
        match kind {
            Kind::Namespace => insert(&mut self.namespaces, key, object),
            Kind::Node => insert(&mut self.nodes, key, object),
            Kind::Service => insert(&mut self.services, key, object),
            Kind::EndpointSlice => insert(&mut self.endpoint_slices, key, object),
            Kind::Pod => insert(&mut self.pods, key, object),
            Kind::ConfigMap => self.read_config_map(&key, object),
            Kind::VirtualService => insert_spec(&mut self.virtual_services, kind, meta, object),
            Kind::DestinationRule => insert_spec(&mut self.destination_rules, kind, meta, object),
            Kind::Gateway => insert_spec(&mut self.gateways, kind, meta, object),
            Kind::ServiceEntry => insert_spec(&mut self.service_entries, kind, meta, object),
            Kind::WorkloadEntry => insert_spec(&mut self.workload_entries, kind, meta, object),
            Kind::WorkloadGroup => insert_spec(&mut self.workload_groups, kind, meta, object),
            Kind::Sidecar => insert_spec(&mut self.sidecars, kind, meta, object),
        }
    }

    fn read_config_map(&mut self, key: &Key, object: Value) -> Result<(), Reason> {
        if !self.is_mesh_config(key) {
            return Ok(());
        }
        let map: ConfigMap = parse(object)?;
        let yaml = map
            .data
            .get(MESH_CONFIG_MAP.1)
            .map(String::as_str)
            .unwrap_or_default();
        self.set_mesh(yaml).map_err(|message| Reason {
            field: "data.mesh".to_owned(),
            message,
        })
    }

    fn is_mesh_config(&self, key: &Key) -> bool {
        *key.0 == *self.settings.root_namespace && key.1 == MESH_CONFIG_MAP.0
    }

    fn remove(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Namespace => drop(self.namespaces.remove(key)),
            Kind::Node => drop(self.nodes.remove(key)),
            Kind::Service => drop(self.services.remove(key)),
            Kind::EndpointSlice => drop(self.endpoint_slices.remove(key)),
            Kind::Pod => drop(self.pods.remove(key)),
            // A broken MeshConfig keeps the last good one: losing it would change the whole mesh.
            Kind::ConfigMap => {}
            Kind::VirtualService => drop(self.virtual_services.remove(key)),
            Kind::DestinationRule => drop(self.destination_rules.remove(key)),
            Kind::Gateway => drop(self.gateways.remove(key)),
            Kind::ServiceEntry => drop(self.service_entries.remove(key)),
            Kind::WorkloadEntry => {
                self.unhealthy_entries.remove(key);
                drop(self.workload_entries.remove(key));
            }
            Kind::WorkloadGroup => drop(self.workload_groups.remove(key)),
            Kind::Sidecar => drop(self.sidecars.remove(key)),
        }
    }
}

fn specs<T>(table: &Table<Config<T>>) -> impl Iterator<Item = (&ConfigMeta, &str)> {
    table.values().map(|config| (&config.meta, config.canonical()))
}

/// Why an object does not parse.
struct Reason {
    field: String,
    message: String,
}

fn metadata(object: &Value) -> ObjectMeta {
    let meta = object.get("metadata").cloned().unwrap_or_default();
    serde_json::from_value(meta).unwrap_or_else(|_| {
        let text = |pointer| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        ObjectMeta {
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            ..ObjectMeta::default()
        }
    })
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Reason> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        Reason {
            field: if path == "." { String::new() } else { path },
            message: error.into_inner().to_string(),
        }
    })
}

fn parse_spec<T: Json>(spec: Value) -> Result<T, Reason> {
    T::read(spec).map_err(|error| Reason {
        field: match error.path() {
            "" => "spec".to_owned(),
            path => format!("spec.{path}"),
        },
        message: error.reason().to_owned(),
    })
}

fn insert<T: DeserializeOwned>(table: &mut Table<T>, key: Key, object: Value) -> Result<(), Reason> {
    table.insert(key, Arc::new(parse(object)?));
    Ok(())
}

fn insert_spec<T: Json + Serialize>(
    table: &mut Table<Config<T>>,
    kind: Kind,
    meta: ObjectMeta,
    mut object: Value,
) -> Result<(), Reason> {
    let spec = object
        .get_mut("spec")
        .map(Value::take)
        .unwrap_or_else(|| Value::Object(Default::default()));
    let spec = parse_spec(spec)?;
    let key = (meta.namespace.clone(), meta.name.clone());
    table.insert(
        key,
        Arc::new(Config::new(ConfigMeta::new(kind.name(), meta), spec)),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_found_by_group_and_name_in_every_version() {
        assert_eq!(
            Kind::parse("networking.istio.io/v1alpha3", "VirtualService"),
            Some(Kind::VirtualService)
        );
        assert_eq!(Kind::parse("v1", "Service"), Some(Kind::Service));
        assert_eq!(Kind::parse("serving.knative.dev/v1", "Service"), None);
    }

    #[test]
    fn an_entry_whose_health_is_checked_is_unhealthy_until_it_is_reported_healthy() {
        let mut objects = Objects::default();
        let mut apply = |checked: &str, conditions: Value| {
            let meta = json!({"name": "a", "namespace": "b", "annotations": {HEALTH_CHECKED: checked}});
            let object = json!({"metadata": meta, "spec": {"address": "1.2.3.4"}, "status": {"conditions": conditions}});
            assert_eq!(objects.apply(Kind::WorkloadEntry, object), None);
            objects.unhealthy_entries.len()
        };
        let healthy = |status: &str| json!([{"type": "Healthy", "status": status}]);
        assert_eq!(apply("true", json!([])), 1);
        assert_eq!(apply("true", healthy("True")), 0);
        assert_eq!(apply("true", healthy("False")), 1);
        assert_eq!(apply("false", json!([])), 0);
        assert_eq!(apply("false", healthy("False")), 1);
    }

    #[test]
    fn a_broken_object_leaves_the_store_and_says_where_it_is_broken() {
        let mut objects = Objects::default();
        let object = |timeout: Value| {
            json!({"metadata": {"name": "reviews", "namespace": "default"},
                   "spec": {"hosts": ["reviews"], "http": [{"timeout": timeout}]}})
        };
        assert_eq!(objects.apply(Kind::VirtualService, object(json!("2s"))), None);
        let diagnostic = objects
            .apply(Kind::VirtualService, object(json!([])))
            .expect("a diagnostic");
        assert_eq!(diagnostic.code, Code::SchemaValidationError);
        assert_eq!(diagnostic.field, "spec.http[0].timeout");
        assert!(!objects.contains(Kind::VirtualService, "default", "reviews"));
        assert_eq!(objects.diagnostics().count(), 1);
        assert_eq!(objects.apply(Kind::VirtualService, object(json!("3s"))), None);
        assert_eq!(objects.diagnostics().count(), 0);
    }
}
