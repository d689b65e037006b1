//! Structural schemas (`apiextensions.k8s.io/v1 JSONSchemaProps`) in the form the server works with.
//!
//! Documentation texts are not kept: they are read from the stored CRD when somebody asks for OpenAPI.

mod coerce;
mod decode;
mod default;
mod lists;
mod parse;
mod prune;
mod validate;

use std::sync::Arc;

use indexmap::IndexMap;
use regex::Regex;
use serde_json::Value;

use crate::expressions::Rule;
use crate::formats::FormatKind;

pub(crate) use coerce::metadata as coerce_metadata;
pub(crate) use decode::decode;
pub(crate) use default::apply_defaults;
pub(crate) use lists::key_of;
pub(crate) use parse::{Definitions, parse};
pub(crate) use prune::prune;
pub(crate) use validate::validate;

/// The JSON type a schema asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Type {
    /// No type given: anything, further constraints apart.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    /// The name in JSON Schema.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How a list merges and what must be unique in it: `x-kubernetes-list-type`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Scalars, each once.
    Set,
    /// Objects, told apart by these fields.
    Map(Box<[Box<str>]>),
}

/// How strategic merge patch treats a list: `x-kubernetes-patch-strategy` and `-merge-key`.
#[derive(Debug)]
pub(crate) struct PatchStrategy {
    pub(crate) merge: bool,
    /// Empty for lists of scalars.
    pub(crate) merge_key: Box<str>,
}

/// Constraints on values, apart because most nodes have none.
#[derive(Debug, Default)]
pub(crate) struct Constraints {
    pub(crate) format: Option<FormatKind>,
    pub(crate) enumeration: Vec<Value>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Schema>,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) kind: Type,
    pub(crate) nullable: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    pub(crate) int_or_string: bool,
    /// A Kubernetes quantity: a string or a number.
    pub(crate) quantity: bool,
    pub(crate) list_type: ListType,
    pub(crate) properties: IndexMap<Box<str>, Arc<Schema>>,
    pub(crate) additional: Option<Arc<Schema>>,
    pub(crate) items: Option<Arc<Schema>>,
    pub(crate) required: Box<[Box<str>]>,
    pub(crate) default: Option<Box<Value>>,
    pub(crate) constraints: Option<Box<Constraints>>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) patch: Option<Box<PatchStrategy>>,
    /// Name of the Go type in built-in kinds, for the wording of decoding errors.
    pub(crate) type_name: Box<str>,
}

/// The name of a value's JSON type, as error messages say it.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Path of a property below `path`.
pub(crate) fn child_path(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests;
