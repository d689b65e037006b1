//! `istio.metadata_exchange` on connections that carry bytes (`envoy.tcp.metadataexchange.config.MetadataExchange`): two
//! proxies that agreed on its application protocol in the TLS handshake begin what they send with a frame that tells of
//! their node.
//!
//! A frame is a magic number, the length of what follows, both in four bytes, and an `Any` with a `Struct`. Istio's own
//! filter sends it before the first byte that it sends or after the first that it receives; this one when the connection
//! is there, which the other takes as well. What the peer tells is taken out of the stream; nobody here asks for it yet.

use std::sync::Arc;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::udpa::r#type::v1::TypedStruct;
use api_envoy::{Any, Message as _, Struct, any, type_url, wkt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_types::Value;
use prost_types::value::Kind;
use proxy_core::{ConfigError, ConfigResult};

use crate::limits::MAX_PEER_METADATA_BYTES;

/// The message of the filter's configuration.
pub const MESSAGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";

const MAGIC: [u8; 4] = 0x3D23_0467_u32.to_be_bytes();
const HEADER_BYTES: usize = 8;

/// What is told of a node, of all its metadata.
const TOLD: &[&str] = &[
    "NAME",
    "NAMESPACE",
    "CLUSTER_ID",
    "WORKLOAD_NAME",
    "OWNER",
    "LABELS",
    "MESH_ID",
    "INSTANCE_IPS",
];

/// The filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataExchange {
    protocol: Arc<str>,
}

impl MetadataExchange {
    /// Reads the filter's configuration.
    ///
    /// # Errors
    /// It is another one, or has a field that is not known.
    pub fn compile(typed: &Any) -> ConfigResult<Self> {
        let typed: TypedStruct = any::unpack(typed).map_err(|error| ConfigError::new(error.to_string()))?;
        if type_url::message_name(&typed.type_url) != MESSAGE {
            return Err(ConfigError::at(
                "type_url",
                format!("is {}, not {MESSAGE}", typed.type_url),
            ));
        }
        let fields = typed.value.unwrap_or_default().fields;
        let text = |value: &Value| match &value.kind {
            Some(Kind::StringValue(text)) => Some(Arc::<str>::from(text.as_str())),
            _ => None,
        };
        // `enable_discovery` lets Istio's filter look for peers that told nothing, for its statistics.
        if let Some(field) = fields
            .keys()
            .find(|name| !["protocol", "enable_discovery"].contains(&name.as_str()))
        {
            return Err(ConfigError::unsupported(field).within("value"));
        }
        let protocol = fields
            .get("protocol")
            .and_then(text)
            .filter(|name| !name.is_empty());
        let protocol =
            protocol.ok_or_else(|| ConfigError::at("protocol", "a name is needed").within("value"))?;
        Ok(Self { protocol })
    }

    /// Whether frames are exchanged on a connection whose handshake told this.
    #[must_use]
    pub fn is_agreed_on(&self, tls: Option<&tls::ConnectionInfo>) -> bool {
        tls.and_then(|tls| tls.alpn.as_deref()) == Some(&*self.protocol)
    }
}

/// What peers are told of a node.
#[derive(Debug)]
pub struct Told {
    /// On connections that carry bytes: a frame.
    pub frame: Box<[u8]>,
    /// In the headers of requests and answers: the node's id.
    pub id: Box<str>,
    /// Beside it the same metadata as in the frame, a `Struct` in base64.
    pub metadata: Box<str>,
}

impl Told {
    /// What is told of `node`.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let metadata = node.metadata.as_ref().map(|metadata| &metadata.fields);
        let told = TOLD.iter().filter_map(|name| {
            let value = metadata?.get(*name)?;
            Some(((*name).to_owned(), value.clone()))
        });
        let metadata = Struct {
            fields: told.collect(),
        };
        Self {
            id: node.id.as_str().into(),
            metadata: STANDARD.encode(metadata.encode_to_vec()).into(),
            frame: frame(&node.id, metadata).into(),
        }
    }
}

fn frame(id: &str, metadata: Struct) -> Vec<u8> {
    let metadata = Value {
        kind: Some(Kind::StructValue(metadata)),
    };
    let peer = Struct {
        fields: [
            ("x-envoy-peer-metadata".to_owned(), metadata),
            ("x-envoy-peer-metadata-id".to_owned(), wkt::value(&id.into())),
        ]
        .into(),
    };
    let body = Any {
        type_url: format!("{}google.protobuf.Struct", type_url::PREFIX),
        value: peer.encode_to_vec(),
    };
    let body = body.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&MAGIC[..], &length, &body].concat()
}

/// Takes the peer's frame out of the beginning of what it sends.
#[derive(Debug, Default)]
pub struct PeerFrame {
    held: Vec<u8>,
}

/// What became of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// They all belong to the frame, or may: there is nothing to pass on yet.
    NeedMore,
    /// This is behind the frame, or all there is, when there is none. Whatever follows is passed on.
    Rest(Vec<u8>),
    /// The frame is longer than frames may be.
    TooLong,
}

impl PeerFrame {
    /// Takes the bytes that came.
    pub fn push(&mut self, bytes: &[u8]) -> Taken {
        self.held.extend_from_slice(bytes);
        let common = self.held.len().min(MAGIC.len());
        if self.held[..common] != MAGIC[..common] {
            return Taken::Rest(std::mem::take(&mut self.held));
        }
        let Some(header) = self.held.get(MAGIC.len()..HEADER_BYTES) else {
            return Taken::NeedMore;
        };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length > MAX_PEER_METADATA_BYTES {
            return Taken::TooLong;
        }
        if self.held.len() < HEADER_BYTES + length {
            return Taken::NeedMore;
        }
        let rest = self.held.split_off(HEADER_BYTES + length);
        self.held = Vec::new();
        Taken::Rest(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        let metadata =
            json!({ "NAME": "a-1", "NAMESPACE": "default", "LABELS": { "app": "a" }, "PROXY_CONFIG": {} });
        Node {
            id: "sidecar~10.0.0.1~a-1.default~default.svc.cluster.local".to_owned(),
            metadata: Some(wkt::structure(&metadata)),
            ..Node::default()
        }
    }

    #[test]
    fn the_frame_tells_of_the_node() {
        let frame = Told::of(&node()).frame;
        assert_eq!(frame[..4], [0x3d, 0x23, 0x04, 0x67]);
        let length = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
        assert_eq!(frame.len(), HEADER_BYTES + length);
        let body = Any::decode(&frame[8..]).unwrap();
        let told = wkt::json_struct(&Struct::decode(&body.value[..]).unwrap());
        let expected = json!({
            "x-envoy-peer-metadata": { "NAME": "a-1", "NAMESPACE": "default", "LABELS": { "app": "a" } },
            "x-envoy-peer-metadata-id": node().id,
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn a_frame_is_taken_out_however_it_is_cut() {
        let bytes = [&Told::of(&node()).frame[..], b"hello"].concat();
        for size in [1, 3, 8, 50, bytes.len()] {
            let (mut peer, mut passed, mut done) = (PeerFrame::default(), Vec::new(), false);
            for part in bytes.chunks(size) {
                match done {
                    true => passed.extend_from_slice(part),
                    false => {
                        if let Taken::Rest(rest) = peer.push(part) {
                            passed.extend(rest);
                            done = true;
                        }
                    }
                }
            }
            assert_eq!(passed, b"hello", "in parts of {size}");
        }
    }

    #[test]
    fn who_sends_no_frame_loses_nothing() {
        assert_eq!(
            PeerFrame::default().push(b"hello"),
            Taken::Rest(b"hello".to_vec())
        );
        let mut peer = PeerFrame::default();
        assert_eq!(peer.push(&MAGIC[..3]), Taken::NeedMore);
        assert_eq!(peer.push(b"x"), Taken::Rest([&MAGIC[..3], b"x"].concat()));
    }

    #[test]
    fn a_frame_without_bounds_is_not_waited_for() {
        let announced = [&MAGIC[..], &[0xff; 4]].concat();
        assert_eq!(PeerFrame::default().push(&announced), Taken::TooLong);
    }

    #[test]
    fn other_settings_are_refused_by_name() {
        let compile = |url: &str, value: serde_json::Value| {
            let typed = TypedStruct {
                type_url: format!("type.googleapis.com/{url}"),
                value: Some(wkt::structure(&value)),
            };
            assert_eq!(any::message_of(&any::pack(&typed)), url);
            MetadataExchange::compile(&any::pack(&typed)).map_err(|error| error.path().to_owned())
        };
        let good = json!({ "protocol": "istio-peer-exchange", "enable_discovery": true });
        assert!(compile(MESSAGE, good).is_ok());
        assert_eq!(compile(MESSAGE, json!({})), Err("value.protocol".to_owned()));
        let unknown = json!({ "protocol": "x", "other": 1 });
        assert_eq!(compile(MESSAGE, unknown), Err("value.other".to_owned()));
        assert_eq!(compile("x.Y", json!({})), Err("type_url".to_owned()));
    }
}
