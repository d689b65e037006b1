//! The fields of a kind, from the schema of its CRD, and objects in which one of them is set.

use serde_json::{Map, Value};

use crate::values;

/// Stands in a path for an element of a list.
pub(crate) const ELEMENT: &str = "[]";
/// Stands in a path for an entry of a map.
pub(crate) const ENTRY: &str = "{}";

/// A field, by the names on the way to it.
pub(crate) type Path = Vec<String>;

/// What a field may be set to.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) path: Path,
    pub(crate) values: Vec<Value>,
}

/// Every field of a schema below `path`, lists, maps and messages included.
pub(crate) fn all(schema: &Value, path: &Path) -> Vec<Field> {
    let mut found = Vec::new();
    walk(schema, path, &mut found);
    found
}

fn walk(schema: &Value, path: &Path, found: &mut Vec<Field>) {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let below = |name: &str| [path.as_slice(), &[name.to_owned()]].concat();
    let mut values = Vec::new();
    if let Some(items) = schema.get("items") {
        let one = minimal(items, &below(ELEMENT));
        values.extend([Vec::new(), vec![one.clone()], vec![one.clone(), one]].map(Value::from));
        walk(items, &below(ELEMENT), found);
    } else if let Some(entries) = schema.get("additionalProperties") {
        let one = minimal(entries, &below(ENTRY));
        let entry = |key: &&str| Value::from(Map::from_iter([((*key).to_owned(), one.clone())]));
        values.extend(values::keys(&names).iter().map(entry));
        walk(entries, &below(ENTRY), found);
    } else if let Some(fields) = schema["properties"].as_object() {
        values.push(minimal(schema, path));
        for (name, field) in fields {
            walk(field, &below(name), found);
        }
    } else {
        values = values::of(&names, schema);
    }
    found.push(Field {
        path: path.clone(),
        values,
    });
}

/// The schema of the field at `path`.
pub(crate) fn schema_at<'s>(schema: &'s Value, path: &[String]) -> &'s Value {
    path.iter().fold(schema, |schema, name| match name.as_str() {
        ELEMENT => &schema["items"],
        ENTRY => &schema["additionalProperties"],
        name => &schema["properties"][name],
    })
}

/// Sets a field of a spec; what is missing on the way to it is made, with what it must have.
pub(crate) fn set(spec: &mut Value, schema: &Value, path: &[String], value: &Value) {
    let mut target = spec;
    for (depth, name) in path.iter().enumerate() {
        let done = &path[..=depth].to_vec();
        let make = || minimal(schema_at(schema, done), done);
        target = match name.as_str() {
            ELEMENT => {
                let list = target.as_array_mut().expect("a list");
                if list.is_empty() {
                    list.push(make());
                }
                &mut list[0]
            }
            ENTRY => {
                let map = target.as_object_mut().expect("a map");
                if map.is_empty() {
                    let names: Vec<&str> = path[..depth].iter().map(String::as_str).collect();
                    map.insert(values::keys(&names)[0].to_owned(), make());
                }
                map.values_mut().next().expect("an entry")
            }
            name => {
                let message = target.as_object_mut().expect("a message");
                message
                    .entry(name)
                    .or_insert_with(|| match schema_at(schema, done) {
                        schema if schema.get("items").is_some() => Value::Array(Vec::new()),
                        _ => make(),
                    })
            }
        };
    }
    *target = value.clone();
}

/// The least that may stand there.
fn minimal(schema: &Value, path: &Path) -> Value {
    let below = |name: &str| [path.as_slice(), &[name.to_owned()]].concat();
    if let Some(items) = schema.get("items") {
        return vec![minimal(items, &below(ELEMENT))].into();
    }
    if schema["type"] != "object" {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        return values::typical(&names, schema);
    }
    let required = schema["required"].as_array().into_iter().flatten();
    let fields = required.filter_map(|name| {
        let name = name.as_str()?;
        Some((
            name.to_owned(),
            minimal(&schema["properties"][name], &below(name)),
        ))
    });
    Value::Object(fields.collect())
}

/// A path as people write it: `trafficPolicy.tls.subjectAltNames[]`.
pub(crate) fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for name in path {
        match name.as_str() {
            ELEMENT | ENTRY => text.push_str(name),
            name if text.is_empty() => text.push_str(name),
            name => {
                text.push('.');
                text.push_str(name);
            }
        }
    }
    text
}
