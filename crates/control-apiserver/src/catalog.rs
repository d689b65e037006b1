//! What the server serves right now: the built-in kinds and every established CRD.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::Mutex;
use serde_json::Value;

use crate::json_path::JsonPath;
use crate::kinds::custom_resource_definition as crd;
use crate::kinds::{self, ALL_VERBS, BuiltInKind};
use crate::schema::{Definitions, Schema, parse};
use crate::store::{Object, ResourcePrefix, Store};

/// The documented schemas of the built-in kinds, one definition a line; made by `assets/generate.py`. They are read
/// line by line when needed, so that 400 KB of documentation are not kept in memory as objects.
pub(crate) const CORE_SCHEMAS: &str = include_str!("../assets/core-schemas.json");

/// The documented source of a built-in definition.
pub(crate) fn definition_source(name: &str) -> Option<Value> {
    let start = format!("\n\"{name}\": ");
    let at = CORE_SCHEMAS.find(&start)? + start.len();
    let line = CORE_SCHEMAS[at..].lines().next()?;
    serde_json::from_str(line.trim_end_matches(',')).ok()
}

/// Definition of `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

static DEFINITIONS: LazyLock<Mutex<Definitions>> =
    LazyLock::new(|| Mutex::new(Definitions::new(definition_source)));

/// The schema of a built-in definition.
pub(crate) fn definition(name: &str) -> Arc<Schema> {
    DEFINITIONS.lock().schema(name)
}

/// The schema of `metadata`.
pub(crate) fn object_meta() -> &'static Arc<Schema> {
    static META: OnceLock<Arc<Schema>> = OnceLock::new();
    META.get_or_init(|| definition(OBJECT_META))
}

/// A printer column of a CRD.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: JsonPath,
}

/// The `scale` subresource of a CRD's version: dotted paths.
#[derive(Clone)]
pub(crate) struct Scale {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    pub(crate) label_selector: Option<String>,
}

/// Where a version's schema is read from when it is needed first.
enum SchemaSource {
    BuiltIn(&'static str),
    Crd { definition: Arc<Object>, index: usize },
}

/// One served version of a resource.
pub(crate) struct ServedVersion {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) has_status: bool,
    pub(crate) scale: Option<Scale>,
    pub(crate) selectable_fields: Vec<String>,
    /// Sent as a warning with every answer.
    pub(crate) deprecation: Option<String>,
    source: SchemaSource,
    schema: OnceLock<Arc<Schema>>,
}

impl ServedVersion {
    /// The structural schema.
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        self.schema.get_or_init(|| match &self.source {
            SchemaSource::BuiltIn(name) => definition(name),
            SchemaSource::Crd { .. } => {
                // CRDs are stored only when their schema parses.
                Arc::new(parse(&self.documented_schema(), "").unwrap_or_default())
            }
        })
    }

    /// The schema with its documentation, for OpenAPI; `Null` for built-in kinds.
    pub(crate) fn documented_schema(&self) -> Value {
        match &self.source {
            SchemaSource::BuiltIn(_) => Value::Null,
            SchemaSource::Crd { definition, index } => {
                let mut object = definition.value();
                object["spec"]["versions"][*index]["schema"]["openAPIV3Schema"].take()
            }
        }
    }
}

/// A resource in all its versions.
pub(crate) struct ResourceType {
    pub(crate) group: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) prefix: ResourcePrefix,
    /// Best first, as discovery lists them.
    pub(crate) versions: Vec<ServedVersion>,
    pub(crate) built_in: Option<&'static BuiltInKind>,
    /// Revision of the CRD, which tells its states apart; part of the OpenAPI hash.
    pub(crate) definition_revision: u64,
}

impl ResourceType {
    /// Verbs for discovery.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        self.built_in.map_or(ALL_VERBS, BuiltInKind::verbs)
    }

    fn built_in(kind: &'static BuiltInKind) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            group: kind.group.to_owned(),
            plural: kind.plural.to_owned(),
            singular: kind.singular.to_owned(),
            kind: kind.kind.to_owned(),
            list_kind: format!("{}List", kind.kind),
            short_names: owned(kind.short_names),
            categories: owned(kind.categories),
            namespaced: kind.namespaced,
            prefix: ResourcePrefix::new(kind.stored_group, kind.plural),
            versions: vec![ServedVersion {
                name: kind.version.to_owned(),
                columns: Vec::new(),
                has_status: kind.has_status,
                scale: None,
                selectable_fields: owned(kind.selectable_fields),
                deprecation: None,
                source: SchemaSource::BuiltIn(kind.definition),
                schema: OnceLock::new(),
            }],
            built_in: Some(kind),
            definition_revision: 0,
        }
    }

    /// The resource that a CRD defines, or `None` when it is not established.
    fn custom(definition: &Arc<Object>) -> Option<Self> {
        let object = definition.value();
        if !crd::condition_is_true(&object, "Established") {
            return None;
        }
        let spec = &object["spec"];
        let names = &spec["names"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
        let (group, plural) = (text(&spec["group"]), text(&names["plural"]));
        let entries = spec["versions"].as_array().into_iter().flatten().enumerate();
        let mut versions: Vec<ServedVersion> = entries
            .filter(|(_, version)| version["served"] == true)
            .map(|(index, version)| custom_version(version, index, definition, &group, &text(&names["kind"])))
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(&version.name)));
        Some(Self {
            prefix: ResourcePrefix::new(&group, &plural),
            group,
            plural,
            singular: text(&names["singular"]),
            kind: text(&names["kind"]),
            list_kind: text(&names["listKind"]),
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            namespaced: spec["scope"] == "Namespaced",
            versions,
            built_in: None,
            definition_revision: definition.revision(),
        })
    }
}

fn custom_version(
    version: &Value,
    index: usize,
    definition: &Arc<Object>,
    group: &str,
    kind: &str,
) -> ServedVersion {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let columns = version["additionalPrinterColumns"]
        .as_array()
        .into_iter()
        .flatten();
    let scale = &version["subresources"]["scale"];
    let name = text(&version["name"]);
    let deprecation = (version["deprecated"] == true).then(|| {
        version["deprecationWarning"]
            .as_str()
            .map_or_else(|| format!("{group}/{name} {kind} is deprecated"), str::to_owned)
    });
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    ServedVersion {
        columns: columns
            .filter_map(|column| {
                Some(Column {
                    name: text(&column["name"]),
                    kind: text(&column["type"]),
                    format: text(&column["format"]),
                    description: text(&column["description"]),
                    priority: column["priority"].as_i64().unwrap_or(0),
                    path: JsonPath::parse(column["jsonPath"].as_str()?).ok()?,
                })
            })
            .collect(),
        has_status: version["subresources"]["status"].is_object(),
        scale: scale.is_object().then(|| Scale {
            spec_replicas: text(&scale["specReplicasPath"]),
            status_replicas: text(&scale["statusReplicasPath"]),
            label_selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
        }),
        selectable_fields: fields
            .map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        deprecation,
        source: SchemaSource::Crd {
            definition: Arc::clone(definition),
            index,
        },
        schema: OnceLock::new(),
        name,
    }
}

/// Kubernetes' order of versions: v2 before v1 before v1beta1 before v1alpha3, anything else last.
pub(crate) fn version_rank(name: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let number = |text: &str| text.parse::<u64>().ok();
    let rest = name.strip_prefix('v').unwrap_or_default();
    for (level, word) in [(2, "beta"), (1, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (level, major, minor, std::cmp::Reverse(String::new()));
        }
    }
    match number(rest) {
        Some(major) => (3, major, 0, std::cmp::Reverse(String::new())),
        None => (0, 0, 0, std::cmp::Reverse(name.to_owned())),
    }
}

/// Everything that is served, immutable; a change of CRDs makes a new one.
pub(crate) struct Catalog {
    resources: Vec<Arc<ResourceType>>,
}

/// A resource together with the version that a request names.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<ResourceType>,
    version: usize,
}

impl Target {
    pub(crate) fn version(&self) -> &ServedVersion {
        &self.resource.versions[self.version]
    }

    /// `group/version`, or `version` in the core group.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.resource.group, &self.version().name)
    }
}

/// `group/version`, or `version` in the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

impl Catalog {
    /// The built-in kinds alone.
    pub(crate) fn built_in() -> Self {
        let built_in = kinds::ALL
            .iter()
            .map(|kind| Arc::new(ResourceType::built_in(kind)));
        Self {
            resources: built_in.collect(),
        }
    }

    /// Reads the CRDs from the store. What `self` has read already is kept, with its parsed schemas, so that a change
    /// of one CRD costs the same however many there are.
    pub(crate) fn refreshed(&self, store: &Store) -> Self {
        let (built_in, known): (Vec<_>, Vec<_>) = self
            .resources
            .iter()
            .cloned()
            .partition(|resource| resource.built_in.is_some());
        let known: HashMap<u64, Arc<ResourceType>> = known
            .into_iter()
            .map(|resource| (resource.definition_revision, resource))
            .collect();
        let crds = store.list(&crd::prefix(), "").objects;
        let custom = crds
            .iter()
            .filter_map(|definition| match known.get(&definition.revision()) {
                Some(known) => Some(Arc::clone(known)),
                None => ResourceType::custom(definition).map(Arc::new),
            });
        Self {
            resources: built_in.into_iter().chain(custom).collect(),
        }
    }

    /// The groups with their versions, best version first; the core group is the empty name.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.resources {
            let position = groups
                .iter()
                .position(|(name, _)| *name == resource.group)
                .unwrap_or_else(|| {
                    groups.push((resource.group.clone(), Vec::new()));
                    groups.len() - 1
                });
            for version in &resource.versions {
                if !groups[position].1.contains(&version.name) {
                    groups[position].1.push(version.name.clone());
                }
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        }
        groups
    }

    /// Resources of one group and version.
    pub(crate) fn in_version(&self, group: &str, version: &str) -> Vec<Target> {
        let candidates = self.resources.iter().filter(|resource| resource.group == group);
        candidates
            .filter_map(|resource| {
                let version = resource
                    .versions
                    .iter()
                    .position(|served| served.name == version)?;
                Some(Target {
                    resource: Arc::clone(resource),
                    version,
                })
            })
            .collect()
    }

    /// The resource that a path names.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Target> {
        self.in_version(group, version)
            .into_iter()
            .find(|target| target.resource.plural == plural)
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub(crate) fn find_kind(&self, api_version: &str, kind: &str) -> Option<Target> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.in_version(group, version)
            .into_iter()
            .find(|target| target.resource.kind == kind)
    }

    /// The resource whose objects have this prefix, in its best version.
    pub(crate) fn find_prefix(&self, prefix: &ResourcePrefix) -> Option<Target> {
        let resource = self
            .resources
            .iter()
            .find(|resource| resource.prefix == *prefix)?;
        Some(Target {
            resource: Arc::clone(resource),
            version: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::breakable::breakable;
    use crate::store::{Change, Expected, Key};

    async fn define(store: &Store, expected: Expected, plural: &str) -> u64 {
        let definition = json!({
            "metadata": {"name": format!("{plural}.example.org")},
            "spec": {"group": "example.org", "names": {"plural": plural, "kind": plural}, "versions": [
                {"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
            ]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        });
        let key = Key::new(&crd::prefix(), "", &format!("{plural}.example.org"));
        let written = store.write(key, expected, Change::Put(definition)).await;
        written.unwrap().revision()
    }

    #[tokio::test]
    async fn a_change_of_one_crd_keeps_what_was_read_of_the_others() {
        let (store, _) = breakable(std::io::ErrorKind::Other);
        let first = define(&store, Expected::Absent, "apples").await;
        define(&store, Expected::Absent, "pears").await;
        let before = Catalog::built_in().refreshed(&store);
        define(&store, Expected::Revision(first), "apples").await;
        let after = before.refreshed(&store);
        let same = |plural: &str| {
            let find = |catalog: &Catalog| catalog.find("example.org", "v1", plural).unwrap().resource;
            Arc::ptr_eq(&find(&before), &find(&after))
        };
        assert_eq!((same("apples"), same("pears")), (false, true));
    }
}
