//! JSON to [`Schema`], for CRDs and for the definitions of the built-in kinds.

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Map, Value};

use super::{Constraints, ListType, PatchStrategy, Schema, Type, child_path};
use crate::expressions::{Rule, parse_rule};
use crate::formats::FormatKind;
use crate::limits;
use crate::status::Cause;

/// Parses an `openAPIV3Schema`; `path` is its place in the CRD, for error messages.
pub(crate) fn parse(value: &Value, path: &str) -> Result<Schema, Vec<Cause>> {
    let mut parser = Parser {
        causes: Vec::new(),
        definitions: None,
    };
    let schema = parser.schema(value, path, 0);
    if parser.causes.is_empty() {
        Ok(schema)
    } else {
        Err(parser.causes)
    }
}

/// Schemas of the built-in kinds, each parsed once.
pub(crate) struct Definitions {
    /// Finds the source of a definition.
    source: fn(&str) -> Option<Value>,
    parsed: HashMap<String, Arc<Schema>>,
}

/// Definitions that contain themselves; they are kept as they come and checked by their own code.
const RECURSIVE: &[&str] = &[
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
];

impl Definitions {
    pub(crate) fn new(source: fn(&str) -> Option<Value>) -> Self {
        Self {
            source,
            parsed: HashMap::new(),
        }
    }

    /// The schema of one definition and of everything it refers to.
    pub(crate) fn schema(&mut self, name: &str) -> Arc<Schema> {
        if let Some(schema) = self.parsed.get(name) {
            return Arc::clone(schema);
        }
        let source = (self.source)(name).unwrap_or_default();
        let schema = if RECURSIVE.contains(&name) || !source.is_object() {
            Schema {
                preserve_unknown: true,
                ..Schema::default()
            }
        } else {
            let mut parser = Parser {
                causes: Vec::new(),
                definitions: Some(self),
            };
            let mut schema = parser.schema(&source, name, 0);
            schema.type_name = name.rsplit('.').next().unwrap_or(name).into();
            schema
        };
        let schema = Arc::new(schema);
        self.parsed.insert(name.to_owned(), Arc::clone(&schema));
        schema
    }
}

struct Parser<'d> {
    causes: Vec<Cause>,
    definitions: Option<&'d mut Definitions>,
}

impl Parser<'_> {
    fn schema(&mut self, value: &Value, path: &str, depth: usize) -> Schema {
        let Some(map) = value.as_object() else {
            self.causes.push(Cause::invalid(path, value, "must be an object"));
            return Schema::default();
        };
        if depth > limits::SCHEMA_DEPTH_MAX {
            self.causes
                .push(Cause::forbidden(path, "the schema is nested too deeply"));
            return Schema::default();
        }
        let kind = self.kind(map, path);
        let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
        let format = map.get("format").and_then(Value::as_str).unwrap_or_default();
        Schema {
            kind,
            nullable: flag("nullable"),
            // A built-in field of type object without properties (managedFields) takes anything.
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields")
                || (self.definitions.is_some()
                    && (kind == Type::Any || kind == Type::Object)
                    && !map.contains_key("properties")
                    && !map.contains_key("additionalProperties")),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string") || format == "int-or-string",
            quantity: format == "quantity",
            list_type: list_type(map),
            properties: self.properties(map, path, depth),
            additional: self.additional(map, path, depth),
            items: map
                .get("items")
                .map(|items| self.reference(items, &child_path(path, "items"), depth)),
            required: strings(map.get("required")),
            default: map.get("default").cloned().map(Box::new),
            constraints: self.constraints(map, path, depth),
            rules: self.rules(map, path),
            patch: patch_strategy(map),
            type_name: Box::default(),
        }
    }

    fn kind(&mut self, map: &Map<String, Value>, path: &str) -> Type {
        match map.get("type").and_then(Value::as_str) {
            None => Type::Any,
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            Some(other) => {
                let known = ["array", "boolean", "integer", "number", "object", "string"].map(str::to_owned);
                self.causes.push(Cause::not_supported(
                    child_path(path, "type"),
                    &other.into(),
                    &known,
                ));
                Type::Any
            }
        }
    }

    /// A schema, or a reference to a definition.
    fn reference(&mut self, value: &Value, path: &str, depth: usize) -> Arc<Schema> {
        let name = value.get("$ref").and_then(Value::as_str);
        match (name, &mut self.definitions) {
            (Some(name), Some(definitions)) => {
                // A strategy beside the reference would be lost; only lists have one, and definitions are no lists.
                definitions.schema(name)
            }
            (Some(_), None) => {
                self.causes.push(Cause::forbidden(
                    child_path(path, "$ref"),
                    "$ref is not supported",
                ));
                Arc::default()
            }
            (None, _) => Arc::new(self.schema(value, path, depth + 1)),
        }
    }

    fn properties(
        &mut self,
        map: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> indexmap::IndexMap<Box<str>, Arc<Schema>> {
        let path = child_path(path, "properties");
        let Some(properties) = map.get("properties").and_then(Value::as_object) else {
            return indexmap::IndexMap::new();
        };
        let mut parsed = indexmap::IndexMap::with_capacity(properties.len());
        for (name, schema) in properties {
            let schema = self.reference(schema, &format!("{path}[{name}]"), depth);
            parsed.insert(name.as_str().into(), schema);
        }
        parsed
    }

    fn additional(&mut self, map: &Map<String, Value>, path: &str, depth: usize) -> Option<Arc<Schema>> {
        match map.get("additionalProperties")? {
            Value::Bool(false) => {
                self.causes.push(Cause::forbidden(
                    child_path(path, "additionalProperties"),
                    "must not be false",
                ));
                None
            }
            Value::Bool(true) => Some(Arc::new(Schema {
                preserve_unknown: true,
                ..Schema::default()
            })),
            schema => Some(self.reference(schema, &child_path(path, "additionalProperties"), depth)),
        }
    }

    fn constraints(
        &mut self,
        map: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Option<Box<Constraints>> {
        const NAMES: &[&str] = &[
            "format",
            "enum",
            "pattern",
            "minLength",
            "maxLength",
            "minimum",
            "maximum",
            "multipleOf",
            "minItems",
            "maxItems",
            "uniqueItems",
            "minProperties",
            "maxProperties",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !NAMES.iter().any(|name| map.contains_key(*name)) {
            return None;
        }
        let count = |name: &str| map.get(name).and_then(Value::as_u64);
        let number = |name: &str| map.get(name).and_then(Value::as_f64);
        let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
        Some(Box::new(Constraints {
            format: map
                .get("format")
                .and_then(Value::as_str)
                .and_then(FormatKind::named),
            enumeration: map
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            pattern: self.pattern(map, path),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag("uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of: self.branches(map, "allOf", path, depth),
            any_of: self.branches(map, "anyOf", path, depth),
            one_of: self.branches(map, "oneOf", path, depth),
            not: map
                .get("not")
                .map(|not| self.schema(not, &child_path(path, "not"), depth + 1)),
        }))
    }

    fn pattern(&mut self, map: &Map<String, Value>, path: &str) -> Option<Regex> {
        let pattern = map.get("pattern")?.as_str()?;
        match Regex::new(pattern) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let detail = format!("must be a valid regular expression, but isn't: {error}");
                self.causes.push(Cause::invalid(
                    child_path(path, "pattern"),
                    &pattern.into(),
                    detail,
                ));
                None
            }
        }
    }

    fn branches(&mut self, map: &Map<String, Value>, name: &str, path: &str, depth: usize) -> Vec<Schema> {
        let branches = map
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate();
        branches
            .map(|(index, branch)| self.schema(branch, &format!("{path}.{name}[{index}]"), depth + 1))
            .collect()
    }

    fn rules(&mut self, map: &Map<String, Value>, path: &str) -> Vec<Rule> {
        let Some(entries) = map.get("x-kubernetes-validations").and_then(Value::as_array) else {
            return Vec::new();
        };
        let mut parsed = Vec::with_capacity(entries.len());
        for (index, rule) in entries.iter().enumerate() {
            let path = format!("{path}.x-kubernetes-validations[{index}]");
            match parse_rule(rule, &path) {
                Ok(rule) => parsed.push(rule),
                // Rules of the built-in kinds that need what this server lacks are left to the kinds' own code.
                Err(_) if self.definitions.is_some() => {}
                Err(cause) => self.causes.push(cause),
            }
        }
        parsed
    }
}

fn list_type(map: &Map<String, Value>) -> ListType {
    match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(map.get("x-kubernetes-list-map-keys"))),
        _ => ListType::Atomic,
    }
}

fn patch_strategy(map: &Map<String, Value>) -> Option<Box<PatchStrategy>> {
    let strategy = map.get("x-kubernetes-patch-strategy")?.as_str()?;
    let merge_key = map
        .get("x-kubernetes-patch-merge-key")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Some(Box::new(PatchStrategy {
        merge: strategy.split(',').any(|part| part == "merge"),
        merge_key: merge_key.into(),
    }))
}

fn strings(value: Option<&Value>) -> Box<[Box<str>]> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(Into::into).collect()
}
