//! `apiextensions.k8s.io/v1 CustomResourceDefinition`: admission of CRDs themselves.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{BuiltInKind, Preparation, column};
use crate::status::{Cause, Status};
use crate::store::ResourcePrefix;
use crate::{names, schema};

/// The finalizer that holds a CRD until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

pub(super) const KIND: BuiltInKind = BuiltInKind {
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    has_status: true,
    exclusive: true,
    columns: &[column("Name", "string"), column("Created At", "date")],
    cells: |object, _| {
        vec![
            object["metadata"]["name"].clone(),
            object["metadata"]["creationTimestamp"].clone(),
        ]
    },
    prepare,
    validate,
    ..BuiltInKind::plain(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "customresourcedefinition",
        "CustomResourceDefinition",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    )
};

/// Where CRDs are stored.
pub(crate) fn prefix() -> ResourcePrefix {
    ResourcePrefix::new(KIND.group, KIND.plural)
}

/// Defaults, and the status that the real server's controllers would set a moment later.
fn prepare(object: &mut Value, old: Option<&Value>, preparation: &Preparation<'_>) -> Result<(), Status> {
    let spec = &mut object["spec"];
    let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
    if spec["names"]["singular"].as_str().is_none_or(str::is_empty) {
        spec["names"]["singular"] = kind.to_lowercase().into();
    }
    if spec["names"]["listKind"].as_str().is_none_or(str::is_empty) {
        spec["names"]["listKind"] = format!("{kind}List").into();
    }
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    if old.is_none_or(|old| old["metadata"]["deletionTimestamp"].is_null())
        && object["metadata"]["deletionTimestamp"].is_null()
    {
        let finalizers = &mut object["metadata"]["finalizers"];
        if finalizers.is_null() {
            *finalizers = json!([]);
        }
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|finalizer| finalizer == FINALIZER)
        {
            list.push(FINALIZER.into());
        }
    }
    object["status"] = status(object, old, preparation);
    Ok(())
}

fn status(object: &Value, old: Option<&Value>, preparation: &Preparation<'_>) -> Value {
    let spec = &object["spec"];
    let conflict = name_conflict(object, preparation);
    let accepted = conflict.is_none();
    let established = accepted || old.is_some_and(|old| condition_is_true(old, "Established"));
    let versions = spec["versions"].as_array().into_iter().flatten();
    let storage = versions
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone());
    let mut stored: Vec<Value> = old
        .and_then(|old| old["status"]["storedVersions"].as_array().cloned())
        .unwrap_or_default();
    for version in storage {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    let names_accepted = match &conflict {
        None => condition(
            "NamesAccepted",
            true,
            "NoConflicts",
            "no conflicts found",
            old,
            preparation.now,
        ),
        Some((reason, message)) => condition("NamesAccepted", false, reason, message, old, preparation.now),
    };
    let establishment = if established {
        condition(
            "Established",
            true,
            "InitialNamesAccepted",
            "the initial names have been accepted",
            old,
            preparation.now,
        )
    } else {
        condition(
            "Established",
            false,
            "NotAccepted",
            "not all names are accepted",
            old,
            preparation.now,
        )
    };
    json!({
        "conditions": [names_accepted, establishment],
        "acceptedNames": if accepted { spec["names"].clone() } else { json!({"plural": "", "kind": ""}) },
        "storedVersions": stored,
    })
}

fn condition(
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    old: Option<&Value>,
    now: OffsetDateTime,
) -> Value {
    let status = if holds { "True" } else { "False" };
    let before = old
        .and_then(|old| find_condition(old, kind))
        .filter(|condition| condition["status"] == status);
    let since = before.map_or_else(
        || crate::clock::timestamp(now).into(),
        |condition| condition["lastTransitionTime"].clone(),
    );
    json!({"lastTransitionTime": since, "message": message, "reason": reason, "status": status, "type": kind})
}

fn find_condition<'o>(object: &'o Value, kind: &str) -> Option<&'o Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Whether a condition of a CRD's status is True.
pub(crate) fn condition_is_true(object: &Value, kind: &str) -> bool {
    find_condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Another CRD of the group that has one of the names already.
fn name_conflict(object: &Value, preparation: &Preparation<'_>) -> Option<(&'static str, String)> {
    let mine = &object["spec"]["names"];
    for other in preparation.store.list(&prefix(), "").objects {
        if object["metadata"]["name"] == other.name() {
            continue;
        }
        let other = other.value();
        if other["spec"]["group"] != object["spec"]["group"] || !condition_is_true(&other, "NamesAccepted") {
            continue;
        }
        let theirs = &other["spec"]["names"];
        if theirs["kind"] == mine["kind"] {
            return Some(("KindConflict", format!("{} is already in use", mine["kind"])));
        }
        let words = |names: &Value| -> Vec<Value> {
            let short = names["shortNames"].as_array().cloned().unwrap_or_default();
            [names["plural"].clone(), names["singular"].clone()]
                .into_iter()
                .chain(short)
                .collect()
        };
        let taken = words(theirs);
        if let Some(name) = words(mine).into_iter().find(|name| taken.contains(name)) {
            return Some(("PluralConflict", format!("{name} is already in use")));
        }
    }
    None
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let expected = format!("{plural}.{group}");
    if object["metadata"]["name"] != expected.as_str() {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid(
            "metadata.name",
            &object["metadata"]["name"],
            detail,
        ));
    }
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if names::dns_subdomain(&group).is_err() || !group.contains('.') {
        causes.push(Cause::invalid(
            "spec.group",
            &spec["group"],
            "should be a domain with at least one dot",
        ));
    }
    check_names(&spec["names"], &mut causes);
    let scopes = ["Cluster", "Namespaced"].map(str::to_owned);
    match text(&spec["scope"]).as_str() {
        "" => causes.push(Cause::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        _ => causes.push(Cause::not_supported("spec.scope", &spec["scope"], &scopes)),
    }
    if spec["conversion"]["strategy"] != "None" {
        causes.push(Cause::forbidden(
            "spec.conversion.strategy",
            "this server converts with strategy None only",
        ));
    }
    check_versions(spec, &mut causes);
    if let Some(old) = old {
        for field in ["group", "scope"] {
            if old["spec"][field] != spec[field] {
                causes.push(Cause::invalid(
                    format!("spec.{field}"),
                    &spec[field],
                    "field is immutable",
                ));
            }
        }
    }
    causes
}

fn check_names(object: &Value, causes: &mut Vec<Cause>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = object[field].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("spec.names.{field}"), ""));
        } else if let Err(detail) = names::dns_label(&name.to_lowercase()) {
            causes.push(Cause::invalid(
                format!("spec.names.{field}"),
                &object[field],
                detail,
            ));
        }
    }
}

fn check_versions(spec: &Value, causes: &mut Vec<Cause>) {
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count();
    if storage != 1 {
        let shown = spec["versions"].clone();
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &brief(&shown), detail));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        if let Err(detail) = names::dns_label(version["name"].as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(format!("{path}.name"), &version["name"], detail));
        }
        if versions[..index]
            .iter()
            .any(|other| other["name"] == version["name"])
        {
            causes.push(Cause::invalid(
                format!("{path}.name"),
                &version["name"],
                "must be unique",
            ));
        }
        let schema_path = format!("{path}.schema.openAPIV3Schema");
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            causes.push(Cause::required(schema_path, "schemas are required"));
        } else if let Err(found) = schema::parse(schema, &schema_path) {
            causes.extend(found);
        } else if schema["type"] != "object" {
            causes.push(Cause::invalid(
                format!("{schema_path}.type"),
                &schema["type"],
                "must be object at the root",
            ));
        }
        for (column, entry) in version["additionalPrinterColumns"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let json_path = entry["jsonPath"].as_str().unwrap_or_default();
            if let Err(detail) = crate::json_path::JsonPath::parse(json_path) {
                let field = format!("{path}.additionalPrinterColumns[{column}].jsonPath");
                causes.push(Cause::invalid(field, &entry["jsonPath"], detail));
            }
        }
    }
}

/// Versions without their schemas, for messages.
fn brief(versions: &Value) -> Value {
    let names = versions
        .as_array()
        .into_iter()
        .flatten()
        .map(|version| version["name"].clone());
    Value::Array(names.collect())
}
