//! Kubernetes structural schemas built from the declarations of the API types.
//!
//! Every `message!` implements [`Schema`]. [`crate::crds`] builds the schemas of all kinds when a server starts, and
//! `crds/*.yaml` holds the same for people (see [`crate::crd`]). Rules that the Rust type does not show (lengths,
//! patterns, CEL) are values of [`Rule`] in the declaration.
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::json;
use crate::well_known::{Bytes, Duration};

/// A type that can describe itself as a structural schema, without description.
pub trait Schema {
    /// The schema; `type` is always set unless the value may be of several types.
    fn schema() -> Value;
}

/// What a schema says beyond the Rust type.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// The field must be given.
    Required,
    /// `null` is accepted; protobuf's wrapper types.
    Nullable,
    /// Shortest string, in characters.
    MinLength(u64),
    /// Longest string, in characters.
    MaxLength(u64),
    /// Regular expression that the string must contain.
    Pattern(&'static str),
    /// OpenAPI format, such as `byte`.
    Format(&'static str),
    /// Smallest number.
    Minimum(u64),
    /// Largest number.
    Maximum(u64),
    /// Fewest elements of an array.
    MinItems(u64),
    /// Most elements of an array.
    MaxItems(u64),
    /// Fewest entries of a map.
    MinProperties(u64),
    /// Most entries of a map.
    MaxProperties(u64),
    /// A CEL rule and the message of its violation.
    Cel(&'static str, &'static str),
    /// Drops the CEL rules that the type brings along.
    NoCel,
    /// At most one of these fields may be given: a protobuf `oneof`.
    OneOf(&'static [&'static str]),
    /// A list whose elements are told apart by this key.
    ListMap(&'static str),
    /// Unknown fields are kept.
    PreserveUnknown,
    /// The rules are those of an array's elements or a map's values.
    Each(&'static [Rule]),
}

/// One field of a message, as it is declared.
pub struct Field {
    /// Its Rust name.
    pub name: &'static str,
    /// Its JSON names, where they are not made from the Rust name; each becomes a property.
    pub given: &'static [&'static str],
    /// Lines of documentation.
    pub doc: &'static [&'static str],
    /// Makes the schema of the type.
    pub schema: fn() -> Value,
    /// What the type does not say.
    pub rules: &'static [Rule],
}

/// Schema of an object out of its documentation, fields and rules.
pub fn object(doc: &[&str], fields: &[Field], rules: &[Rule]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let mut schema = (field.schema)();
        let names = json::names(field.name, field.given);
        schema["description"] = paragraphs(field.doc).into();
        apply(&mut schema, field.rules);
        if field.rules.iter().any(|rule| matches!(rule, Rule::Required)) {
            required.push(names[0].clone());
        }
        for alias in &names[1..] {
            properties.insert(alias.clone(), schema.clone());
        }
        properties.insert(names[0].clone(), schema);
    }
    properties.sort_keys();
    let mut schema = json!({ "description": paragraphs(doc), "type": "object" });
    if !properties.is_empty() {
        schema["properties"] = properties.into();
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    apply(&mut schema, rules);
    schema
}

/// Schema of an enum out of its names.
pub fn enumeration(names: &[&str]) -> Value {
    json!({ "type": "string", "enum": names })
}

/// Joins the lines of a doc comment; an empty line begins a paragraph.
fn paragraphs(doc: &[&str]) -> String {
    let mut text = String::new();
    for line in doc.iter().map(|line| line.trim()) {
        match line {
            "" => text.push_str("\n\n"),
            line => {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push(' ');
                }
                text.push_str(line);
            }
        }
    }
    text
}

/// Writes rules into a schema, several `oneof`s of one message as `allOf`.
pub fn apply(schema: &mut Value, rules: &[Rule]) {
    let mut one_ofs = Vec::new();
    for rule in rules {
        match *rule {
            Rule::Required => {}
            Rule::Nullable => schema["nullable"] = true.into(),
            Rule::MinLength(n) => schema["minLength"] = n.into(),
            Rule::MaxLength(n) => schema["maxLength"] = n.into(),
            Rule::Pattern(pattern) => schema["pattern"] = pattern.into(),
            Rule::Format(format) => schema["format"] = format.into(),
            Rule::Minimum(n) => schema["minimum"] = n.into(),
            Rule::Maximum(n) => schema["maximum"] = n.into(),
            Rule::MinItems(n) => schema["minItems"] = n.into(),
            Rule::MaxItems(n) => schema["maxItems"] = n.into(),
            Rule::MinProperties(n) => schema["minProperties"] = n.into(),
            Rule::MaxProperties(n) => schema["maxProperties"] = n.into(),
            Rule::Cel(rule, message) => push_cel(schema, rule, message),
            Rule::NoCel => {
                if let Some(schema) = schema.as_object_mut() {
                    schema.remove("x-kubernetes-validations");
                }
            }
            Rule::OneOf(names) => one_ofs.push(one_of(names)),
            Rule::ListMap(key) => {
                schema["x-kubernetes-list-type"] = "map".into();
                schema["x-kubernetes-list-map-keys"] = json!([key]);
            }
            Rule::PreserveUnknown => schema["x-kubernetes-preserve-unknown-fields"] = true.into(),
            Rule::Each(rules) => {
                let key = if schema.get("items").is_some() {
                    "items"
                } else {
                    "additionalProperties"
                };
                apply(&mut schema[key], rules);
            }
        }
    }
    match one_ofs.len() {
        0 => {}
        1 => schema["oneOf"] = one_ofs.remove(0),
        _ => {
            schema["allOf"] = one_ofs
                .into_iter()
                .map(|one_of| json!({ "oneOf": one_of }))
                .collect()
        }
    }
}

fn push_cel(schema: &mut Value, rule: &str, message: &str) {
    let rule = json!({ "message": message, "rule": rule });
    match schema
        .get_mut("x-kubernetes-validations")
        .and_then(Value::as_array_mut)
    {
        Some(rules) => rules.push(rule),
        None => schema["x-kubernetes-validations"] = json!([rule]),
    }
}

/// A protobuf `oneof`: none of the fields, or exactly one.
fn one_of(names: &[&str]) -> Value {
    let each: Vec<Value> = names.iter().map(|name| json!({ "required": [name] })).collect();
    let mut choices = vec![json!({ "not": { "anyOf": each } })];
    choices.extend(each);
    choices.into()
}

impl Schema for String {
    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

impl Schema for bool {
    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

impl Schema for i32 {
    fn schema() -> Value {
        json!({ "type": "integer", "format": "int32" })
    }
}

impl Schema for u32 {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
    }
}

impl Schema for u64 {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0 })
    }
}

impl Schema for f64 {
    fn schema() -> Value {
        json!({ "type": "number", "format": "double" })
    }
}

impl Schema for Duration {
    fn schema() -> Value {
        let mut schema = json!({ "type": "string" });
        push_cel(
            &mut schema,
            "duration(self) >= duration('1ms')",
            "must be a valid duration greater than 1ms",
        );
        schema
    }
}

impl Schema for Bytes {
    fn schema() -> Value {
        json!({ "type": "string", "format": "byte" })
    }
}

/// `google.protobuf.Struct`, and any other free-form object.
impl Schema for Map<String, Value> {
    fn schema() -> Value {
        json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

impl<T: Schema> Schema for Option<T> {
    fn schema() -> Value {
        T::schema()
    }
}

impl<T: Schema> Schema for Vec<T> {
    fn schema() -> Value {
        let mut schema = json!({ "type": "array" });
        schema["items"] = T::schema();
        schema
    }
}

impl<K, T: Schema> Schema for BTreeMap<K, T> {
    fn schema() -> Value {
        let mut schema = json!({ "type": "object" });
        schema["additionalProperties"] = T::schema();
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_oneofs_of_one_message_become_all_of() {
        let mut schema = json!({});
        apply(&mut schema, &[Rule::OneOf(&["a", "b"]), Rule::OneOf(&["c"])]);
        assert_eq!(schema["allOf"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            schema["allOf"][1]["oneOf"],
            json!([{ "not": { "anyOf": [{ "required": ["c"] }] } }, { "required": ["c"] }])
        );
    }

    #[test]
    fn doc_lines_join_into_paragraphs() {
        assert_eq!(
            paragraphs(&[" One", " two.", "", " Three."]),
            "One two.\n\nThree."
        );
    }
}
