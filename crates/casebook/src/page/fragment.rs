//! Parts of generated xDS resources: what a page says a resource contains.
//!
//! A block is a map from `listener NAME`, `route NAME`, `cluster NAME` or `endpoints NAME` to a tree in the JSON form of
//! Envoy's protobuf. The resource contains the tree when every field of the tree is in it with the same value; the
//! elements of a list must appear in the resource's list in the same order, others may stand between them. `null`
//! says that the resource (or field) is absent.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// The types of resources that pages speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceType {
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`.
    Route,
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
}

impl ResourceType {
    /// The word that pages use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Route => "route",
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
        }
    }
}

/// What one resource must contain.
#[derive(Debug)]
pub struct Fragment {
    /// Its type.
    pub resource_type: ResourceType,
    /// Its name.
    pub name: String,
    /// The part; `null` when there must be no such resource.
    pub tree: Value,
}

impl Fragment {
    /// Parses a block.
    pub(super) fn parse(text: &str) -> Result<Vec<Self>> {
        let map: Map<String, Value> = serde_saphyr::from_str(text)?;
        if map.is_empty() {
            bail!("the block names no resource");
        }
        map.into_iter()
            .map(|(key, tree)| Self::entry(&key, tree))
            .collect()
    }

    fn entry(key: &str, tree: Value) -> Result<Self> {
        use ResourceType::{Cluster, Endpoints, Listener, Route};
        let (word, name) = key.split_once(' ').unwrap_or((key, ""));
        let found = [Listener, Route, Cluster, Endpoints]
            .into_iter()
            .find(|kind| kind.word() == word);
        match found {
            Some(resource_type) if !name.is_empty() => Ok(Self {
                resource_type,
                name: name.to_owned(),
                tree,
            }),
            _ => bail!("`{key}`: expected `listener NAME`, `route NAME`, `cluster NAME` or `endpoints NAME`"),
        }
    }

    /// Compares with the generated resource, if there is one; what is missing, as sentences.
    pub fn missing_in(&self, resource: Option<&Value>) -> Vec<String> {
        let path = format!("{} {}", self.resource_type.word(), self.name);
        let mut problems = Vec::new();
        missing(&path, &self.tree, resource, &mut problems);
        problems
    }
}

fn missing(path: &str, part: &Value, whole: Option<&Value>, problems: &mut Vec<String>) {
    match (part, whole) {
        (Value::Null, None) => {}
        (Value::Null, Some(whole)) => problems.push(format!("{path} should be absent, but is {whole}")),
        (_, None) => problems.push(format!("{path} is absent")),
        (Value::Object(part), Some(Value::Object(whole))) => {
            for (key, part) in part {
                missing(&format!("{path}.{key}"), part, whole.get(key), problems);
            }
        }
        (Value::Array(part), Some(Value::Array(whole))) => missing_elements(path, part, whole, problems),
        (part, Some(whole)) if same(part, whole) => {}
        (part, Some(whole)) => problems.push(format!("{path} is {whole}, not {part}")),
    }
}

/// Finds each element, in order; an element that is nowhere is reported against the nearest candidate.
fn missing_elements(path: &str, part: &[Value], whole: &[Value], problems: &mut Vec<String>) {
    let mut next = 0;
    for (index, part) in part.iter().enumerate() {
        let tried = whole[next..].iter().map(|candidate| {
            let mut problems = Vec::new();
            missing(&format!("{path}[{index}]"), part, Some(candidate), &mut problems);
            problems
        });
        let tried: Vec<Vec<String>> = tried.collect();
        match tried.iter().position(Vec::is_empty) {
            Some(found) => next += found + 1,
            None => {
                let nearest = tried.into_iter().min_by_key(Vec::len);
                problems.extend(nearest.unwrap_or_else(|| vec![format!("{path}[{index}] is absent")]));
            }
        }
    }
}

/// Equal, numbers by value: protobuf's JSON writes 64-bit numbers as strings.
fn same(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Number(part), Value::Number(whole)) => part.as_f64() == whole.as_f64(),
        (Value::Number(part), Value::String(whole)) => part.to_string() == *whole,
        (part, whole) => part == whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(part: Value, whole: Option<Value>, problems: &[&str]) {
        let fragment = Fragment {
            resource_type: ResourceType::Cluster,
            name: "c".into(),
            tree: part,
        };
        assert_eq!(fragment.missing_in(whole.as_ref()), problems);
    }

    #[test]
    fn a_part_is_contained_when_all_its_fields_are() {
        let whole = json!({"a": 1, "b": {"c": "7"}, "list": [{"n": 1}, {"n": 2}, {"n": 3}]});
        check(
            json!({"b": {"c": 7}, "list": [{"n": 1}, {"n": 3}]}),
            Some(whole.clone()),
            &[],
        );
        check(
            json!({"list": [{"n": 3}, {"n": 1}]}),
            Some(whole.clone()),
            &["cluster c.list[1] is absent"],
        );
        check(json!({"a": 2}), Some(whole.clone()), &["cluster c.a is 1, not 2"]);
        check(
            json!({"d": null, "b": null}),
            Some(whole),
            &[r#"cluster c.b should be absent, but is {"c":"7"}"#],
        );
    }

    #[test]
    fn a_resource_may_be_said_to_be_absent() {
        check(Value::Null, None, &[]);
        check(json!({}), None, &["cluster c is absent"]);
        assert!(Fragment::parse("clutser x: {}").is_err());
    }
}
