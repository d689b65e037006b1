//! `coordination.k8s.io/v1 Lease`.

use super::{BuiltInKind, age, column, name};

pub(super) const KIND: BuiltInKind = BuiltInKind {
    columns: &[
        column("Name", "string"),
        column("Holder", "string"),
        column("Age", "string"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            object["spec"]["holderIdentity"]
                .as_str()
                .unwrap_or_default()
                .into(),
            age(object, now),
        ]
    },
    ..BuiltInKind::plain(
        "coordination.k8s.io",
        "v1",
        "leases",
        "lease",
        "Lease",
        "io.k8s.api.coordination.v1.Lease",
    )
};
