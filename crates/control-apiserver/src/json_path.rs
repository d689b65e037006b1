//! The subset of JSONPath that printer columns use: fields, indexes, `[*]`, and `[?(@.a=="b")]`.

use serde_json::Value;

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose field equals a value.
    Filter {
        field: Vec<String>,
        value: Value,
    },
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

impl JsonPath {
    /// Parses `.spec.hosts`, `.a[0].b`, `.a['b.c']`, `.a[?(@.type=="Ready")].status`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.trim().trim_start_matches('$');
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = field_end(after);
                if end == 0 {
                    // `.[` is the root followed by a bracket.
                    if after.starts_with('[') {
                        rest = after;
                        continue;
                    }
                    return Err(format!("is an invalid JSONPath: missing field name in {text:?}"));
                }
                let name = after[..end].replace("\\.", ".");
                steps.push(if name == "*" { Step::All } else { Step::Field(name) });
                rest = &after[end..];
            } else if rest.starts_with('[') {
                let close = closing(rest)
                    .ok_or_else(|| format!("is an invalid JSONPath: unterminated [ in {text:?}"))?;
                steps.push(bracket(&rest[1..close])?);
                rest = &rest[close + 1..];
            } else {
                return Err(format!("is an invalid JSONPath: {text:?} must begin with a dot"));
            }
        }
        if steps.is_empty() {
            Err("is an empty JSONPath".to_owned())
        } else {
            Ok(Self { steps })
        }
    }

    /// Every value the path reaches.
    pub(crate) fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut current = vec![root];
        for step in &self.steps {
            current = current.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        current
    }
}

impl Step {
    fn apply<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match self {
            Self::Field(name) => value
                .get(name)
                .filter(|found| !found.is_null())
                .into_iter()
                .collect(),
            Self::Index(index) => {
                let Some(items) = value.as_array() else {
                    return Vec::new();
                };
                let index = if *index < 0 {
                    items.len() as i64 + index
                } else {
                    *index
                };
                usize::try_from(index)
                    .ok()
                    .and_then(|index| items.get(index))
                    .into_iter()
                    .collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Filter { field, value: wanted } => {
                let items = value.as_array().into_iter().flatten();
                items
                    .filter(|item| field.iter().try_fold(*item, |at, name| at.get(name)) == Some(wanted))
                    .collect()
            }
        }
    }
}

/// Where a field name ends: at the next unescaped dot or bracket.
fn field_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' => escaped = true,
            '.' | '[' if !escaped => return at,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The `]` that closes the `[` at the beginning, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Ok(index) = inner.parse() {
        return Ok(Step::Index(index));
    }
    if let Some(quoted) = unquote(inner) {
        return Ok(Step::Field(quoted.replace("\\.", ".")));
    }
    let filter = inner
        .strip_prefix("?(")
        .and_then(|rest| rest.strip_suffix(')'))
        .and_then(|filter| filter.split_once("=="));
    let Some((left, right)) = filter else {
        return Err(format!("is an invalid JSONPath: [{inner}] is not supported"));
    };
    let field = left
        .trim()
        .trim_start_matches('@')
        .split('.')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    let right = right.trim();
    let value = unquote(right).map_or_else(|| serde_json::from_str(right).ok(), |text| Some(text.into()));
    let value = value.ok_or_else(|| format!("is an invalid JSONPath: {right:?} is not a value"))?;
    Ok(Step::Filter { field, value })
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(path: &str, value: &Value) -> Vec<Value> {
        JsonPath::parse(path)
            .unwrap()
            .find(value)
            .into_iter()
            .cloned()
            .collect()
    }

    #[test]
    fn paths_reach_what_they_name() {
        let value = json!({"a": {"b.c": 1, "list": [{"type": "X", "v": 1}, {"type": "Y", "v": 2}]}});
        assert_eq!(find(".a.list[0].v", &value), [json!(1)]);
        assert_eq!(find(".a.list[-1].v", &value), [json!(2)]);
        assert_eq!(find(".a.list[*].v", &value), [json!(1), json!(2)]);
        assert_eq!(find(".a['b.c']", &value), [json!(1)]);
        assert_eq!(find(".a.b\\.c", &value), [json!(1)]);
        assert_eq!(find(".a.list[?(@.type==\"Y\")].v", &value), [json!(2)]);
        assert_eq!(find(".a.none.x", &value), Vec::<Value>::new());
    }

    #[test]
    fn broken_paths_are_refused() {
        for path in ["", "spec", ".a[", ".a..b", ".a[?(@.b<1)]"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
