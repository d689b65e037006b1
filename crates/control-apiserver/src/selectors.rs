//! Label and field selectors of list, watch and deletecollection.

use serde_json::Value;

use crate::catalog::Target;
use crate::status::Status;
use crate::store::Object;

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRequirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// `labelSelector`: all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<LabelRequirement>);

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        let fail = |part: &str| {
            Status::bad_request(format!(
                "unable to parse requirement: {}: invalid selector",
                crate::status::quoted(part)
            ))
        };
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            requirements.push(requirement(part).ok_or_else(|| fail(part))?);
        }
        Ok(Self(requirements))
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|requirement| match requirement {
            LabelRequirement::In(key, values) => object
                .label(key)
                .is_some_and(|label| values.iter().any(|value| value == label)),
            LabelRequirement::NotIn(key, values) => object
                .label(key)
                .is_none_or(|label| values.iter().all(|value| value != label)),
            LabelRequirement::Exists(key) => object.label(key).is_some(),
            LabelRequirement::Absent(key) => object.label(key).is_none(),
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Option<LabelRequirement> {
    for (word, negated) in [
        (" notin ", true),
        (" notin(", true),
        (" in ", false),
        (" in(", false),
    ] {
        if let Some(at) = part.find(word) {
            let key = part[..at].trim();
            let list = part[at + word.trim_end_matches('(').len()..].trim();
            let values = list.strip_prefix('(')?.strip_suffix(')')?;
            let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
            let key = label_key(key)?;
            return Some(if negated {
                LabelRequirement::NotIn(key, values)
            } else {
                LabelRequirement::In(key, values)
            });
        }
    }
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(operator) {
            let (key, values) = (label_key(key.trim())?, vec![value.trim().to_owned()]);
            return Some(if negated {
                LabelRequirement::NotIn(key, values)
            } else {
                LabelRequirement::In(key, values)
            });
        }
    }
    match part.strip_prefix('!') {
        Some(key) => Some(LabelRequirement::Absent(label_key(key.trim())?)),
        None => Some(LabelRequirement::Exists(label_key(part)?)),
    }
}

fn label_key(key: &str) -> Option<String> {
    let valid = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    valid.then(|| key.to_owned())
}

/// `fieldSelector`: equality of a few fields that each kind names.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldSelector(Vec<FieldRequirement>);

#[derive(Clone, Debug)]
struct FieldRequirement {
    field: String,
    value: String,
    negated: bool,
}

impl FieldSelector {
    /// Parses `a.b=c,d!=e`; fields must be ones that `target` can select by.
    pub(crate) fn parse(text: &str, target: &Target) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let parsed =
                [("!=", true), ("==", false), ("=", false)]
                    .into_iter()
                    .find_map(|(operator, negated)| {
                        part.split_once(operator)
                            .map(|(field, value)| (field, value, negated))
                    });
            let Some((field, value, negated)) = parsed else {
                let quoted = crate::status::quoted(text);
                return Err(Status::bad_request(format!(
                    "invalid selector: {quoted}; can't understand '{part}'"
                )));
            };
            let known = ["metadata.name", "metadata.namespace"].contains(&field)
                || target
                    .version()
                    .selectable_fields
                    .iter()
                    .any(|known| known == field);
            if !known {
                return Err(Status::bad_request(format!("field label not supported: {field}")));
            }
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                value: value.to_owned(),
                negated,
            });
        }
        Ok(Self(requirements))
    }

    /// The one name that can match, so that a list or watch need not look at others.
    pub(crate) fn only_name(&self) -> Option<&str> {
        let named = self
            .0
            .iter()
            .find(|requirement| requirement.field == "metadata.name" && !requirement.negated);
        named.map(|requirement| requirement.value.as_str())
    }

    pub(crate) fn matches(&self, target: &Target, object: &Object) -> bool {
        let mut parsed: Option<Value> = None;
        self.0.iter().all(|requirement| {
            let equal = match requirement.field.as_str() {
                "metadata.name" => object.name() == requirement.value,
                "metadata.namespace" => object.namespace() == requirement.value,
                field => {
                    let value = parsed.get_or_insert_with(|| in_form_of(target, object));
                    field_text(value, field) == requirement.value
                }
            };
            equal != requirement.negated
        })
    }
}

fn in_form_of(target: &Target, object: &Object) -> Value {
    let mut value = object.value();
    if let Some(conversion) = target.resource.built_in.and_then(|kind| kind.conversion) {
        (conversion.from_stored)(&mut value);
    }
    value
}

fn field_text(value: &Value, field: &str) -> String {
    let found = field.split('.').try_fold(value, |at, name| at.get(name));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        // `source` of an Event selects by its component.
        Some(Value::Object(map)) => map
            .get("component")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_is_understood() {
        let parsed = LabelSelector::parse("a=b,c!=d,e in (f,g),h notin (i),j,!k,l==m").unwrap();
        assert_eq!(parsed.0.len(), 7);
        assert_eq!(
            parsed.0[2],
            LabelRequirement::In("e".to_owned(), vec!["f".to_owned(), "g".to_owned()])
        );
        assert_eq!(parsed.0[5], LabelRequirement::Absent("k".to_owned()));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["=x", "a in b", "a b", "!"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
