//! Request bodies: JSON, YAML and, for a few kinds, protobuf, with duplicate fields noticed.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::limits;
use crate::protobuf;
use crate::status::Status;

/// Content types of whole objects.
pub(crate) const OBJECT_TYPES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];

/// A decoded body and the fields that came twice in it.
pub(crate) struct Decoded {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

/// The media type of a Content-Type header, without parameters.
pub(crate) fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Decodes the body of a create, update or delete.
pub(crate) fn object(body: &[u8], content_type: &str) -> Result<Decoded, Status> {
    match media_type(content_type) {
        "" | "application/json" | "*/*" => json(body),
        "application/yaml" => yaml(body),
        "application/vnd.kubernetes.protobuf" => {
            let value = protobuf::decode(body)?;
            Ok(Decoded {
                value,
                duplicates: Vec::new(),
            })
        }
        _ => Err(Status::unsupported_media_type(OBJECT_TYPES)),
    }
}

/// Decodes JSON.
pub(crate) fn json(body: &[u8]) -> Result<Decoded, Status> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Node {
        path: Path::Root,
        depth: 0,
        duplicates: &mut duplicates,
    };
    let value = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(value) => Ok(Decoded { value, duplicates }),
        Err(error) => Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type JSON or YAML): {error}"
        ))),
    }
}

/// Decodes one YAML document.
pub(crate) fn yaml(body: &[u8]) -> Result<Decoded, Status> {
    let fail = |error: &dyn fmt::Display| {
        Status::bad_request(format!("error converting YAML to JSON: yaml: {error}"))
    };
    let text = std::str::from_utf8(body).map_err(|error| fail(&error))?;
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    match serde_saphyr::from_str_with_options::<Value>(text, options.clone()) {
        Ok(value) => Ok(Decoded {
            value,
            duplicates: Vec::new(),
        }),
        Err(strict) => {
            // Once more with the last value winning: if that works, the duplicate key was all that is wrong.
            options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::LastWins;
            let value =
                serde_saphyr::from_str_with_options::<Value>(text, options).map_err(|_| fail(&strict))?;
            Ok(Decoded {
                value,
                duplicates: vec![format!("yaml: {strict}")],
            })
        }
    }
}

/// Where a value is, as a list of parents; written out only when a duplicate is found.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct Node<'n> {
    path: Path<'n>,
    depth: usize,
    duplicates: &'n mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        if self.depth >= limits::REQUEST_DEPTH_MAX {
            return Err(A::Error::custom("nested too deeply"));
        }
        let mut items = Vec::new();
        loop {
            let path = Path::Item(&self.path, items.len());
            let seed = Node {
                path,
                depth: self.depth + 1,
                duplicates: self.duplicates,
            };
            match access.next_element_seed(seed)? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        if self.depth >= limits::REQUEST_DEPTH_MAX {
            return Err(A::Error::custom("nested too deeply"));
        }
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = Path::Field(&self.path, &name);
            if map.contains_key(&name) {
                self.duplicates.push(path.to_string());
            }
            let value = access.next_value_seed(Node {
                path,
                depth: self.depth + 1,
                duplicates: self.duplicates,
            })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_fields_are_noticed_and_the_last_wins() {
        let decoded = json(br#"{"spec": {"a": 1, "list": [{"b": 1, "b": 2}], "a": 3}}"#).unwrap();
        assert_eq!(decoded.value, json!({"spec": {"a": 3, "list": [{"b": 2}]}}));
        assert_eq!(decoded.duplicates, ["spec.list[0].b", "spec.a"]);
    }

    #[test]
    fn yaml_is_read_and_its_duplicates_are_noticed() {
        assert_eq!(
            yaml(b"a: 1\nb: [x]\n").unwrap().value,
            json!({"a": 1, "b": ["x"]})
        );
        let decoded = yaml(b"a: 1\na: 2\n").unwrap();
        assert_eq!(decoded.value, json!({"a": 2}));
        assert_eq!(decoded.duplicates.len(), 1);
        assert!(yaml(b"a: [1\n").is_err());
    }

    #[test]
    fn deep_nesting_and_trailing_text_are_refused() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        assert!(json(deep.as_bytes()).is_err());
        assert!(json(b"{} {}").is_err());
    }
}
