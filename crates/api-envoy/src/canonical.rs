//! One byte string per message: map entries in key order, at every depth, inside `Any` too.
//!
//! `prost-reflect` keeps maps in a hash map, so its own encoder gives other bytes on every run. Versions, caches and
//! delta xDS compare bytes, hence this encoder (protobuf encoding, "Serialization Is Not Canonical": the order is ours).

use prost::bytes::BufMut as _;
use prost::encoding::{self, WireType};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value,
};

use crate::type_url::message_name;

/// Encodes `message` with sorted maps; payloads of `Any` are decoded with `pool` and encoded the same way.
pub(crate) fn encode(pool: &DescriptorPool, message: &DynamicMessage) -> Vec<u8> {
    if message.descriptor().full_name() == "google.protobuf.Any"
        && let Some(bytes) = encode_any(pool, message)
    {
        return bytes;
    }
    let mut out = Vec::new();
    for (field, value) in message.fields() {
        encode_field(pool, &field, value, &mut out);
    }
    for field in message.unknown_fields() {
        field.encode(&mut out);
    }
    out
}

fn encode_any(pool: &DescriptorPool, any: &DynamicMessage) -> Option<Vec<u8>> {
    let url = any.get_field_by_name("type_url")?.as_str()?.to_owned();
    let bytes = any.get_field_by_name("value")?.as_bytes()?.clone();
    let descriptor = pool.get_message_by_name(message_name(&url))?;
    let inner = DynamicMessage::decode(descriptor, bytes).ok()?;
    let value = encode(pool, &inner);
    let mut out = Vec::new();
    encoding::string::encode(1, &url, &mut out);
    if !value.is_empty() {
        encoding::bytes::encode(2, &value, &mut out);
    }
    Some(out)
}

fn encode_field(pool: &DescriptorPool, field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) {
    let tag = field.number();
    match value {
        Value::List(items) if field.is_packed() => {
            let mut packed = Vec::new();
            for item in items {
                encode_packed(&field.kind(), item, &mut packed);
            }
            if !packed.is_empty() {
                length_delimited(tag, &packed, out);
            }
        }
        Value::List(items) => items
            .iter()
            .for_each(|item| encode_single(pool, tag, &field.kind(), item, out)),
        Value::Map(entries) => {
            let Kind::Message(entry) = field.kind() else {
                return;
            };
            let (key_field, value_field) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            for (key, item) in sorted {
                let mut body = Vec::new();
                encode_single(pool, 1, &key_field.kind(), &key_value(key), &mut body);
                encode_single(pool, 2, &value_field.kind(), item, &mut body);
                length_delimited(tag, &body, out);
            }
        }
        single => encode_single(pool, tag, &field.kind(), single, out),
    }
}

fn key_value(key: &MapKey) -> Value {
    key.clone().into()
}

fn length_delimited(tag: u32, body: &[u8], out: &mut Vec<u8>) {
    encoding::encode_key(tag, WireType::LengthDelimited, out);
    encoding::encode_varint(body.len() as u64, out);
    out.put_slice(body);
}

fn encode_single(pool: &DescriptorPool, tag: u32, kind: &Kind, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Message(m) => length_delimited(tag, &encode(pool, m), out),
        Value::String(s) => length_delimited(tag, s.as_bytes(), out),
        Value::Bytes(b) => length_delimited(tag, b, out),
        scalar => {
            encoding::encode_key(tag, wire_type(kind), out);
            encode_packed(kind, scalar, out);
        }
    }
}

fn wire_type(kind: &Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        _ => WireType::Varint,
    }
}

/// Writes a scalar without its key.
fn encode_packed(kind: &Kind, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(b) => encoding::encode_varint(u64::from(*b), out),
        Value::EnumNumber(n) => encoding::encode_varint(i64::from(*n).cast_unsigned(), out),
        Value::I32(n) => match kind {
            Kind::Sint32 => encoding::encode_varint(u64::from(((n << 1) ^ (n >> 31)).cast_unsigned()), out),
            Kind::Sfixed32 => out.put_i32_le(*n),
            _ => encoding::encode_varint(i64::from(*n).cast_unsigned(), out),
        },
        Value::I64(n) => match kind {
            Kind::Sint64 => encoding::encode_varint(((n << 1) ^ (n >> 63)).cast_unsigned(), out),
            Kind::Sfixed64 => out.put_i64_le(*n),
            _ => encoding::encode_varint(n.cast_unsigned(), out),
        },
        Value::U32(n) if matches!(kind, Kind::Fixed32) => out.put_u32_le(*n),
        Value::U32(n) => encoding::encode_varint(u64::from(*n), out),
        Value::U64(n) if matches!(kind, Kind::Fixed64) => out.put_u64_le(*n),
        Value::U64(n) => encoding::encode_varint(*n, out),
        Value::F32(n) => out.put_f32_le(*n),
        Value::F64(n) => out.put_f64_le(*n),
        Value::String(_) | Value::Bytes(_) | Value::Message(_) | Value::List(_) | Value::Map(_) => {
            debug_assert!(false, "not a scalar");
        }
    }
}
