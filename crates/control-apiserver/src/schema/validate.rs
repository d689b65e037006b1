//! Validation of a value against a schema, with the messages of kube-apiserver's (go-openapi's) validator.

use serde_json::Value;

use super::{Constraints, Schema, Type, child_path, lists, type_of};
use crate::status::Cause;

/// Appends everything that is wrong with `value` to `causes`. `is_root` excepts the object's own metadata, which has
/// checks of its own.
pub(crate) fn validate(schema: &Schema, value: &Value, path: &str, is_root: bool, causes: &mut Vec<Cause>) {
    if value.is_null() && (schema.nullable || schema.kind == Type::Any) {
        return;
    }
    if !matches_type(schema, value) {
        causes.push(wrong_type(path, schema, value));
        return;
    }
    if let Some(constraints) = &schema.constraints {
        check(constraints, value, path, causes);
    }
    match value {
        Value::Object(map) => {
            for name in &schema.required {
                if !map.contains_key(&**name) {
                    causes.push(Cause::required(child_path(path, name), ""));
                }
            }
            for (name, child) in map {
                if is_root && name == "metadata" {
                    continue;
                }
                if let Some(below) = schema.properties.get(name.as_str()) {
                    validate(below, child, &child_path(path, name), false, causes);
                } else if let Some(below) = &schema.additional {
                    validate(below, child, &child_path(path, name), false, causes);
                }
            }
            if schema.embedded_resource && !is_root {
                require_type_fields(value, path, causes);
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    validate(below, item, &format!("{path}[{index}]"), false, causes);
                }
            }
            lists::check_unique(&schema.list_type, items, path, causes);
        }
        _ => {}
    }
}

fn require_type_fields(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    for field in ["apiVersion", "kind"] {
        if value[field].as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(child_path(path, field), "must not be empty"));
        }
    }
}

fn matches_type(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match schema.kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}

fn wrong_type(path: &str, schema: &Schema, value: &Value) -> Cause {
    let wanted = if schema.int_or_string {
        "integer,string"
    } else {
        schema.kind.name()
    };
    let got = type_of(value);
    let detail = format!("{path} in body must be of type {wanted}: \"{got}\"");
    Cause::new(
        "FieldValueTypeInvalid",
        path,
        format!("Invalid value: \"{got}\": {detail}"),
    )
}

fn check(constraints: &Constraints, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if !constraints.enumeration.is_empty()
        && !constraints.enumeration.iter().any(|allowed| same(allowed, value))
    {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let supported: Vec<String> = constraints.enumeration.iter().map(plain).collect();
        causes.push(Cause::not_supported(path, value, &supported));
    }
    match value {
        Value::String(text) => check_text(constraints, text, path, causes),
        Value::Number(number) => {
            check_number(constraints, number.as_f64().unwrap_or(0.0), value, path, causes)
        }
        Value::Array(items) => check_items(constraints, items, path, causes),
        Value::Object(map) => check_count(constraints, map.len() as u64, value, path, causes),
        _ => {}
    }
    if let Some(format) = constraints.format
        && !format.accepts(value)
    {
        let shown = value
            .as_str()
            .map_or_else(|| value.to_string(), crate::status::quoted);
        let detail = format!("{path} in body must be of type {}: {shown}", format.name());
        causes.push(Cause::invalid(path, value, detail));
    }
    check_branches(constraints, value, path, causes);
}

fn check_text(constraints: &Constraints, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(max) = constraints.max_length
        && length > max
    {
        let message = format!("Too long: may not be more than {max} bytes");
        causes.push(Cause::new("FieldValueTooLong", path, message));
    }
    if let Some(min) = constraints.min_length
        && length < min
    {
        let detail = format!("{path} in body should be at least {min} chars long");
        causes.push(Cause::invalid(path, &text.into(), detail));
    }
    if let Some(pattern) = &constraints.pattern
        && !pattern.is_match(text)
    {
        let detail = format!("{path} in body should match '{pattern}'");
        causes.push(Cause::invalid(path, &text.into(), detail));
    }
}

fn check_number(constraints: &Constraints, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(max) = constraints.maximum {
        let exclusive = constraints.exclusive_maximum;
        if number > max || (exclusive && number >= max) {
            let or_equal = if exclusive { "" } else { "or equal to " };
            causes.push(Cause::invalid(
                path,
                value,
                format!("{path} in body should be less than {or_equal}{max}"),
            ));
        }
    }
    if let Some(min) = constraints.minimum {
        let exclusive = constraints.exclusive_minimum;
        if number < min || (exclusive && number <= min) {
            let or_equal = if exclusive { "" } else { "or equal to " };
            causes.push(Cause::invalid(
                path,
                value,
                format!("{path} in body should be greater than {or_equal}{min}"),
            ));
        }
    }
    if let Some(factor) = constraints.multiple_of
        && (number / factor).fract() != 0.0
    {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body should be a multiple of {factor}"),
        ));
    }
}

fn check_items(constraints: &Constraints, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let count = items.len() as u64;
    if let Some(max) = constraints.max_items
        && count > max
    {
        causes.push(too_many(path, count, max));
    }
    if let Some(min) = constraints.min_items
        && count < min
    {
        let detail = format!("{path} in body should have at least {min} items");
        causes.push(Cause::invalid(path, &count.into(), detail));
    }
    if constraints.unique_items && (1..items.len()).any(|index| items[..index].contains(&items[index])) {
        let detail = format!("{path} in body shouldn't contain duplicates");
        causes.push(Cause::invalid(path, &Value::Array(items.to_vec()), detail));
    }
}

fn check_count(constraints: &Constraints, count: u64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(max) = constraints.max_properties
        && count > max
    {
        causes.push(too_many(path, count, max));
    }
    if let Some(min) = constraints.min_properties
        && count < min
    {
        let detail = format!("{path} in body should have at least {min} properties");
        causes.push(Cause::invalid(path, value, detail));
    }
}

fn too_many(path: &str, count: u64, max: u64) -> Cause {
    let items = if max == 1 { "item" } else { "items" };
    Cause::new(
        "FieldValueTooMany",
        path,
        format!("Too many: {count}: must have at most {max} {items}"),
    )
}

fn check_branches(constraints: &Constraints, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let count = |branches: &[Schema]| branches.iter().filter(|branch| accepts(branch, value)).count();
    let mut fail = |message: String| causes.push(Cause::invalid(path, value, message));
    if !constraints.any_of.is_empty() && count(&constraints.any_of) == 0 {
        fail(format!("\"{path}\" must validate at least one schema (anyOf)"));
    }
    if !constraints.one_of.is_empty() {
        match count(&constraints.one_of) {
            1 => {}
            0 => fail(format!(
                "\"{path}\" must validate one and only one schema (oneOf). Found none valid"
            )),
            several => {
                fail(format!(
                    "\"{path}\" must validate one and only one schema (oneOf). Found {several} valid alternatives"
                ));
            }
        }
    }
    if let Some(not) = &constraints.not
        && accepts(not, value)
    {
        fail(format!("\"{path}\" must not validate the schema (not)"));
    }
    for branch in &constraints.all_of {
        validate(branch, value, path, false, causes);
    }
}

fn accepts(schema: &Schema, value: &Value) -> bool {
    let mut causes = Vec::new();
    validate(schema, value, "", false, &mut causes);
    causes.is_empty()
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}
