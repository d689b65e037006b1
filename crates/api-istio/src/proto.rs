//! The declarations of protobuf's messages and enums: `message!` and `proto_enum!`.
//!
//! Istio defines its API in protobuf and reads it in the JSON mapping of protobuf, with Go's leniency: a plain
//! scalar that is absent has its zero value, `null` means absent, wrapper types (`BoolValue`...) are plain values
//! that may be absent, enums are names or numbers, and durations are anything Go's `time.ParseDuration` reads.

pub use crate::well_known::{Bytes, Duration, DurationError};

/// Declares a message: a struct with its JSON form and an OpenAPI schema, from one list of documented fields.
///
/// `name: Type as "json" or "alias" [Rule, ...]`: the JSON name is the lowerCamelCase of the field unless `as` says
/// otherwise; `or` accepts a second spelling; the rules (see [`crate::schema::Rule`]) go into the schema. Rules of
/// the whole object stand after the struct's name.
macro_rules! message {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident $([$($rule:expr),* $(,)?])? {
            $(
                $(#[doc = $field_doc:literal])+
                pub $field:ident : $ty:ty $(as $json:literal $(or $alias:literal)?)? $([$($field_rule:expr),* $(,)?])?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $(
                $(#[doc = $field_doc])+
                pub $field: $ty,
            )*
        }

        impl crate::json::Json for $name {
            #[allow(unused_mut)]
            fn read(value: serde_json::Value) -> Result<Self, crate::json::ReadError> {
                let mut fields = crate::json::Fields::of(value)?;
                let mut message = Self::default();
                $(fields.read(stringify!($field), &[$($json $(, $alias)?)?], &mut message.$field);)*
                fields.finish(message)
            }

            #[allow(unused_mut)]
            fn write(&self) -> serde_json::Value {
                let mut fields = crate::json::Fields::new();
                $(fields.write(stringify!($field), &[$($json $(, $alias)?)?], &self.$field);)*
                fields.into()
            }
        }

        crate::json::serde_by_value!($name);

        impl crate::schema::Schema for $name {
            fn schema() -> serde_json::Value {
                #[allow(unused_imports)]
                use crate::schema::Rule::*;
                const RULES: &[crate::schema::Rule] = &[$($($rule),*)?];
                const FIELDS: &[crate::schema::Field] = &[
                    $(crate::schema::Field {
                        name: stringify!($field),
                        given: &[$($json $(, $alias)?)?],
                        doc: &[$($field_doc),+],
                        schema: <$ty as crate::schema::Schema>::schema,
                        rules: &[$($($field_rule),*)?],
                    }),*
                ];
                crate::schema::object(&[$($doc),+], FIELDS, RULES)
            }
        }
    };
}
pub(crate) use message;

/// Declares a protobuf enum: `Variant = "NAME" = number`. The first variant is the default (protobuf's zero value).
///
/// Both the name and the number are read; anything else is an error that lists the names, never a panic.
macro_rules! proto_enum {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident {
            $(
                $(#[doc = $variant_doc:literal])+
                $variant:ident = $proto:literal = $number:literal
            ),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $variant_doc])+ $variant),+
        }

        impl $name {
            /// Every value, in the order of the proto file.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in protobuf and in YAML.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $proto),+ }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl crate::json::Json for $name {
            fn read(value: serde_json::Value) -> Result<Self, crate::json::ReadError> {
                crate::json::read_enum(&value, &[$(($proto, $number)),+]).map(|place| Self::ALL[place])
            }

            fn write(&self) -> serde_json::Value {
                self.as_str().into()
            }
        }

        crate::json::serde_by_value!($name);

        impl crate::schema::Schema for $name {
            fn schema() -> serde_json::Value {
                crate::schema::enumeration(&[$($proto),+])
            }
        }
    };
}
pub(crate) use proto_enum;
