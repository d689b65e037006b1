//! `x-kubernetes-list-type`: sets hold each value once, maps hold each key once.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::ListType;
use crate::status::Cause;

/// Appends a cause for each item that repeats an earlier one.
pub(super) fn check_unique(list_type: &ListType, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    if *list_type == ListType::Atomic {
        return;
    }
    let mut seen = HashSet::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let key = match list_type {
            ListType::Map(keys) => key_of(item, keys),
            _ => item.clone(),
        };
        if !seen.insert(key.to_string()) {
            causes.push(Cause::duplicate(format!("{path}[{index}]"), &key));
        }
    }
}

/// The fields that identify an item of a list of type map.
pub(crate) fn key_of(item: &Value, keys: &[Box<str>]) -> Value {
    let fields = keys
        .iter()
        .filter_map(|key| item.get(&**key).map(|value| (key.to_string(), value.clone())));
    Value::Object(fields.collect::<Map<_, _>>())
}
