//! `v1 ServiceAccount`.

use serde_json::json;

use super::{BuiltInKind, age, column, count, name};

/// The account that every namespace has.
pub(crate) const DEFAULT: &str = "default";

/// The resource name.
pub(crate) const PLURAL: &str = "serviceaccounts";

pub(super) const KIND: BuiltInKind = BuiltInKind {
    short_names: &["sa"],
    columns: &[
        column("Name", "string"),
        column("Secrets", "string"),
        column("Age", "string"),
    ],
    cells: |object, now| vec![name(object), json!(count(&object["secrets"])), age(object, now)],
    ..BuiltInKind::plain(
        "",
        "v1",
        PLURAL,
        "serviceaccount",
        "ServiceAccount",
        "io.k8s.api.core.v1.ServiceAccount",
    )
};
