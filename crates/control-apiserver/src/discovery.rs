//! Discovery: `/version`, `/api`, `/apis`, their groups and versions, classic and aggregated.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::catalog::{Catalog, ResourceType, ServedVersion, api_version};
use crate::response::{Body, json_value, with_type};
use crate::reviews;

/// The version of Kubernetes whose API this is: the one whose answers were recorded. kubectl warns when its own is
/// more than one minor version away.
pub(crate) const KUBERNETES_VERSION: &str = "v1.36.0";

/// Answers `/version`.
pub(crate) fn version() -> Response<Body> {
    let minor = KUBERNETES_VERSION.split('.').nth(1).unwrap_or_default();
    json_value(
        StatusCode::OK,
        &json!({
            "major": "1", "minor": minor, "gitVersion": KUBERNETES_VERSION, "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "", "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", std::env::consts::ARCH),
        }),
    )
}

/// Versions of the aggregated form, best first.
const AGGREGATED: &[&str] = &["v2", "v2beta1"];

/// The version of aggregated discovery that an Accept header prefers to the classic form.
fn aggregated(accept: &str) -> Option<&'static str> {
    for candidate in accept.split(',') {
        let parts: Vec<&str> = candidate.split(';').map(str::trim).collect();
        if parts.first() != Some(&"application/json") {
            continue;
        }
        if !parts.contains(&"as=APIGroupDiscoveryList") {
            return None;
        }
        let version = AGGREGATED
            .iter()
            .find(|version| parts.contains(&format!("v={version}").as_str()));
        if let Some(version) = version {
            return Some(version);
        }
    }
    None
}

/// Groups with their versions, those of the reviews included.
fn groups(catalog: &Catalog) -> Vec<(String, Vec<String>)> {
    let mut groups = catalog.groups();
    for review in reviews::ALL {
        if !groups.iter().any(|(name, _)| name == review.group) {
            groups.push((review.group.to_owned(), vec![reviews::VERSION.to_owned()]));
        }
    }
    groups
}

/// Answers `/api` and `/apis`.
pub(crate) fn root(catalog: &Catalog, accept: &str, core: bool) -> Response<Body> {
    let groups: Vec<_> = groups(catalog)
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .collect();
    if let Some(version) = aggregated(accept) {
        let items: Vec<Value> = groups
            .iter()
            .map(|(name, versions)| group_discovery(catalog, name, versions))
            .collect();
        let list = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": items,
        });
        let content_type = match version {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        };
        return with_type(StatusCode::OK, content_type, list.to_string().into_bytes());
    }
    if core {
        return json_value(
            StatusCode::OK,
            &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        );
    }
    let groups: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| api_group(name, versions))
        .collect();
    json_value(
        StatusCode::OK,
        &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
    )
}

/// Answers `/apis/GROUP`; `None` when there is no such group.
pub(crate) fn group(catalog: &Catalog, name: &str) -> Option<Response<Body>> {
    let (name, versions) = groups(catalog)
        .into_iter()
        .find(|(known, _)| known == name && !name.is_empty())?;
    let mut group = api_group(&name, &versions);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(json_value(StatusCode::OK, &group))
}

fn api_group(name: &str, versions: &[String]) -> Value {
    let entry = |version: &String| json!({"groupVersion": api_version(name, version), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

/// Answers `/api/v1` and `/apis/GROUP/VERSION`; `None` when nothing is served there.
pub(crate) fn resources(catalog: &Catalog, group: &str, version: &str) -> Option<Response<Body>> {
    let mut resources = Vec::new();
    for target in catalog.in_version(group, version) {
        let resource = &target.resource;
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = resource.short_names.clone().into();
        }
        if !resource.categories.is_empty() {
            entry["categories"] = resource.categories.clone().into();
        }
        resources.push(entry);
        for subresource in subresources(resource, target.version()) {
            resources.push(json!({
                "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": subresource.kind, "verbs": subresource.verbs,
                "group": subresource.group, "version": subresource.version,
            }));
        }
    }
    for review in reviews::ALL
        .iter()
        .filter(|review| review.group == group && version == reviews::VERSION)
    {
        resources.push(json!({
            "name": review.plural, "singularName": review.kind.to_lowercase(), "namespaced": false,
            "kind": review.kind, "verbs": ["create"],
        }));
    }
    if resources.is_empty() {
        return None;
    }
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": resources,
    });
    Some(json_value(StatusCode::OK, &list))
}

struct Subresource {
    name: &'static str,
    kind: String,
    group: String,
    version: String,
    verbs: &'static [&'static str],
}

fn subresources(resource: &ResourceType, version: &ServedVersion) -> Vec<Subresource> {
    let own = |name, verbs| Subresource {
        name,
        kind: resource.kind.clone(),
        group: resource.group.clone(),
        version: version.name.clone(),
        verbs,
    };
    let foreign = |name, kind: &str, group: &str, verbs| Subresource {
        name,
        kind: kind.to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        verbs,
    };
    let mut found = Vec::new();
    if version.has_status {
        found.push(own("status", &["get", "patch", "update"]));
    }
    if version.scale.is_some() {
        found.push(foreign(
            "scale",
            "Scale",
            "autoscaling",
            &["get", "patch", "update"],
        ));
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => found.push(own("finalize", &["update"])),
        ("", "serviceaccounts") => found.push(foreign(
            "token",
            "TokenRequest",
            "authentication.k8s.io",
            &["create"],
        )),
        _ => {}
    }
    found
}

fn group_discovery(catalog: &Catalog, name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| version_discovery(catalog, name, version))
        .collect();
    let mut metadata = json!({"creationTimestamp": null});
    if !name.is_empty() {
        metadata["name"] = name.into();
    }
    json!({"metadata": metadata, "versions": versions})
}

fn version_discovery(catalog: &Catalog, group: &str, version: &str) -> Value {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let mut resources = Vec::new();
    for target in catalog.in_version(group, version) {
        let resource = &target.resource;
        let mut entry = json!({
            "resource": resource.plural,
            "responseKind": {"group": resource.group, "version": version, "kind": resource.kind},
            "scope": scope(resource.namespaced),
            "singularResource": resource.singular,
            "verbs": resource.verbs(),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = resource.short_names.clone().into();
        }
        if !resource.categories.is_empty() {
            entry["categories"] = resource.categories.clone().into();
        }
        let subresources: Vec<Value> = subresources(resource, target.version())
            .into_iter()
            .map(|subresource| {
                json!({
                    "subresource": subresource.name, "verbs": subresource.verbs,
                    "responseKind": {"group": subresource.group, "version": subresource.version, "kind": subresource.kind},
                })
            })
            .collect();
        if !subresources.is_empty() {
            entry["subresources"] = subresources.into();
        }
        resources.push(entry);
    }
    for review in reviews::ALL
        .iter()
        .filter(|review| review.group == group && version == reviews::VERSION)
    {
        resources.push(json!({
            "resource": review.plural,
            "responseKind": {"group": review.group, "version": version, "kind": review.kind},
            "scope": scope(false),
            "singularResource": review.kind.to_lowercase(),
            "verbs": ["create"],
        }));
    }
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_form_that_is_asked_for_is_chosen() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                       application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated(kubectl), Some("v2"));
        assert_eq!(
            aggregated("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
            Some("v2beta1")
        );
        assert_eq!(aggregated("application/json"), None);
        assert_eq!(aggregated(""), None);
    }
}
