//! OpenAPI v3: an index with hashes, and one document per group and version, made when it is asked for.
//!
//! The documents hold what kubectl needs: the patch operation of each kind with its `fieldValidation` parameter, and
//! the documented schemas for `kubectl explain`.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::{CACHE_CONTROL, ETAG, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::catalog::{CORE_SCHEMAS, Catalog, Target, definition_source};
use crate::discovery::KUBERNETES_VERSION;
use crate::patch;
use crate::response::{Body, json_value, with_type};
use crate::reviews;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const REFERENCE: &str = "#/components/schemas/";
/// Bytes of the digest that make the hash in URLs.
const HASH_BYTES: usize = 16;

/// Answers `/openapi/v2` with a document that describes nothing, in the protobuf form kubectl asks for. kubectl turns
/// here for kinds that v3 does not know, and then says that there is no such kind instead of failing.
pub(crate) fn version_2() -> Response<Body> {
    // openapi.v2.Document: swagger = 1, info = 2 { title = 1, version = 2 }.
    let field = |number: u8, content: &[u8]| -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap_or(0);
        [&[number << 3 | 2, length], content].concat()
    };
    let info = [field(1, b"Kubernetes"), field(2, KUBERNETES_VERSION.as_bytes())].concat();
    let document = [field(1, b"2.0"), field(2, &info)].concat();
    with_type(
        StatusCode::OK,
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        document,
    )
}

/// Answers `/openapi/v3`.
pub(crate) fn index(catalog: &Catalog) -> Response<Body> {
    let mut paths = Map::new();
    for (group, version) in group_versions(catalog) {
        let path = path(&group, &version);
        let url = format!("/openapi/v3/{path}?hash={}", hash(catalog, &group, &version));
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json_value(StatusCode::OK, &json!({"paths": paths}))
}

fn group_versions(catalog: &Catalog) -> BTreeSet<(String, String)> {
    let groups = catalog.groups().into_iter();
    let stored = groups
        .flat_map(|(group, versions)| versions.into_iter().map(move |version| (group.clone(), version)));
    let asked = reviews::ALL
        .iter()
        .map(|review| (review.group.to_owned(), reviews::VERSION.to_owned()));
    stored.chain(asked).collect()
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// Changes whenever the document may have changed.
fn hash(catalog: &Catalog, group: &str, version: &str) -> String {
    let mut text = format!("{} {}", env!("CARGO_PKG_VERSION"), CORE_SCHEMAS.len());
    for target in catalog.in_version(group, version) {
        text.push_str(&format!(
            " {}@{}",
            target.resource.plural, target.resource.definition_revision
        ));
    }
    let digest = digest(&SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .take(HASH_BYTES)
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

/// Answers `/openapi/v3/api/v1` and `/openapi/v3/apis/GROUP/VERSION`; `None` when nothing is served there.
pub(crate) fn document(catalog: &Catalog, group: &str, version: &str) -> Option<Response<Body>> {
    let targets = catalog.in_version(group, version);
    let reviews: Vec<_> = reviews::ALL
        .iter()
        .filter(|review| review.group == group && version == reviews::VERSION)
        .collect();
    if targets.is_empty() && reviews.is_empty() {
        return None;
    }
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for target in &targets {
        let component = add_kind(target, &mut schemas);
        add_paths(target, &component, &mut paths);
    }
    for review in reviews {
        add_definition(review.definition, &mut schemas);
        let gvk = json!({"group": review.group, "version": reviews::VERSION, "kind": review.kind});
        paths.insert(
            format!("/apis/{group}/{version}/{}", review.plural),
            json!({"post": operation("create", review.kind, &gvk, review.definition, &["application/json"])}),
        );
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    });
    let mut response = json_value(StatusCode::OK, &document);
    let hash = hash(catalog, group, version);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, immutable, max-age=31536000"),
    );
    Some(response)
}

/// Adds the schema of a kind and of its list; returns the component's name.
fn add_kind(target: &Target, schemas: &mut Map<String, Value>) -> String {
    let resource = &target.resource;
    let name = match resource.built_in {
        Some(kind) => {
            add_definition(kind.definition, schemas);
            kind.definition.to_owned()
        }
        None => {
            let name = component_name(&resource.group, &target.version().name, &resource.kind);
            schemas.insert(name.clone(), custom_schema(target));
            add_definition(OBJECT_META, schemas);
            name
        }
    };
    add_definition(LIST_META, schemas);
    let list_name = format!("{name}List");
    let list = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"allOf": [{"$ref": format!("{REFERENCE}{LIST_META}")}]},
            "items": {"type": "array", "items": {"allOf": [{"$ref": format!("{REFERENCE}{name}")}]}},
        },
        "x-kubernetes-group-version-kind": [
            {"group": resource.group, "version": target.version().name, "kind": resource.list_kind},
        ],
    });
    schemas.insert(list_name, list);
    name
}

/// `networking.istio.io`, `v1`, `Gateway` → `io.istio.networking.v1.Gateway`.
fn component_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

fn custom_schema(target: &Target) -> Value {
    let resource = &target.resource;
    let mut schema = target.version().documented_schema();
    let text = |description: &str| json!({"type": "string", "description": description});
    let mut properties = Map::new();
    properties.insert(
        "apiVersion".to_owned(),
        text("APIVersion defines the versioned schema of this representation of an object."),
    );
    properties.insert(
        "kind".to_owned(),
        text("Kind is a string value representing the REST resource this object represents."),
    );
    properties.insert(
        "metadata".to_owned(),
        json!({"description": "Standard object's metadata.", "allOf": [{"$ref": format!("{REFERENCE}{OBJECT_META}")}]}),
    );
    if let Some(own) = schema["properties"].as_object() {
        for (name, property) in own {
            if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
                properties.insert(name.clone(), property.clone());
            }
        }
    }
    schema["properties"] = Value::Object(properties);
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": resource.group, "version": target.version().name, "kind": resource.kind}]);
    schema
}

/// Adds a built-in definition and everything it refers to.
fn add_definition(name: &str, schemas: &mut Map<String, Value>) {
    if schemas.contains_key(name) {
        return;
    }
    let mut source = definition_source(name).unwrap_or_else(|| json!({"type": "object"}));
    // Known before its references are followed, as some definitions contain themselves.
    schemas.insert(name.to_owned(), Value::Null);
    let mut found = Vec::new();
    rewrite_references(&mut source, &mut found);
    for reference in found {
        add_definition(&reference, schemas);
    }
    schemas.insert(name.to_owned(), source);
}

/// `{"$ref": "name", …}` becomes `{"allOf": [{"$ref": "#/components/schemas/name"}], …}`.
fn rewrite_references(node: &mut Value, found: &mut Vec<String>) {
    match node {
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("$ref").cloned() {
                map.shift_remove("$ref");
                map.insert(
                    "allOf".to_owned(),
                    json!([{"$ref": format!("{REFERENCE}{name}")}]),
                );
                map.entry("default").or_insert_with(|| json!({}));
                found.push(name);
                return;
            }
            map.values_mut()
                .for_each(|child| rewrite_references(child, found));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite_references(item, found)),
        _ => {}
    }
}

fn add_paths(target: &Target, component: &str, paths: &mut Map<String, Value>) {
    let resource = &target.resource;
    let gvk = json!({"group": resource.group, "version": target.version().name, "kind": resource.kind});
    let base = path(&resource.group, &target.version().name);
    let scope = if resource.namespaced {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let collection = format!("/{base}/{scope}{}", resource.plural);
    let named = format!("{collection}/{{name}}");
    let patch_types: &[&str] = match resource.built_in {
        Some(_) => &[patch::JSON, patch::MERGE, patch::STRATEGIC],
        None => &[patch::JSON, patch::MERGE],
    };
    let object_types = &["application/json", "application/yaml"];
    let kind = resource.kind.as_str();
    let mut on_collection = json!({"get": operation("list", kind, &gvk, component, &[])});
    let mut on_named = json!({"get": operation("get", kind, &gvk, component, &[])});
    // Shown for kinds that users only read, too: kubectl asks here first, and the server then says why it refuses.
    on_collection["post"] = operation("post", kind, &gvk, component, object_types);
    on_named["put"] = operation("put", kind, &gvk, component, object_types);
    on_named["patch"] = operation("patch", kind, &gvk, component, patch_types);
    on_named["delete"] = operation("delete", kind, &gvk, component, &[]);
    paths.insert(collection, on_collection);
    paths.insert(named, on_named);
}

/// One operation; `accepted` are the content types of its body, none for operations that write nothing.
fn operation(action: &str, kind: &str, gvk: &Value, component: &str, accepted: &[&str]) -> Value {
    let content = |types: &[&str]| -> Map<String, Value> {
        let schema = json!({"schema": {"$ref": format!("{REFERENCE}{component}")}});
        types
            .iter()
            .map(|content_type| ((*content_type).to_owned(), schema.clone()))
            .collect()
    };
    let mut operation = json!({
        "operationId": format!("{action}{kind}"),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
        "responses": {"200": {"description": "OK", "content": content(&["application/json"])}},
    });
    if !accepted.is_empty() {
        let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        operation["parameters"] = json!([
            parameter("dryRun"),
            parameter("fieldManager"),
            parameter("fieldValidation")
        ]);
        operation["requestBody"] = json!({"required": true, "content": content(accepted)});
    }
    operation
}
