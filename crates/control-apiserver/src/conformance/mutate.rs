//! Small changes to objects: an unknown field in every object, a wrong type in every place.

use serde_json::{Value, json};

/// Changes per document; a large one is changed in its first places only.
const VARIANTS_MAX: usize = 60;

/// The object as it is, and changed, each with a word on what was changed.
pub(super) fn variants(object: &Value) -> Vec<(String, Value)> {
    let mut found = vec![("unchanged".to_owned(), object.clone())];
    let mut places = Vec::new();
    collect(&object["spec"], "/spec", &mut places);
    for place in places {
        if found.len() >= VARIANTS_MAX {
            break;
        }
        let Some(value) = object.pointer(&place) else {
            continue;
        };
        if value.is_object() {
            let mut changed = object.clone();
            if let Some(target) = changed.pointer_mut(&place) {
                target["unknownField"] = json!("x");
            }
            found.push((format!("unknown field in {place}"), changed));
        }
        let mut changed = object.clone();
        if let Some(target) = changed.pointer_mut(&place) {
            *target = wrong_type(value);
        }
        found.push((format!("wrong type at {place}"), changed));
    }
    found
}

fn collect(value: &Value, path: &str, places: &mut Vec<String>) {
    places.push(path.to_owned());
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(child, &format!("{path}/{name}"), places);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &format!("{path}/{index}"), places);
            }
        }
        _ => {}
    }
}

fn wrong_type(value: &Value) -> Value {
    match value {
        Value::String(_) => json!({"wrong": true}),
        Value::Number(_) => json!([]),
        Value::Bool(_) => json!("wrong"),
        Value::Array(_) => json!({"wrong": 1}),
        Value::Object(_) => json!("wrong"),
        Value::Null => json!(17),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_changed_once() {
        let object = json!({"spec": {"hosts": ["a"], "n": 1}});
        let changes: Vec<String> = variants(&object).into_iter().map(|(change, _)| change).collect();
        assert_eq!(
            changes,
            [
                "unchanged",
                "unknown field in /spec",
                "wrong type at /spec",
                "wrong type at /spec/hosts",
                "wrong type at /spec/hosts/0",
                "wrong type at /spec/n",
            ]
        );
    }
}
