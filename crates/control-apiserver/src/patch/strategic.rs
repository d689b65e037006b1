//! Strategic merge patch: a merge patch in which lists of objects merge by key.
//!
//! Source: the Kubernetes documentation, "Strategic Merge Patch", and `x-kubernetes-patch-*` in the OpenAPI schemas.

use serde_json::{Map, Value};

use crate::schema::Schema;
use crate::status::Status;

/// `$patch: replace | delete | merge` inside an object.
const DIRECTIVE: &str = "$patch";
/// `$retainKeys: [..]`: all other fields of the object go.
const RETAIN_KEYS: &str = "$retainKeys";
/// `$deleteFromPrimitiveList/field: [..]`.
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
/// `$setElementOrder/field: [..]`.
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies `patch` to `object`, both shaped by `schema`.
pub(super) fn apply(schema: &Schema, object: &mut Value, patch: &Value) -> Result<(), Status> {
    let (Some(object), Some(patch)) = (object.as_object_mut(), patch.as_object()) else {
        return Err(Status::bad_request(
            "unable to apply a strategic merge patch to this object",
        ));
    };
    merge_object(Some(schema), object, patch)
}

fn merge_object(
    schema: Option<&Schema>,
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), Status> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *object = patch
                .iter()
                .filter(|(name, _)| *name != DIRECTIVE)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            return Ok(());
        }
        Some("delete") => {
            object.clear();
            return Ok(());
        }
        Some(other) => return Err(Status::bad_request(format!("Unknown patch type found: {other}"))),
    }
    if let Some(kept) = patch.get(RETAIN_KEYS).and_then(Value::as_array) {
        object.retain(|name, _| kept.iter().any(|kept| kept == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(object, list, value);
        } else if !name.starts_with('$') {
            merge_field(schema, object, name, value)?;
        }
    }
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix(ELEMENT_ORDER) {
            let key = merge_key(schema, list);
            reorder(object, list, order, &key, patch.get(list));
        }
    }
    Ok(())
}

fn below<'s>(schema: Option<&'s Schema>, name: &str) -> Option<&'s Schema> {
    let schema = schema?;
    schema
        .properties
        .get(name)
        .or(schema.additional.as_ref())
        .map(|below| &**below)
}

fn merge_key(schema: Option<&Schema>, list: &str) -> String {
    let strategy = below(schema, list).and_then(|below| below.patch.as_ref());
    strategy.map_or_else(String::new, |strategy| strategy.merge_key.to_string())
}

fn merge_field(
    schema: Option<&Schema>,
    object: &mut Map<String, Value>,
    name: &str,
    value: &Value,
) -> Result<(), Status> {
    let below = below(schema, name);
    match value {
        Value::Null => {
            object.shift_remove(name);
        }
        Value::Object(changes) => {
            if changes
                .get(DIRECTIVE)
                .is_some_and(|directive| directive == "delete")
            {
                object.shift_remove(name);
                return Ok(());
            }
            let current = object
                .entry(name.to_owned())
                .or_insert_with(|| Value::Object(Map::new()));
            if !current.is_object() {
                *current = Value::Object(Map::new());
            }
            if let Some(current) = current.as_object_mut() {
                merge_object(below, current, changes)?;
            }
        }
        Value::Array(items) => {
            let merges = below
                .and_then(|below| below.patch.as_ref())
                .is_some_and(|strategy| strategy.merge);
            let current = object
                .get(name)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let merged = if merges {
                merge_list(below, current, items, &merge_key(schema, name))?
            } else {
                items.clone()
            };
            // Deleting items of a list that is not there does not make it.
            let adds_nothing = merges && merged.is_empty() && !object.contains_key(name);
            if !adds_nothing {
                object.insert(name.to_owned(), Value::Array(merged));
            }
        }
        scalar => {
            object.insert(name.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

fn merge_list(
    schema: Option<&Schema>,
    mut current: Vec<Value>,
    patch: &[Value],
    key: &str,
) -> Result<Vec<Value>, Status> {
    if patch.iter().any(|item| item[DIRECTIVE] == "replace") {
        return Ok(patch
            .iter()
            .filter(|item| item[DIRECTIVE] != "replace")
            .cloned()
            .collect());
    }
    if key.is_empty() {
        for item in patch {
            if !current.contains(item) {
                current.push(item.clone());
            }
        }
        return Ok(current);
    }
    let items = schema.and_then(|schema| schema.items.as_deref());
    for item in patch {
        let identity = &item[key];
        if identity.is_null() {
            return Err(Status::bad_request(format!(
                "map: {item} does not contain declared merge key: {key}"
            )));
        }
        let position = current.iter().position(|candidate| candidate[key] == *identity);
        if item[DIRECTIVE] == "delete" {
            current.retain(|candidate| candidate[key] != *identity);
            continue;
        }
        let mut target =
            position.map_or_else(|| Value::Object(Map::new()), |position| current[position].clone());
        if let (Some(target), Some(changes)) = (target.as_object_mut(), item.as_object()) {
            merge_object(items, target, changes)?;
        }
        match position {
            Some(position) => current[position] = target,
            None => current.push(target),
        }
    }
    Ok(current)
}

fn delete_from_list(object: &mut Map<String, Value>, list: &str, values: &Value) {
    if let (Some(current), Some(values)) = (
        object.get_mut(list).and_then(Value::as_array_mut),
        values.as_array(),
    ) {
        current.retain(|item| !values.contains(item));
    }
}

/// Brings the items that `order` names into that order; items it does not name keep their place behind the item that
/// stood before them.
fn reorder(object: &mut Map<String, Value>, list: &str, order: &Value, key: &str, patched: Option<&Value>) {
    let (Some(current), Some(order)) = (
        object.get_mut(list).and_then(Value::as_array_mut),
        order.as_array(),
    ) else {
        return;
    };
    let identity = |item: &Value| {
        if key.is_empty() {
            item.clone()
        } else {
            item[key].clone()
        }
    };
    let wanted: Vec<Value> = order.iter().map(&identity).collect();
    let rank = |item: &Value| wanted.iter().position(|wanted| *wanted == identity(item));
    let mut named: Vec<Value> = current
        .iter()
        .filter(|item| rank(item).is_some())
        .cloned()
        .collect();
    named.sort_by_key(|item| rank(item).unwrap_or(usize::MAX));
    let mut named = named.into_iter();
    // Items only the server has stay where they are; the named ones fill the other places in their new order.
    let only_server = |item: &Value| rank(item).is_none();
    let mut result = Vec::with_capacity(current.len());
    for item in current.iter() {
        if only_server(item) {
            result.push(item.clone());
        } else if let Some(next) = named.next() {
            result.push(next);
        }
    }
    result.extend(named);
    debug_assert!(
        patched.is_none() || result.len() == current.len(),
        "reordering neither adds nor loses items"
    );
    *current = result;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog;

    fn patched(object: Value, patch: Value) -> Value {
        let schema = catalog::definition("io.k8s.api.core.v1.Service");
        let mut object = object;
        apply(&schema, &mut object, &patch).unwrap();
        object
    }

    fn service() -> Value {
        json!({"spec": {"selector": {"app": "a"}, "ports": [
            {"name": "http", "port": 80, "targetPort": 8080}, {"name": "tls", "port": 443}]}})
    }

    #[test]
    fn ports_merge_by_their_number() {
        let result = patched(
            service(),
            json!({"spec": {"ports": [{"port": 80, "targetPort": 9090}, {"name": "new", "port": 81}]}}),
        );
        assert_eq!(
            result["spec"]["ports"],
            json!([{"name": "http", "port": 80, "targetPort": 9090}, {"name": "tls", "port": 443}, {"name": "new", "port": 81}])
        );
    }

    #[test]
    fn an_item_is_deleted_by_directive_and_the_rest_is_ordered() {
        let result = patched(
            service(),
            json!({"spec": {"$setElementOrder/ports": [{"port": 81}, {"port": 80}],
                "ports": [{"name": "new", "port": 81}, {"$patch": "delete", "port": 443}]}}),
        );
        let ports: Vec<u64> = result["spec"]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["port"].as_u64().unwrap())
            .collect();
        assert_eq!(ports, [81, 80]);
    }

    #[test]
    fn null_removes_and_replace_replaces() {
        assert_eq!(
            patched(service(), json!({"spec": {"selector": null}}))["spec"].get("selector"),
            None
        );
        let result = patched(
            service(),
            json!({"spec": {"selector": {"$patch": "replace", "b": "c"}}}),
        );
        assert_eq!(result["spec"]["selector"], json!({"b": "c"}));
        let result = patched(
            service(),
            json!({"spec": {"ports": [{"$patch": "replace"}, {"port": 1}]}}),
        );
        assert_eq!(result["spec"]["ports"], json!([{"port": 1}]));
    }

    #[test]
    fn finalizers_are_a_set() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]}});
        let result = patched(
            object,
            json!({"metadata": {"finalizers": ["c", "a"], "$deleteFromPrimitiveList/finalizers": ["b"]}}),
        );
        assert_eq!(result["metadata"]["finalizers"], json!(["a", "c"]));
    }
}
