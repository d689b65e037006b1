//! `x-kubernetes-validations`: running the rules of a schema over an object.

mod values;

use cel::{Context, ExecutionError};
use serde_json::Value;

use crate::expressions::{Rule, context};
use crate::schema::{ListType, Schema, Type, child_path, key_of};
use crate::status::Cause;

use values::to_cel;

/// Appends a cause for every rule that does not hold. `old` is the object before an update, where there is one.
pub(crate) fn check(schema: &Schema, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if !has_rules(schema) {
        return;
    }
    let context = context();
    let mut evaluation = Evaluation {
        context: &context,
        causes,
    };
    evaluation.node(schema, value, old, "");
}

/// Whether the schema has rules anywhere.
pub(crate) fn has_rules(schema: &Schema) -> bool {
    !schema.rules.is_empty()
        || schema.properties.values().any(|below| has_rules(below))
        || schema.items.as_ref().is_some_and(|below| has_rules(below))
        || schema.additional.as_ref().is_some_and(|below| has_rules(below))
}

struct Evaluation<'e> {
    context: &'e Context<'static, 'static>,
    causes: &'e mut Vec<Cause>,
}

impl Evaluation<'_> {
    fn node(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        if value.is_null() {
            return;
        }
        if !schema.rules.is_empty() {
            self.rules(schema, value, old, path);
        }
        match value {
            Value::Object(map) => {
                for (name, child) in map {
                    if let Some(below) = schema
                        .properties
                        .get(name.as_str())
                        .or(schema.additional.as_ref())
                    {
                        let old = old.and_then(|old| old.get(name));
                        self.node(below, child, old, &child_path(path, name));
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = &schema.items else { return };
                for (index, item) in items.iter().enumerate() {
                    let old = counterpart(&schema.list_type, item, old);
                    self.node(below, item, old, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        let this = to_cel(value, Some(schema));
        let before = old
            .filter(|old| !old.is_null())
            .map(|old| to_cel(old, Some(schema)));
        for rule in &schema.rules {
            if rule.is_transition && before.is_none() {
                continue;
            }
            let mut scope = self.context.new_inner_scope();
            scope.add_variable_from_value("self", this.clone());
            if rule.optional_old_self {
                let optional = match &before {
                    Some(before) => cel::objects::OptionalValue::of(before.clone()),
                    None => cel::objects::OptionalValue::none(),
                };
                scope.add_variable_from_value("oldSelf", cel::Value::Opaque(std::sync::Arc::new(optional)));
            } else if let Some(before) = &before {
                scope.add_variable_from_value("oldSelf", before.clone());
            }
            if let Some(detail) = violation(rule, &scope) {
                self.causes.push(cause(rule, schema, path, detail));
            }
        }
    }
}

/// What is wrong, or `None` when the rule holds.
fn violation(rule: &Rule, scope: &Context<'_, '_>) -> Option<String> {
    let described = || match &rule.message {
        Some(message) => message.to_string(),
        None => format!("failed rule: {}", rule.source),
    };
    match rule.program.execute(scope) {
        Ok(cel::Value::Bool(true)) => None,
        Ok(cel::Value::Bool(false)) => {
            let computed =
                rule.message_expression
                    .as_ref()
                    .and_then(|expression| match expression.execute(scope) {
                        Ok(cel::Value::String(text)) if !text.trim().is_empty() => Some(text.to_string()),
                        _ => None,
                    });
            Some(computed.unwrap_or_else(described))
        }
        Ok(other) => Some(format!(
            "the rule must evaluate to a bool, not {other:?}: {}",
            rule.source
        )),
        Err(error) => Some(format!("{} evaluating rule: {}", wording(&error), described())),
    }
}

/// The error in the words of cel-go.
fn wording(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::FunctionError { function, message } => match function.as_str() {
            "int" | "uint" | "double" => format!("type conversion error from 'string' to '{function}'"),
            _ => message.clone(),
        },
        other => other.to_string(),
    }
}

fn cause(rule: &Rule, schema: &Schema, path: &str, detail: String) -> Cause {
    let path = match (&*rule.field_path, path) {
        ("", "") => "<nil>".to_owned(),
        ("", path) => path.to_owned(),
        (field, path) => child_path(path, field),
    };
    match rule.reason {
        "FieldValueForbidden" => Cause::forbidden(path, &detail),
        "FieldValueRequired" => Cause::required(path, &detail),
        "FieldValueDuplicate" => Cause::new(
            "FieldValueDuplicate",
            path,
            format!("Duplicate value: \"{}\"", type_name(schema)),
        ),
        _ => Cause::invalid_type(path, type_name(schema), detail),
    }
}

fn type_name(schema: &Schema) -> &'static str {
    match schema.kind {
        Type::Any if schema.int_or_string => "",
        Type::Any => "object",
        kind => kind.name(),
    }
}

/// The item of the old list that is the same one; only keyed lists can tell.
fn counterpart<'o>(list_type: &ListType, item: &Value, old: Option<&'o Value>) -> Option<&'o Value> {
    let ListType::Map(keys) = list_type else {
        return None;
    };
    let key = key_of(item, keys);
    old?.as_array()?
        .iter()
        .find(|candidate| key_of(candidate, keys) == key)
}

#[cfg(test)]
mod tests;
