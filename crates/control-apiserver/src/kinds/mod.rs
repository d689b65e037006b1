//! The kinds that are built in, one file each: defaults, validation, columns and selectable fields.
//!
//! Everything that CRDs can express is not here: Istio's kinds come in as CRDs.

mod config_map;
pub(crate) mod custom_resource_definition;
mod endpoint_slice;
pub(crate) mod event;
mod lease;
pub(crate) mod namespace;
mod node;
mod pod;
mod secret;
mod service;
pub(crate) mod service_account;

use serde_json::Value;
use time::OffsetDateTime;

use crate::status::{Cause, Status};
use crate::store::Store;

/// All built-in kinds, in the order discovery shows them.
pub(crate) const ALL: &[&BuiltInKind] = &[
    &config_map::KIND,
    &event::CORE,
    &namespace::KIND,
    &node::KIND,
    &pod::KIND,
    &secret::KIND,
    &service_account::KIND,
    &service::KIND,
    &custom_resource_definition::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
    &event::EVENTS,
];

/// Every verb; kinds without restrictions have them all.
pub(crate) const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A column of a built-in kind's Table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuiltInColumn {
    pub(crate) name: &'static str,
    /// `string`, `integer` or `date`.
    pub(crate) kind: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub(crate) priority: i64,
}

/// A column that is always shown.
const fn column(name: &'static str, kind: &'static str) -> BuiltInColumn {
    BuiltInColumn {
        name,
        kind,
        priority: 0,
    }
}

/// A column of `-o wide`.
const fn wide(name: &'static str) -> BuiltInColumn {
    BuiltInColumn {
        name,
        kind: "string",
        priority: 1,
    }
}

/// The columns of kinds that have none of their own.
const NAME_AND_AGE: &[BuiltInColumn] = &[column("Name", "string"), column("Age", "string")];

/// What preparing an object may look at.
pub(crate) struct Preparation<'p> {
    pub(crate) store: &'p Store,
    pub(crate) now: OffsetDateTime,
}

/// How objects of a second API group are kept in the form of the first.
#[derive(Clone, Copy)]
pub(crate) struct Conversion {
    pub(crate) to_stored: fn(&mut Value),
    pub(crate) from_stored: fn(&mut Value),
}

/// One built-in kind.
pub(crate) struct BuiltInKind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// Group under which objects are stored; differs from `group` where two groups serve the same objects.
    pub(crate) stored_group: &'static str,
    /// Name of the schema in `assets/core-schemas.json`.
    pub(crate) definition: &'static str,
    pub(crate) has_status: bool,
    /// Written by the server only; others get 405.
    pub(crate) read_only: bool,
    /// Writes happen one after the other, because they allocate from a shared range.
    pub(crate) exclusive: bool,
    pub(crate) columns: &'static [BuiltInColumn],
    /// Cells for `columns`.
    pub(crate) cells: fn(&Value, OffsetDateTime) -> Vec<Value>,
    /// Fields that `fieldSelector` knows, besides name and namespace, as dotted paths.
    pub(crate) selectable_fields: &'static [&'static str],
    /// Fills in what the server decides, before validation; the second value is the object before an update.
    pub(crate) prepare: fn(&mut Value, Option<&Value>, &Preparation<'_>) -> Result<(), Status>,
    pub(crate) validate: fn(&Value, Option<&Value>) -> Vec<Cause>,
    pub(crate) conversion: Option<Conversion>,
}

impl BuiltInKind {
    /// A kind with all verbs and no rules of its own.
    const fn plain(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        singular: &'static str,
        kind: &'static str,
        definition: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            plural,
            singular,
            kind,
            short_names: &[],
            categories: &[],
            namespaced: true,
            stored_group: group,
            definition,
            has_status: false,
            read_only: false,
            exclusive: false,
            columns: NAME_AND_AGE,
            cells: |object, now| vec![name(object), age(object, now)],
            selectable_fields: &[],
            prepare: |_, _, _| Ok(()),
            validate: |_, _| Vec::new(),
            conversion: None,
        }
    }

    /// The verbs that discovery shows.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        if self.read_only {
            &["get", "list", "watch"]
        } else {
            ALL_VERBS
        }
    }
}

/// The Name cell.
fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// The Age cell.
fn age(object: &Value, now: OffsetDateTime) -> Value {
    crate::clock::age(&object["metadata"]["creationTimestamp"], now).into()
}

/// Number of entries of an object or list.
fn count(value: &Value) -> usize {
    value
        .as_object()
        .map_or_else(|| value.as_array().map_or(0, Vec::len), serde_json::Map::len)
}

/// Checks the keys of `data` maps: names of files.
fn check_data_keys(data: &Value, field: &str, causes: &mut Vec<Cause>) {
    for key in data.as_object().into_iter().flatten().map(|(key, _)| key) {
        let valid = !key.is_empty()
            && key.len() <= 253
            && key != "."
            && key != ".."
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !valid {
            let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
                          or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
            causes.push(Cause::invalid(
                format!("{field}[{key}]"),
                &key.as_str().into(),
                detail,
            ));
        }
    }
}
