//! One resource on the wire, and how to find its name.

use api_envoy::{Any, type_url};
use bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint};

/// A resource as it came from the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The name that subscriptions use.
    pub name: String,
    /// The version of this resource alone (delta), or of the response (state of the world). May be empty.
    pub version: String,
    /// The resource.
    pub body: Any,
    /// Whether the client holds, and has accepted, the same bytes under this name.
    pub unchanged: bool,
}

/// The name of a resource, read from its bytes.
///
/// Every resource type that Envoy defines has its name in field 1 (`name`, or `cluster_name` in
/// `ClusterLoadAssignment`). Istio's name table has no name; it is a singleton with the empty name.
/// Bytes that do not begin with such a field give the empty name.
#[must_use]
pub fn resource_name(body: &Any) -> String {
    if body.type_url == type_url::NAME_TABLE {
        return String::new();
    }
    let mut bytes = body.value.as_slice();
    // Proto writers emit fields in order, but a reader must not rely on it: skip until field 1.
    while bytes.has_remaining() {
        let Ok((tag, wire_type)) = decode_key(&mut bytes) else {
            break;
        };
        if tag == 1 && wire_type == WireType::LengthDelimited {
            return take(&mut bytes)
                .and_then(|b| std::str::from_utf8(b).ok())
                .unwrap_or_default()
                .to_owned();
        }
        let skipped = match wire_type {
            WireType::Varint => decode_varint(&mut bytes).ok().map(drop),
            WireType::LengthDelimited => take(&mut bytes).map(drop),
            WireType::SixtyFourBit => advance(&mut bytes, 8),
            WireType::ThirtyTwoBit => advance(&mut bytes, 4),
            WireType::StartGroup | WireType::EndGroup => None,
        };
        if skipped.is_none() {
            break;
        }
    }
    String::new()
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn advance(bytes: &mut &[u8], count: usize) -> Option<()> {
    *bytes = bytes.get(count..)?;
    Some(())
}

/// A hash of the bytes of a resource; equal within one process only.
pub(crate) fn fingerprint(body: &Any) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(body.type_url.as_bytes());
    hasher.write(&body.value);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::any::pack;
    use api_envoy::envoy::config::cluster::v3::Cluster;
    use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;

    #[test]
    fn the_name_is_field_one_of_every_type() {
        assert_eq!(
            resource_name(&pack(&Cluster {
                name: "a".into(),
                ..Default::default()
            })),
            "a"
        );
        let assignment = ClusterLoadAssignment {
            cluster_name: "b".into(),
            ..Default::default()
        };
        assert_eq!(resource_name(&pack(&assignment)), "b");
    }

    #[test]
    fn fields_before_the_name_are_skipped() {
        // Field 4 (varint 3), field 5 (four bytes), then field 1.
        let body = Any {
            type_url: type_url::CLUSTER.into(),
            value: b"\x20\x03\x2d\0\0\0\0\x0a\x01z".to_vec(),
        };
        assert_eq!(resource_name(&body), "z");
    }

    #[test]
    fn bytes_without_a_name_give_the_empty_name() {
        let body = Any {
            type_url: type_url::CLUSTER.into(),
            value: b"\x0a\xff".to_vec(),
        };
        assert_eq!(resource_name(&body), "");
    }
}
