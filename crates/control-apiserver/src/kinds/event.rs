//! Events, served as `v1` and as `events.k8s.io/v1`. They are stored in the form of `v1`.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{BuiltInKind, Conversion, Preparation, column, wide};
use crate::clock::age as age_of;
use crate::status::Status;

const COLUMNS: &[super::BuiltInColumn] = &[
    column("Last Seen", "string"),
    column("Type", "string"),
    column("Reason", "string"),
    column("Object", "string"),
    wide("Subobject"),
    wide("Source"),
    column("Message", "string"),
    wide("First Seen"),
    wide("Count"),
    wide("Name"),
];

pub(super) const CORE: BuiltInKind = BuiltInKind {
    short_names: &["ev"],
    columns: COLUMNS,
    cells,
    selectable_fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    prepare,
    ..BuiltInKind::plain("", "v1", "events", "event", "Event", "io.k8s.api.core.v1.Event")
};

pub(super) const EVENTS: BuiltInKind = BuiltInKind {
    short_names: &["ev"],
    columns: COLUMNS,
    cells: |object, now| {
        let mut stored = object.clone();
        to_stored(&mut stored);
        cells(&stored, now)
    },
    stored_group: "",
    selectable_fields: &[
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "reason",
        "reportingController",
        "type",
    ],
    conversion: Some(Conversion {
        to_stored,
        from_stored,
    }),
    ..BuiltInKind::plain(
        "events.k8s.io",
        "v1",
        "events",
        "event",
        "Event",
        "io.k8s.api.events.v1.Event",
    )
};

fn prepare(object: &mut Value, _old: Option<&Value>, _: &Preparation<'_>) -> Result<(), Status> {
    let Some(map) = object.as_object_mut() else {
        return Ok(());
    };
    for (field, empty) in [
        ("source", json!({})),
        ("firstTimestamp", Value::Null),
        ("lastTimestamp", Value::Null),
    ] {
        map.entry(field).or_insert(empty);
    }
    Ok(())
}

/// Fields that have another name in `events.k8s.io/v1`: there, here.
const RENAMED: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn to_stored(object: &mut Value) {
    rename(object, RENAMED.iter().copied());
}

fn from_stored(object: &mut Value) {
    rename(object, RENAMED.iter().map(|(there, here)| (*here, *there)));
}

fn rename<'n>(object: &mut Value, names: impl Iterator<Item = (&'n str, &'n str)>) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.shift_remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let about = &object["involvedObject"];
    let series = &object["series"]["lastObservedTime"];
    let first = [&object["firstTimestamp"], &object["eventTime"]]
        .into_iter()
        .find(|time| time.is_string());
    let last = [series, &object["lastTimestamp"], &object["eventTime"]]
        .into_iter()
        .find(|time| time.is_string());
    let seen = |time: Option<&Value>| age_of(time.unwrap_or(&Value::Null), now);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let source = [
        text(&object["source"]["component"]),
        text(&object["reportingComponent"]),
    ];
    let count = object["series"]["count"]
        .as_u64()
        .or(object["count"].as_u64())
        .unwrap_or(1);
    vec![
        seen(last).into(),
        object["type"].clone(),
        object["reason"].clone(),
        format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"])).into(),
        about["fieldPath"].as_str().unwrap_or_default().into(),
        source
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default()
            .into(),
        text(&object["message"]).trim().into(),
        seen(first).into(),
        count.into(),
        object["metadata"]["name"].clone(),
    ]
}
