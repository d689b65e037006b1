//! The inputs: every object the mesh reads, parsed once when it arrives.
//!
//! An object that does not parse leaves the store and becomes a [`Diagnostic`]; the others are not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_istio::json::Json;
use api_istio::networking::{
    DestinationRule, Gateway, ServiceEntry, Sidecar, VirtualService, WorkloadEntry, WorkloadGroup,
};
use api_istio::security::PeerAuthentication;
use diagnostics::{Code, Diagnostic, ResourceRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{Config, ConfigMeta};
use crate::credential_name::Holder;
use crate::credentials::{Checked, Credentials};
use crate::incoming::Incoming;
use crate::kind::Kind;
use crate::kubernetes::{
    ConfigMap, EndpointSlice, Namespace, Node, ObjectMeta, Pod, ReferenceGrant, Service,
};
use crate::mesh::Mesh;
use crate::shared::Shared;
use crate::table::Table;
use crate::without_effect;

pub use crate::table::Key;

/// What the whole world shares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The namespace where MeshConfig is. Its configuration applies everywhere, unless MeshConfig names another.
    pub root_namespace: Arc<str>,
    /// The suffix of Kubernetes names.
    pub domain: Arc<str>,
    /// The name of this Kubernetes cluster.
    pub cluster: Arc<str>,
    /// Whether workloads can get identities. Without them nothing offers or expects the mesh's mutual TLS. With them
    /// those do that say so: pods and proxies by the label `security.istio.io/tlsMode`, see [`crate::Profile::identity`].
    pub identity: bool,
    /// Whether a Gateway selects workloads of its own namespace only (Istio's `PILOT_SCOPE_GATEWAY_TO_NAMESPACE`).
    pub gateways_of_own_namespace: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".into(),
            domain: "cluster.local".into(),
            cluster: "Kubernetes".into(),
            identity: false,
            gateways_of_own_namespace: false,
        }
    }
}

/// The ConfigMap that holds MeshConfig, and the key in it.
const MESH_CONFIG_MAP: (&str, &str) = ("istio", "mesh");

/// The Secrets of the mesh's own authority, in the root namespace. They are nobody else's credentials.
const AUTHORITY_SECRETS: [&str; 2] = ["istio-ca-secret", "cacerts"];

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
    /// Credentials in Secrets.
    pub(crate) secrets: Credentials,
    /// Authorities in ConfigMaps.
    pub(crate) authorities: Credentials,
    pub(crate) reference_grants: Table<ReferenceGrant>,
    pub(crate) virtual_services: Table<Config<VirtualService>>,
    pub(crate) destination_rules: Table<Config<DestinationRule>>,
    pub(crate) gateways: Table<Config<Gateway>>,
    pub(crate) service_entries: Table<Config<ServiceEntry>>,
    pub(crate) workload_entries: Table<Config<WorkloadEntry>>,
    pub(crate) workload_groups: Table<Config<WorkloadGroup>>,
    pub(crate) sidecars: Table<Config<Sidecar>>,
    pub(crate) peer_authentications: Table<Config<PeerAuthentication>>,
    /// WorkloadEntries that get no traffic: their agents say so, or have not said anything yet.
    pub(crate) unhealthy_entries: BTreeSet<Key>,
    broken: BTreeMap<(Kind, Key), Diagnostic>,
    /// Objects of kinds that have no effect yet; kept to say so.
    unread: BTreeSet<(Kind, Key)>,
    /// Paths of fields that are set and change nothing.
    without_effect: BTreeMap<(Kind, Key), Vec<String>>,
}

impl Objects {
    /// An empty world.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mesh = Mesh::from_yaml("", &settings.root_namespace).unwrap_or_default();
        Self {
            settings,
            mesh: Shared::new(mesh),
            ..Self::default()
        }
    }

    /// What the whole world shares.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Says whether workloads can get identities from now on.
    pub fn set_identity(&mut self, identity: bool) {
        self.settings.identity = identity;
    }

    /// Stores a new or changed object (the complete JSON, metadata included).
    ///
    /// Returns what is wrong with it, if it does not parse; it is then treated as absent.
    pub fn apply(&mut self, kind: Kind, object: Value) -> Option<Diagnostic> {
        self.take(Incoming::read(kind, object))
    }

    /// The same of an object that has been read.
    pub fn take(&mut self, incoming: Incoming) -> Option<Diagnostic> {
        let Incoming {
            kind,
            object,
            credential,
        } = incoming;
        let meta = metadata(&object);
        let key = (meta.namespace.clone(), meta.name.clone());
        let without_effect = without_effect::paths(kind, &object["spec"]);
        let result = match kind {
            Kind::Secret => self.take_secret(&key, credential),
            Kind::ConfigMap => self.take_config_map(&key, object, credential.ok().flatten()),
            _ => self.store(kind, meta, key.clone(), object),
        };
        self.without_effect.remove(&(kind, key.clone()));
        match result {
            Ok(()) => {
                if !without_effect.is_empty() {
                    self.without_effect.insert((kind, key.clone()), without_effect);
                }
                self.broken.remove(&(kind, key));
                None
            }
            Err(reason) => {
                // A demand that somebody mistypes must not open what it closed.
                let kept = kind == Kind::PeerAuthentication && self.peer_authentications.contains_key(&key);
                if !kept {
                    self.remove(kind, &key);
                }
                let resource = resource(kind, &key);
                let diagnostic = Diagnostic::new(Code::SchemaValidationError, resource, reason.message)
                    .at(reason.field)
                    .hint(if kept {
                        "what the object said before has effect until it is corrected"
                    } else {
                        "the object has no effect until it is corrected"
                    });
                self.broken.insert((kind, key), diagnostic.clone());
                Some(diagnostic)
            }
        }
    }

    /// Removes an object; one that is not there is removed already.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.broken.remove(&(kind, key.clone()));
        self.without_effect.remove(&(kind, key.clone()));
        self.remove(kind, &key);
    }

    /// Sets MeshConfig from its YAML, merged over Istio's defaults.
    ///
    /// # Errors
    /// Text that is not YAML, or a field of a wrong type; MeshConfig stays as it was.
    pub fn set_mesh(&mut self, yaml: &str) -> Result<(), String> {
        self.mesh = Shared::new(Mesh::from_yaml(yaml, &self.settings.root_namespace)?);
        Ok(())
    }

    /// What is wrong with objects that did not parse, and what of the others has no effect.
    pub fn diagnostics(&self) -> impl Iterator<Item = Diagnostic> {
        let (name, data) = MESH_CONFIG_MAP;
        let mesh = self.mesh.without_effect().into_iter().map(move |field| {
            let resource = ResourceRef::new(Kind::ConfigMap.name(), &*self.settings.root_namespace, name);
            let message = format!("{field} has no effect in this version");
            Diagnostic::new(Code::SchemaWarning, resource, message).at(format!("data.{data}"))
        });
        let fields = self.without_effect.iter().flat_map(|((kind, key), paths)| {
            paths.iter().map(|path| {
                let message = "this field has no effect in this version";
                Diagnostic::new(Code::SchemaWarning, resource(*kind, key), message).at(path.as_str())
            })
        });
        let unread = self.unread.iter().map(|(kind, key)| {
            let message = format!("{} has no effect in this version", kind.name());
            let diagnostic = Diagnostic::new(Code::SchemaWarning, resource(*kind, key), message);
            diagnostic.hint("traffic flows as if the object were not there")
        });
        let broken = self.broken.values().cloned();
        broken.chain(mesh).chain(fields).chain(unread)
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
            .chain(specs(&self.peer_authentications))
    }

    /// The pod of this name.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        let key = (namespace.to_owned(), name.to_owned());
        self.pods.get(&key).map(|pod| &**pod)
    }

    /// Every pod.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().map(|pod| &**pod)
    }

    /// MeshConfig.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Whether an object that has come or changed can change anything here. Of ConfigMaps, which are many and change for
    /// others' reasons, most cannot.
    #[must_use]
    pub fn concerned_by(&self, incoming: &Incoming) -> bool {
        incoming.kind != Kind::ConfigMap || !matches!(incoming.credential, Ok(None)) || {
            let meta = metadata(&incoming.object);
            self.knows(incoming.kind, meta.namespace, meta.name)
        }
    }

    /// Whether anything was read of the object of this name, if it is of a kind of which most objects are not read.
    #[must_use]
    pub fn knows(&self, kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> bool {
        let key = (namespace.into(), name.into());
        kind != Kind::ConfigMap || self.is_mesh_config(&key) || self.authorities.knows(&key)
    }

    /// What holds credentials of this kind.
    pub(crate) fn credentials(&self, holder: Holder) -> &Credentials {
        match holder {
            Holder::Secret => &self.secrets,
            Holder::ConfigMap => &self.authorities,
        }
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
            // They have been read before.
            Kind::Secret | Kind::ConfigMap => Ok(()),
            Kind::ReferenceGrant => insert(&mut self.reference_grants, key, object),
            Kind::VirtualService => insert_spec(&mut self.virtual_services, kind, meta, object),
            Kind::DestinationRule => insert_spec(&mut self.destination_rules, kind, meta, object),
            Kind::Gateway => insert_spec(&mut self.gateways, kind, meta, object),
            Kind::ServiceEntry => insert_spec(&mut self.service_entries, kind, meta, object),
            Kind::WorkloadEntry => insert_spec(&mut self.workload_entries, kind, meta, object),
            Kind::WorkloadGroup => insert_spec(&mut self.workload_groups, kind, meta, object),
            Kind::Sidecar => insert_spec(&mut self.sidecars, kind, meta, object),
            Kind::PeerAuthentication => insert_spec(&mut self.peer_authentications, kind, meta, object),
            Kind::EnvoyFilter
            | Kind::ProxyConfig
            | Kind::AuthorizationPolicy
            | Kind::RequestAuthentication
            | Kind::Telemetry
            | Kind::WasmPlugin
            | Kind::TrafficExtension => {
                self.unread.insert((kind, key));
                Ok(())
            }
        }
    }

    fn take_config_map(
        &mut self,
        key: &Key,
        object: Value,
        authorities: Option<Checked>,
    ) -> Result<(), Reason> {
        if !self.is_mesh_config(key) {
            match authorities {
                Some(authorities) => self.authorities.put(key.clone(), authorities),
                None => self.authorities.remove(key),
            }
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

    /// Keeps what a gateway may show, and forgets a Secret that has become something else.
    fn take_secret(&mut self, key: &Key, credential: Result<Option<Checked>, String>) -> Result<(), Reason> {
        let own = *key.0 == *self.settings.root_namespace && AUTHORITY_SECRETS.contains(&key.1.as_str());
        let credential = credential.map_err(|field| Reason {
            field: format!("data[{field}]"),
            message: "not base64".to_owned(),
        })?;
        match credential.filter(|_| !own) {
            Some(credential) => self.secrets.put(key.clone(), credential),
            None => self.secrets.remove(key),
        }
        Ok(())
    }

    fn is_mesh_config(&self, key: &Key) -> bool {
        *key.0 == *self.settings.root_namespace && key.1 == MESH_CONFIG_MAP.0
    }

    fn remove(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Namespace => self.namespaces.remove(key),
            Kind::Node => self.nodes.remove(key),
            Kind::Service => self.services.remove(key),
            Kind::EndpointSlice => self.endpoint_slices.remove(key),
            Kind::Pod => self.pods.remove(key),
            Kind::Secret => self.secrets.remove(key),
            // A broken MeshConfig keeps the last good one: losing it would change the whole mesh.
            Kind::ConfigMap => self.authorities.remove(key),
            Kind::ReferenceGrant => self.reference_grants.remove(key),
            Kind::VirtualService => self.virtual_services.remove(key),
            Kind::DestinationRule => self.destination_rules.remove(key),
            Kind::Gateway => self.gateways.remove(key),
            Kind::ServiceEntry => self.service_entries.remove(key),
            Kind::WorkloadEntry => {
                self.unhealthy_entries.remove(key);
                self.workload_entries.remove(key);
            }
            Kind::WorkloadGroup => self.workload_groups.remove(key),
            Kind::Sidecar => self.sidecars.remove(key),
            Kind::PeerAuthentication => self.peer_authentications.remove(key),
            Kind::EnvoyFilter
            | Kind::ProxyConfig
            | Kind::AuthorizationPolicy
            | Kind::RequestAuthentication
            | Kind::Telemetry
            | Kind::WasmPlugin
            | Kind::TrafficExtension => drop(self.unread.remove(&(kind, key.clone()))),
        }
    }
}

fn resource(kind: Kind, key: &Key) -> ResourceRef {
    ResourceRef::new(kind.name(), key.0.as_str(), key.1.as_str())
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
    fn mesh_config_goes_on_being_read_where_it_is_when_it_names_another_root_namespace() {
        let mut objects = Objects::new(Settings {
            root_namespace: "mesh".into(),
            ..Settings::default()
        });
        assert_eq!(objects.mesh.root_namespace, "mesh");
        let mut apply = |mesh: &str| {
            let meta = json!({"name": "istio", "namespace": "mesh"});
            let object = json!({"metadata": meta, "data": {"mesh": mesh}});
            assert_eq!(objects.apply(Kind::ConfigMap, object), None);
            (objects.mesh.root_namespace.clone(), objects.diagnostics().count())
        };
        assert_eq!(apply("proxyHttpPort: 15002"), ("mesh".to_owned(), 1));
        assert_eq!(apply("rootNamespace: roots"), ("roots".to_owned(), 0));
        assert_eq!(apply("trustDomain: example.test"), ("mesh".to_owned(), 0));
    }

    #[test]
    fn a_policy_that_is_not_enforced_says_so() {
        let mut objects = Objects::default();
        let object =
            json!({"metadata": {"name": "deny", "namespace": "default"}, "spec": {"action": "DENY"}});
        assert_eq!(objects.apply(Kind::AuthorizationPolicy, object), None);
        let found: Vec<_> = objects.diagnostics().map(|d| d.resource.to_string()).collect();
        assert_eq!(found, ["AuthorizationPolicy deny.default"]);
        objects.delete(Kind::AuthorizationPolicy, "default", "deny");
        assert_eq!(objects.diagnostics().count(), 0);
    }

    #[test]
    fn a_field_that_changes_nothing_is_reported_until_it_is_gone() {
        let mut objects = Objects::default();
        let mut fields = |spec: Value| {
            let meta = json!({"name": "reviews", "namespace": "default"});
            let object = json!({"metadata": meta, "spec": spec});
            assert_eq!(objects.apply(Kind::VirtualService, object), None);
            objects.diagnostics().map(|d| d.field).collect::<Vec<_>>()
        };
        let routed = |m: Value| json!({"hosts": ["db"], "tcp": [{"match": [m]}]});
        let found = fields(routed(json!({"sourceSubnet": "10.0.0.0/8"})));
        assert_eq!(found, ["spec.tcp[0].match[0].sourceSubnet"]);
        assert_eq!(fields(routed(json!({"port": 3306}))), Vec::<String>::new());
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
        assert!(objects.virtual_services.is_empty());
        assert_eq!(objects.diagnostics().count(), 1);
        assert_eq!(objects.apply(Kind::VirtualService, object(json!("3s"))), None);
        assert_eq!(objects.diagnostics().count(), 0);
    }
}
