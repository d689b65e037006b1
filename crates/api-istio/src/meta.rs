//! The `status` of every kind: `istio.meta.v1alpha1` and `istio.analysis.v1alpha1`.

use serde_json::{Value, json};

use crate::json::{Json, ReadError, serde_by_value};
use crate::proto::{message, proto_enum};
use crate::schema::Schema;

message! {
    /// What the control plane made of the object.
    pub struct IstioStatus [PreserveUnknown] {
        /// Aspects of the state, one of each type.
        pub conditions: Vec<IstioCondition>,
        /// What analysis found.
        pub validation_messages: Vec<AnalysisMessageBase>,
        /// Generation of the object that this status is about.
        pub observed_generation: Option<Generation>,
    }
}

message! {
    /// One aspect of an object's state.
    pub struct IstioCondition {
        /// What aspect it is.
        pub r#type: String,
        /// True, False or Unknown.
        pub status: String,
        /// When it was last looked at, in RFC 3339.
        pub last_probe_time: String [Format("date-time")],
        /// When the status last changed, in RFC 3339.
        pub last_transition_time: String [Format("date-time")],
        /// One word for machines: why it changed.
        pub reason: String,
        /// A sentence for people: why it changed.
        pub message: String,
        /// Generation of the object that the condition is about.
        pub observed_generation: Option<Generation>,
    }
}

message! {
    /// One finding of analysis.
    pub struct AnalysisMessageBase {
        /// Which finding it is.
        pub r#type: AnalysisMessageType,
        /// How bad it is.
        pub level: Level,
        /// Where the finding is explained.
        pub documentation_url: String,
    }
}

message! {
    /// Identifies a finding of analysis.
    pub struct AnalysisMessageType {
        /// Name for people, such as ReferencedResourceNotFound.
        pub name: String,
        /// Code, such as IST0101.
        pub code: String,
    }
}

proto_enum! {
    /// Severity of a finding.
    pub enum Level {
        /// Not said.
        Unknown = "UNKNOWN" = 0,
        /// The object does not work as written.
        Error = "ERROR" = 3,
        /// The object probably does not do what was meant.
        Warning = "WARNING" = 8,
        /// Worth knowing.
        Info = "INFO" = 12,
    }
}

/// An `int64` generation: protobuf writes it as a string, Kubernetes as a number; both are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub i64);

impl Json for Generation {
    fn read(value: Value) -> Result<Self, ReadError> {
        let number = value
            .as_i64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        number
            .map(Self)
            .ok_or_else(|| ReadError::new(format!("{value} is not a 64-bit integer")))
    }

    fn write(&self) -> Value {
        self.0.into()
    }
}

serde_by_value!(Generation);

impl Schema for Generation {
    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "integer" }, { "type": "string" }], "x-kubernetes-int-or-string": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_a_number_or_a_string() {
        for text in ["7", "\"7\""] {
            assert_eq!(
                serde_json::from_str::<Generation>(text).expect(text),
                Generation(7)
            );
        }
        assert!(serde_json::from_str::<Generation>("true").is_err());
    }
}
