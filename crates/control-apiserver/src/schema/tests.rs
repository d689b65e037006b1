//! Pruning, defaulting and validation, with the texts users see.

use serde_json::json;

use super::*;
use crate::status::Cause;

fn schema(value: Value) -> Schema {
    parse(&value, "schema").unwrap()
}

fn messages(schema: &Schema, value: Value) -> Vec<String> {
    let mut causes = Vec::new();
    validate(schema, &value, "spec", false, &mut causes);
    causes.iter().map(Cause::to_string).collect()
}

#[test]
fn unknown_fields_are_dropped_and_reported_with_their_path() {
    let schema = schema(json!({"type": "object", "properties": {
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}));
    let mut value = json!({"list": [{"a": "1", "b": "2"}], "free": {"x": 1}, "bogus": true});
    let mut unknown = Vec::new();
    prune(&schema, &mut value, "spec", false, &mut unknown);
    assert_eq!(value, json!({"list": [{"a": "1"}], "free": {"x": 1}}));
    assert_eq!(unknown, ["spec.list[0].b", "spec.bogus"]);
}

#[test]
fn defaults_apply_inside_defaulted_objects_and_over_null() {
    let schema = schema(json!({"type": "object", "properties": {
        "outer": {"type": "object", "default": {}, "properties": {"inner": {"type": "integer", "default": 3}}},
        "null": {"type": "string", "default": "x"},
    }}));
    let mut value = json!({"null": null});
    apply_defaults(&schema, &mut value);
    assert_eq!(value, json!({"outer": {"inner": 3}, "null": "x"}));
}

#[test]
fn wrong_values_are_named_as_the_real_server_names_them() {
    let schema = schema(json!({"type": "object", "required": ["hosts"], "properties": {
        "hosts": {"type": "array", "items": {"type": "string", "minLength": 1}},
        "mode": {"type": "string", "enum": ["A", "B"]},
        "count": {"type": "integer", "minimum": 1},
        "map": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer"}},
    }}));
    assert_eq!(messages(&schema, json!({})), ["spec.hosts: Required value"]);
    assert_eq!(
        messages(&schema, json!({"hosts": "a"})),
        ["spec.hosts: Invalid value: \"string\": spec.hosts in body must be of type array: \"string\""]
    );
    assert_eq!(
        messages(&schema, json!({"hosts": [""]})),
        ["spec.hosts[0]: Invalid value: \"\": spec.hosts[0] in body should be at least 1 chars long"]
    );
    assert_eq!(
        messages(&schema, json!({"hosts": [], "mode": "C"})),
        ["spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\""]
    );
    assert_eq!(
        messages(&schema, json!({"hosts": [], "count": 0})),
        ["spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1"]
    );
    assert_eq!(
        messages(&schema, json!({"hosts": [], "map": {}})),
        ["spec.map: Invalid value: {}: spec.map in body should have at least 1 properties"]
    );
}

#[test]
fn exactly_one_branch_of_one_of_must_hold() {
    let schema = schema(
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "oneOf": [
            {"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}, {"required": ["a"]}, {"required": ["b"]},
        ]}),
    );
    for accepted in [json!({}), json!({"a": 1}), json!({"b": 1})] {
        assert_eq!(messages(&schema, accepted), Vec::<String>::new());
    }
    assert_eq!(messages(&schema, json!({"a": 1, "b": 1})).len(), 1);
}

#[test]
fn keys_of_map_lists_are_unique() {
    let schema = schema(
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}}),
    );
    assert_eq!(
        messages(&schema, json!([{"name": "a", "n": 1}, {"name": "a", "n": 2}])),
        ["spec[1]: Duplicate value: {\"name\":\"a\"}"]
    );
}
