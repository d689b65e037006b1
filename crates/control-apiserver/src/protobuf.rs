//! The few request bodies that kubectl sends as protobuf (`application/vnd.kubernetes.protobuf`).
//!
//! Source: `k8s.io/api/core/v1/generated.proto` and its siblings; the envelope is `runtime.Unknown` behind the magic
//! bytes `k8s\0`. Messages are described by tables and decoded straight into the JSON form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::status::Status;

const MAGIC: &[u8] = b"k8s\0";

/// The type of a field and how it looks in JSON.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Bool,
    /// Bytes, base64 in JSON.
    Bytes,
    Message(&'static [Field]),
    TextMap,
    BytesMap,
    /// `meta/v1 Time`, RFC 3339 in JSON.
    Time,
    /// `intstr.IntOrString`.
    IntOrString,
    Repeated(&'static Kind),
}

/// Number, JSON name, type.
type Field = (u64, &'static str, Kind);

const OWNER_REFERENCE: &[Field] = &[
    (1, "kind", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
    (5, "apiVersion", Kind::Text),
    (6, "controller", Kind::Bool),
    (7, "blockOwnerDeletion", Kind::Bool),
];
const METADATA: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (8, "creationTimestamp", Kind::Time),
    (9, "deletionTimestamp", Kind::Time),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (
        13,
        "ownerReferences",
        Kind::Repeated(&Kind::Message(OWNER_REFERENCE)),
    ),
    (14, "finalizers", Kind::Repeated(&Kind::Text)),
];
const NAMESPACE: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[(1, "finalizers", Kind::Repeated(&Kind::Text))]),
    ),
    (3, "status", Kind::Message(&[(1, "phase", Kind::Text)])),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::TextMap),
    (3, "binaryData", Kind::BytesMap),
    (4, "immutable", Kind::Bool),
];
const SECRET: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::BytesMap),
    (3, "type", Kind::Text),
    (4, "stringData", Kind::TextMap),
    (5, "immutable", Kind::Bool),
];
const SERVICE_ACCOUNT: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "secrets", Kind::Repeated(&Kind::Message(OBJECT_REFERENCE))),
    (
        3,
        "imagePullSecrets",
        Kind::Repeated(&Kind::Message(&[(1, "name", Kind::Text)])),
    ),
    (4, "automountServiceAccountToken", Kind::Bool),
];
const OBJECT_REFERENCE: &[Field] = &[
    (1, "kind", Kind::Text),
    (2, "namespace", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
    (5, "apiVersion", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "fieldPath", Kind::Text),
];
const SERVICE_PORT: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "protocol", Kind::Text),
    (3, "port", Kind::Int),
    (4, "targetPort", Kind::IntOrString),
    (5, "nodePort", Kind::Int),
    (6, "appProtocol", Kind::Text),
];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", Kind::Repeated(&Kind::Message(SERVICE_PORT))),
    (2, "selector", Kind::TextMap),
    (3, "clusterIP", Kind::Text),
    (4, "type", Kind::Text),
    (5, "externalIPs", Kind::Repeated(&Kind::Text)),
    (7, "sessionAffinity", Kind::Text),
    (8, "loadBalancerIP", Kind::Text),
    (9, "loadBalancerSourceRanges", Kind::Repeated(&Kind::Text)),
    (10, "externalName", Kind::Text),
    (11, "externalTrafficPolicy", Kind::Text),
    (12, "healthCheckNodePort", Kind::Int),
    (13, "publishNotReadyAddresses", Kind::Bool),
    (
        14,
        "sessionAffinityConfig",
        Kind::Message(&[(1, "clientIP", Kind::Message(&[(1, "timeoutSeconds", Kind::Int)]))]),
    ),
    (17, "ipFamilyPolicy", Kind::Text),
    (18, "clusterIPs", Kind::Repeated(&Kind::Text)),
    (19, "ipFamilies", Kind::Repeated(&Kind::Text)),
    (20, "allocateLoadBalancerNodePorts", Kind::Bool),
    (21, "loadBalancerClass", Kind::Text),
    (22, "internalTrafficPolicy", Kind::Text),
    (23, "trafficDistribution", Kind::Text),
];
const SERVICE: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(SERVICE_SPEC)),
];
const TOKEN_REQUEST: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[
            (1, "audiences", Kind::Repeated(&Kind::Text)),
            (4, "expirationSeconds", Kind::Int),
            (
                3,
                "boundObjectRef",
                Kind::Message(&[
                    (1, "kind", Kind::Text),
                    (2, "apiVersion", Kind::Text),
                    (3, "name", Kind::Text),
                    (4, "uid", Kind::Text),
                ]),
            ),
        ]),
    ),
];
const TOKEN_REVIEW: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[
            (1, "token", Kind::Text),
            (2, "audiences", Kind::Repeated(&Kind::Text)),
        ]),
    ),
];
const SELF_SUBJECT_REVIEW: &[Field] = &[(1, "metadata", Kind::Message(METADATA))];
const SELF_SUBJECT_ACCESS_REVIEW: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[
            (
                1,
                "resourceAttributes",
                Kind::Message(&[
                    (1, "namespace", Kind::Text),
                    (2, "verb", Kind::Text),
                    (3, "group", Kind::Text),
                    (4, "version", Kind::Text),
                    (5, "resource", Kind::Text),
                    (6, "subresource", Kind::Text),
                    (7, "name", Kind::Text),
                ]),
            ),
            (
                2,
                "nonResourceAttributes",
                Kind::Message(&[(1, "path", Kind::Text), (2, "verb", Kind::Text)]),
            ),
        ]),
    ),
];
const SELF_SUBJECT_RULES_REVIEW: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(&[(1, "namespace", Kind::Text)])),
];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Kind::Int),
    (
        2,
        "preconditions",
        Kind::Message(&[(1, "uid", Kind::Text), (2, "resourceVersion", Kind::Text)]),
    ),
    (3, "orphanDependents", Kind::Bool),
    (4, "propagationPolicy", Kind::Text),
    (5, "dryRun", Kind::Repeated(&Kind::Text)),
];

/// Kinds that can be read from protobuf.
const MESSAGES: &[(&str, &[Field])] = &[
    ("Namespace", NAMESPACE),
    ("ConfigMap", CONFIG_MAP),
    ("Secret", SECRET),
    ("ServiceAccount", SERVICE_ACCOUNT),
    ("Service", SERVICE),
    ("TokenRequest", TOKEN_REQUEST),
    ("TokenReview", TOKEN_REVIEW),
    ("SelfSubjectReview", SELF_SUBJECT_REVIEW),
    ("SelfSubjectAccessReview", SELF_SUBJECT_ACCESS_REVIEW),
    ("SelfSubjectRulesReview", SELF_SUBJECT_RULES_REVIEW),
    ("DeleteOptions", DELETE_OPTIONS),
];

/// Decodes an object from its protobuf envelope.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Status> {
    let damaged =
        || Status::bad_request("the body is not a valid application/vnd.kubernetes.protobuf message");
    let envelope = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (mut type_meta, mut raw) = (&[][..], &[][..]);
    for field in fields(envelope) {
        match field.ok_or_else(damaged)? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let meta_fields: &[Field] = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];
    let type_meta = message(type_meta, meta_fields).ok_or_else(damaged)?;
    let kind = type_meta.get("kind").and_then(Value::as_str).unwrap_or_default();
    let Some((_, known)) = MESSAGES.iter().find(|(name, _)| *name == kind) else {
        return Err(Status::unsupported_media_type(&[
            "application/json",
            "application/yaml",
        ]));
    };
    let mut object = type_meta.clone();
    object.extend(message(raw, known).ok_or_else(damaged)?);
    Ok(Value::Object(object))
}

enum Wire<'b> {
    Varint(u64),
    Bytes(&'b [u8]),
    Fixed,
}

/// The fields of a message in order; `None` marks damage, after which nothing follows.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Wire<'_>)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = next_field(&mut bytes);
        if field.is_none() {
            bytes = &[];
        }
        Some(field)
    })
}

fn next_field<'b>(bytes: &mut &'b [u8]) -> Option<(u64, Wire<'b>)> {
    let key = varint(bytes)?;
    let wire = match key & 7 {
        0 => Wire::Varint(varint(bytes)?),
        1 => fixed(bytes, 8)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Bytes(value)
        }
        5 => fixed(bytes, 4)?,
        _ => return None,
    };
    Some((key >> 3, wire))
}

fn fixed<'b>(bytes: &mut &'b [u8], length: usize) -> Option<Wire<'b>> {
    *bytes = bytes.get(length..)?;
    Some(Wire::Fixed)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn message(bytes: &[u8], known: &[Field]) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    for field in fields(bytes) {
        let (number, wire) = field?;
        let Some((_, name, kind)) = known.iter().find(|(known, _, _)| *known == number) else {
            continue;
        };
        add(&mut object, name, kind, &wire)?;
    }
    Some(object)
}

fn add(object: &mut Map<String, Value>, name: &str, kind: &Kind, wire: &Wire<'_>) -> Option<()> {
    match (kind, wire) {
        (Kind::Repeated(item), wire) => {
            let item = single(item, wire)?;
            let list = object.entry(name).or_insert_with(|| json!([]));
            list.as_array_mut()?.push(item);
        }
        (Kind::TextMap | Kind::BytesMap, Wire::Bytes(bytes)) => {
            let value_kind = if matches!(kind, Kind::TextMap) {
                Kind::Text
            } else {
                Kind::Bytes
            };
            let entry = message(bytes, &[(1, "key", Kind::Text), (2, "value", value_kind)])?;
            let key = entry
                .get("key")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            let value = entry.get("value").cloned().unwrap_or_else(|| json!(""));
            object
                .entry(name)
                .or_insert_with(|| json!({}))
                .as_object_mut()?
                .insert(key, value);
        }
        (kind, wire) => {
            let value = single(kind, wire)?;
            // Gogo protobuf writes unset fields too; in JSON they are absent.
            if !is_zero(&value) {
                object.insert(name.to_owned(), value);
            }
        }
    }
    Some(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn single(kind: &Kind, wire: &Wire<'_>) -> Option<Value> {
    match (kind, wire) {
        (Kind::Text, Wire::Bytes(bytes)) => Some(std::str::from_utf8(bytes).ok()?.into()),
        (Kind::Bytes, Wire::Bytes(bytes)) => Some(STANDARD.encode(bytes).into()),
        (Kind::Message(known), Wire::Bytes(bytes)) => Some(Value::Object(message(bytes, known)?)),
        (Kind::Int, Wire::Varint(number)) => Some(number.cast_signed().into()),
        (Kind::Bool, Wire::Varint(number)) => Some((*number != 0).into()),
        (Kind::Time, Wire::Bytes(bytes)) => {
            let time = message(bytes, &[(1, "seconds", Kind::Int)])?;
            let seconds = time.get("seconds").and_then(Value::as_i64);
            match seconds {
                Some(seconds) => Some(
                    crate::clock::timestamp(time::OffsetDateTime::from_unix_timestamp(seconds).ok()?).into(),
                ),
                None => Some(Value::Null),
            }
        }
        (Kind::IntOrString, Wire::Bytes(bytes)) => {
            let known: &[Field] = &[
                (1, "type", Kind::Int),
                (2, "int", Kind::Int),
                (3, "text", Kind::Text),
            ];
            let parts = message(bytes, known)?;
            let is_text = parts.get("type").and_then(Value::as_i64) == Some(1);
            let part = parts.get(if is_text { "text" } else { "int" });
            Some(
                part.cloned()
                    .unwrap_or_else(|| if is_text { json!("") } else { json!(0) }),
            )
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_becomes_its_json() {
        let entry = [field(1, b"key"), field(2, b"value")].concat();
        let metadata = [field(1, b"name"), field(3, b"")].concat();
        let raw = [field(1, &metadata), field(2, &entry)].concat();
        assert_eq!(
            decode(&envelope("ConfigMap", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "name"}, "data": {"key": "value"}})
        );
    }

    #[test]
    fn ports_keep_numbers_and_names_apart() {
        let target = [vec![0x08, 0x01], field(3, b"http")].concat();
        let port = [vec![0x18, 0x50], field(4, &target)].concat();
        let spec = field(1, &port);
        let decoded = decode(&envelope("Service", &field(2, &spec))).unwrap();
        assert_eq!(
            decoded["spec"]["ports"],
            json!([{"port": 80, "targetPort": "http"}])
        );
    }

    #[test]
    fn damage_and_unknown_kinds_are_refused() {
        assert_eq!(decode(b"{}").unwrap_err().reason, "BadRequest");
        assert_eq!(
            decode(&envelope("Deployment", b"")).unwrap_err().reason,
            "UnsupportedMediaType"
        );
        let mut cut = envelope("ConfigMap", &field(1, b"abc"));
        cut.truncate(cut.len() - 1);
        assert_eq!(decode(&cut).unwrap_err().reason, "BadRequest");
    }
}
