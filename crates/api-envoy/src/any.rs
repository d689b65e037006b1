//! Packing and unpacking of `google.protobuf.Any`.

use prost::{Message, Name};
use prost_types::Any;

use crate::type_url;

/// Why an `Any` could not be read as the wanted message.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The `Any` holds another message.
    #[error("holds {found}, expected {expected}")]
    WrongType {
        /// The type URL found.
        found: String,
        /// The type URL wanted.
        expected: String,
    },
    /// The payload does not decode.
    #[error("{type_url} does not decode")]
    Malformed {
        /// The type URL of the payload.
        type_url: String,
        /// What protobuf says.
        #[source]
        source: prost::DecodeError,
    },
}

/// Packs a message under its type URL.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: format!("{}{}", type_url::PREFIX, M::full_name()),
        value: message.encode_to_vec(),
    }
}

/// Reads an `Any` as `M`.
///
/// # Errors
/// The `Any` holds another message, or bytes that do not decode.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    if !is::<M>(any) {
        return Err(UnpackError::WrongType {
            found: any.type_url.clone(),
            expected: format!("{}{}", type_url::PREFIX, M::full_name()),
        });
    }
    M::decode(any.value.as_slice()).map_err(|source| UnpackError::Malformed {
        type_url: any.type_url.clone(),
        source,
    })
}

/// Whether an `Any` holds an `M`.
#[must_use]
pub fn is<M: Name>(any: &Any) -> bool {
    type_url::message_name(&any.type_url) == M::full_name()
}

/// The full name of the message that a configuration is of: that of a `TypedStruct` is the one that it stands for.
#[must_use]
pub fn message_of(typed: &Any) -> String {
    let inner: Option<crate::udpa::r#type::v1::TypedStruct> = unpack(typed).ok();
    let url = inner.as_ref().map_or(&typed.type_url, |inner| &inner.type_url);
    type_url::message_name(url).to_owned()
}
