//! CRDs side by side: everything that clients see, apart from the schemas, which are compared by their verdicts.

use serde_json::Value;

use super::CaseResult;

/// Compares a recorded CRD with ours of the same name.
pub(super) fn definition(recorded: &Value, own: &[Value]) -> CaseResult {
    let name = recorded["metadata"]["name"].as_str().unwrap_or_default();
    let case = format!("definition/{name}");
    let Some(ours) = own.iter().find(|crd| crd["metadata"]["name"] == name) else {
        return CaseResult::new(case, vec!["there is no such CRD".to_owned()]);
    };
    let mut differences = Vec::new();
    for path in [
        "/spec/group",
        "/spec/scope",
        "/spec/names/kind",
        "/spec/names/plural",
        "/spec/names/singular",
        "/spec/names/listKind",
    ] {
        differ(&mut differences, path, recorded.pointer(path), ours.pointer(path));
    }
    for path in ["/spec/names/shortNames", "/spec/names/categories"] {
        differ(
            &mut differences,
            path,
            sorted(recorded.pointer(path)).as_ref(),
            sorted(ours.pointer(path)).as_ref(),
        );
    }
    let versions = |crd: &Value| crd["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let (theirs, ours) = (versions(recorded), versions(ours));
    for version in &ours {
        if !theirs.iter().any(|known| known["name"] == version["name"]) {
            differences.push(format!("version {} is ours alone", version["name"]));
        }
    }
    for version in &theirs {
        let name = version["name"].as_str().unwrap_or_default();
        match ours.iter().find(|known| known["name"] == name) {
            None => differences.push(format!("version {name} is missing")),
            Some(own) => compare_version(name, version, own, &mut differences),
        }
    }
    CaseResult::new(case, differences)
}

fn compare_version(name: &str, recorded: &Value, own: &Value, differences: &mut Vec<String>) {
    for field in ["served", "storage", "subresources"] {
        differ(
            differences,
            &format!("{name}.{field}"),
            recorded.get(field),
            own.get(field),
        );
    }
    let columns = |version: &Value| -> Value {
        let columns = version["additionalPrinterColumns"]
            .as_array()
            .into_iter()
            .flatten();
        let shown = |column: &Value| {
            serde_json::json!([
                column["name"],
                column["type"],
                column["jsonPath"],
                column["priority"].as_i64().unwrap_or(0)
            ])
        };
        columns.map(shown).collect()
    };
    let (theirs, ours) = (columns(recorded), columns(own));
    differ(
        differences,
        &format!("{name}.additionalPrinterColumns"),
        Some(&theirs),
        Some(&ours),
    );
}

fn sorted(list: Option<&Value>) -> Option<Value> {
    let mut items = list?.as_array()?.clone();
    items.sort_by_key(Value::to_string);
    Some(Value::Array(items))
}

fn differ(differences: &mut Vec<String>, what: &str, recorded: Option<&Value>, own: Option<&Value>) {
    if recorded != own {
        let shown = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
        differences.push(format!(
            "{what}: recorded {}, ours {}",
            shown(recorded),
            shown(own)
        ));
    }
}
