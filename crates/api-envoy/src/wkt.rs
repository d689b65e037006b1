//! Short ways to write well-known types.

use std::time::Duration as StdDuration;

use prost_types::{Duration, ListValue, Struct, Value, value::Kind};

/// A protobuf duration of whole seconds.
#[must_use]
pub fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

/// A protobuf duration from a standard one.
#[must_use]
pub fn duration(d: StdDuration) -> Duration {
    Duration {
        seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        nanos: d.subsec_nanos().cast_signed(),
    }
}

/// A standard duration from a protobuf one; negative values become zero.
#[must_use]
pub fn std_duration(d: &Duration) -> StdDuration {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(d.seconds), u32::try_from(d.nanos)) else {
        return StdDuration::ZERO;
    };
    StdDuration::new(seconds, nanos)
}

/// A JSON value as `google.protobuf.Value`.
#[must_use]
pub fn value(json: &serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(b) => Kind::BoolValue(*b),
        serde_json::Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        serde_json::Value::String(s) => Kind::StringValue(s.clone()),
        serde_json::Value::Array(a) => Kind::ListValue(ListValue {
            values: a.iter().map(value).collect(),
        }),
        serde_json::Value::Object(o) => Kind::StructValue(object(o)),
    };
    Value { kind: Some(kind) }
}

fn object(map: &serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: map.iter().map(|(k, v)| (k.clone(), value(v))).collect(),
    }
}

/// A JSON object as `google.protobuf.Struct`; anything else is an empty struct.
#[must_use]
pub fn structure(json: &serde_json::Value) -> Struct {
    json.as_object().map(object).unwrap_or_default()
}

/// A `google.protobuf.Value` as JSON. Numbers without a fraction come out as integers.
#[must_use]
pub fn json_value(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(b)) => (*b).into(),
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
        Some(Kind::NumberValue(n)) => (*n).into(),
        Some(Kind::StringValue(s)) => s.clone().into(),
        Some(Kind::ListValue(l)) => l.values.iter().map(json_value).collect(),
        Some(Kind::StructValue(s)) => json_struct(s),
    }
}

/// A `google.protobuf.Struct` as a JSON object.
#[must_use]
pub fn json_struct(s: &Struct) -> serde_json::Value {
    serde_json::Value::Object(s.fields.iter().map(|(k, v)| (k.clone(), json_value(v))).collect())
}
