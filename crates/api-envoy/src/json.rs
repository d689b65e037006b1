//! The protobuf JSON mapping (ProtoJSON) of every message in this crate, both ways, and YAML by way of JSON.
//!
//! Reading accepts snake_case and lowerCamelCase names, refuses unknown fields and names the path of what it refuses.
//! Printing expands `Any` at every depth and comes in [`Style::Envoy`] (snake_case, as `/config_dump` prints) or
//! [`Style::Canonical`] (lowerCamelCase). An `Any` of a type that this crate does not know cannot be expanded; it is
//! printed as its type URL and base64 payload.
//!
//! The descriptor pool behind this takes some megabytes: [`Schema::get`] shares one while somebody holds it, and the
//! memory goes when the last holder drops it.

use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions, Value as Dynamic,
};
use prost_types::Any;
use serde_json::Value;

use crate::canonical;
use crate::type_url::{PREFIX, message_name};

static DESCRIPTORS: &[u8] = include_bytes!("../descriptors.bin.gz");

/// How field names are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// snake_case, as Envoy's admin interface prints.
    Envoy,
    /// lowerCamelCase, as ProtoJSON's canonical form wants.
    Canonical,
}

/// Why JSON or YAML was refused, or a message could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text is not YAML (JSON is a subset of it).
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// A field is unknown or has a wrong type.
    #[error("{message_type}: at {path}: {reason}")]
    Field {
        /// The message that was being read.
        message_type: String,
        /// The path inside it, dots and indexes.
        path: String,
        /// What is wrong there.
        reason: String,
    },
    /// No such message type in this crate.
    #[error("unknown message type {0}")]
    UnknownType(String),
    /// Bytes that do not decode as their type says.
    #[error("{message_type} does not decode: {reason}")]
    Malformed {
        /// The message type.
        message_type: String,
        /// What protobuf says.
        reason: String,
    },
}

/// The descriptors of all messages. Cheap to clone, dear to load: see [`Schema::get`].
#[derive(Clone, Debug)]
pub struct Schema {
    pool: Arc<DescriptorPool>,
    ignore_unknown_fields: bool,
}

static SHARED: Mutex<Weak<DescriptorPool>> = Mutex::new(Weak::new());

impl Schema {
    /// The schema, loaded if nobody holds it at the moment.
    ///
    /// # Panics
    /// Never in a built binary: the descriptors are part of it and a test loads them.
    #[must_use]
    pub fn get() -> Self {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = shared.upgrade() {
            return Self {
                pool,
                ignore_unknown_fields: false,
            };
        }
        let mut raw = Vec::new();
        flate2::read::GzDecoder::new(DESCRIPTORS)
            .read_to_end(&mut raw)
            .expect("embedded descriptors unpack");
        let pool = Arc::new(DescriptorPool::decode(raw.as_slice()).expect("embedded descriptors decode"));
        *shared = Arc::downgrade(&pool);
        Self {
            pool,
            ignore_unknown_fields: false,
        }
    }

    /// A schema that reads on where JSON has a field that the message has not.
    #[must_use]
    pub fn that_ignores_unknown_fields(mut self) -> Self {
        self.ignore_unknown_fields = true;
        self
    }

    fn descriptor(&self, name: &str) -> Result<MessageDescriptor, JsonError> {
        self.pool
            .get_message_by_name(name)
            .ok_or_else(|| JsonError::UnknownType(name.to_owned()))
    }

    /// Whether `name` (a full message name, or a type URL) is known.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.pool.get_message_by_name(message_name(name)).is_some()
    }

    /// Reads a message of type `M`.
    ///
    /// # Errors
    /// An unknown field or a wrong type, with its path.
    pub fn parse<M: Message + Name + Default>(&self, json: &Value) -> Result<M, JsonError> {
        let bytes = self.parse_bytes(&M::full_name(), json)?;
        M::decode(bytes.as_slice()).map_err(|e| JsonError::Malformed {
            message_type: M::full_name(),
            reason: e.to_string(),
        })
    }

    /// Reads a message of type `M` from YAML or JSON text.
    ///
    /// # Errors
    /// Text that is not YAML, an unknown field or a wrong type.
    pub fn parse_yaml<M: Message + Name + Default>(&self, text: &str) -> Result<M, JsonError> {
        self.parse(&yaml_to_json(text)?)
    }

    /// Reads JSON that carries its own `@type`.
    ///
    /// # Errors
    /// No `@type`, an unknown type, an unknown field or a wrong type.
    pub fn parse_any(&self, json: &Value) -> Result<Any, JsonError> {
        const NAME: &str = "google.protobuf.Any";
        let bytes = self.parse_bytes(NAME, json)?;
        Any::decode(bytes.as_slice()).map_err(|e| JsonError::Malformed {
            message_type: NAME.to_owned(),
            reason: e.to_string(),
        })
    }

    /// Reads JSON as the message called `name`, into canonical bytes.
    fn parse_bytes(&self, name: &str, json: &Value) -> Result<Vec<u8>, JsonError> {
        let descriptor = self.descriptor(name)?;
        let mut track = serde_path_to_error::Track::new();
        let options = DeserializeOptions::new().deny_unknown_fields(!self.ignore_unknown_fields);
        let deserializer = serde_path_to_error::Deserializer::new(json, &mut track);
        let message = DynamicMessage::deserialize_with_options(descriptor, deserializer, &options);
        let message = message.map_err(|e| JsonError::Field {
            message_type: name.to_owned(),
            path: track.path().to_string(),
            reason: e.to_string(),
        })?;
        Ok(canonical::encode(&self.pool, &message))
    }

    /// Prints a message.
    ///
    /// # Errors
    /// An `Any` inside does not decode as its type says.
    pub fn print<M: Message + Name>(&self, message: &M, style: Style) -> Result<Value, JsonError> {
        self.print_bytes(&M::full_name(), &message.encode_to_vec(), style)
    }

    /// Prints an `Any` with its `@type`.
    ///
    /// # Errors
    /// The payload does not decode as its type says.
    pub fn print_any(&self, any: &Any, style: Style) -> Result<Value, JsonError> {
        self.print_bytes("google.protobuf.Any", &any.encode_to_vec(), style)
    }

    /// Prints bytes of the message called `name`.
    fn print_bytes(&self, name: &str, bytes: &[u8], style: Style) -> Result<Value, JsonError> {
        let malformed = |reason: String| JsonError::Malformed {
            message_type: name.to_owned(),
            reason,
        };
        let mut message =
            DynamicMessage::decode(self.descriptor(name)?, bytes).map_err(|e| malformed(e.to_string()))?;
        self.wrap_unknown(&mut message);
        let options = SerializeOptions::new()
            .stringify_64_bit_integers(true)
            .use_proto_field_name(style == Style::Envoy)
            .skip_default_fields(true);
        let value = message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|e| malformed(e.to_string()))?;
        Ok(sorted(value))
    }

    /// Replaces each `Any` of an unknown type by a struct that says so, because it cannot be expanded.
    fn wrap_unknown(&self, message: &mut DynamicMessage) {
        use prost_reflect::ReflectMessage as _;
        if message.descriptor().full_name() == "google.protobuf.Any" {
            self.wrap_unknown_any(message);
            return;
        }
        for (_, value) in message.fields_mut() {
            match value {
                Dynamic::Message(m) => self.wrap_unknown(m),
                Dynamic::List(items) => {
                    items
                        .iter_mut()
                        .filter_map(Dynamic::as_message_mut)
                        .for_each(|m| self.wrap_unknown(m));
                }
                Dynamic::Map(entries) => {
                    entries
                        .values_mut()
                        .filter_map(Dynamic::as_message_mut)
                        .for_each(|m| self.wrap_unknown(m));
                }
                _ => {}
            }
        }
    }

    fn wrap_unknown_any(&self, any: &mut DynamicMessage) {
        let url = any
            .get_field_by_name("type_url")
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        let bytes = any
            .get_field_by_name("value")
            .and_then(|v| v.as_bytes().cloned())
            .unwrap_or_default();
        if url.is_empty() {
            return;
        }
        let replaced = match self.pool.get_message_by_name(message_name(&url)) {
            Some(descriptor) => DynamicMessage::decode(descriptor, bytes.clone())
                .ok()
                .map(|mut inner| {
                    self.wrap_unknown(&mut inner);
                    (url.clone(), inner.encode_to_vec())
                }),
            None => None,
        };
        let (url, bytes) = replaced.unwrap_or_else(|| {
            use base64::Engine as _;
            let payload = base64::engine::general_purpose::STANDARD.encode(&bytes);
            let note = crate::wkt::structure(&serde_json::json!({ "type_url": url, "value": payload }));
            (format!("{PREFIX}google.protobuf.Struct"), note.encode_to_vec())
        });
        any.set_field_by_name("type_url", Dynamic::String(url));
        any.set_field_by_name("value", Dynamic::Bytes(bytes.into()));
    }
}

/// Sorts the keys of every object, `@type` first: protobuf maps are hash maps here and come in another order each time.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by(|a, b| {
                (a.0 != "@type")
                    .cmp(&(b.0 != "@type"))
                    .then_with(|| a.0.cmp(&b.0))
            });
            Value::Object(entries.into_iter().collect())
        }
        other => other,
    }
}

/// YAML (or JSON) text to a JSON value.
///
/// # Errors
/// The text is not valid YAML.
pub fn yaml_to_json(text: &str) -> Result<Value, JsonError> {
    serde_saphyr::from_str(text).map_err(|e| JsonError::Syntax(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::bootstrap::v3::Bootstrap;

    const BOOTSTRAP: &str = include_str!("../tests/bootstrap.yaml");

    #[test]
    fn a_bootstrap_written_for_envoy_loads_and_prints_back() {
        let schema = Schema::get();
        let bootstrap: Bootstrap = schema.parse_yaml(BOOTSTRAP).unwrap();
        let printed = schema.print(&bootstrap, Style::Envoy).unwrap();
        let again: Bootstrap = schema.parse(&printed).unwrap();
        assert_eq!(bootstrap, again);
        let manager =
            &printed["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        assert_eq!(manager["stat_prefix"], "ingress");
        assert_eq!(
            manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"],
            "1.500s"
        );
    }

    #[test]
    fn equal_messages_have_equal_bytes_in_every_run() {
        let schema = Schema::get();
        let json = yaml_to_json(BOOTSTRAP).unwrap();
        let first = schema
            .parse_bytes("envoy.config.bootstrap.v3.Bootstrap", &json)
            .unwrap();
        for _ in 0..20 {
            assert_eq!(
                first,
                schema
                    .parse_bytes("envoy.config.bootstrap.v3.Bootstrap", &json)
                    .unwrap()
            );
        }
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_path() {
        let json = serde_json::json!({ "node": { "id": "a", "colour": "red" } });
        let error = Schema::get().parse::<Bootstrap>(&json).unwrap_err().to_string();
        assert!(error.contains("node") && error.contains("colour"), "{error}");
    }

    #[test]
    fn an_any_of_an_unknown_type_still_prints() {
        let any = Any {
            type_url: "type.googleapis.com/acme.Widget".to_owned(),
            value: vec![8, 1],
        };
        let printed = Schema::get().print_any(&any, Style::Envoy).unwrap();
        assert_eq!(printed["value"]["type_url"], "type.googleapis.com/acme.Widget");
    }
}
