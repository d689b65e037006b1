//! What a request asks for: path, query, and the forms of the answer it accepts.

use crate::status::Status;
use crate::table::IncludeObject;

/// A path of the API (`/api/v1/…`, `/apis/group/version/…`), taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    /// Empty for cluster scope and for "all namespaces".
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
}

impl ResourcePath {
    /// Parses `path`; `None` means that it is not the path of a resource.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let segments: Vec<String> = path.trim_matches('/').split('/').map(percent_decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let mut parsed = Self {
            group: group.to_owned(),
            version: version.to_owned(),
            ..Self::default()
        };
        let rest = match rest {
            // `namespaces/x/plural…`, but `namespaces/x/status` is the namespace's own subresource.
            ["namespaces", namespace, plural, rest @ ..]
                if !(rest.is_empty() && group.is_empty() && ["status", "finalize"].contains(plural)) =>
            {
                parsed.namespace = (*namespace).to_owned();
                [&[*plural], rest].concat()
            }
            other => other.to_vec(),
        };
        match rest.as_slice() {
            [plural] if !plural.is_empty() => parsed.plural = (*plural).to_owned(),
            [plural, name] => (parsed.plural, parsed.name) = ((*plural).to_owned(), (*name).to_owned()),
            [plural, name, subresource] => {
                (parsed.plural, parsed.name) = ((*plural).to_owned(), (*name).to_owned());
                parsed.subresource = (*subresource).to_owned();
            }
            _ => return None,
        }
        Some(parsed)
    }
}

/// Query parameters, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decode(&text.replace('+', " "));
            (decode(key), decode(value))
        });
        Self(decoded.collect())
    }

    /// The last value of a parameter; empty when it is absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// Whether a boolean parameter is set.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    /// A number, or an error that names the parameter.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "invalid value {} for query parameter {name}",
                    crate::status::quoted(text)
                ))
            }),
        }
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text
            .get(at + 1..at + 3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// What to do about fields that the schema does not know, or that come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    /// Reads `fieldValidation`; the default is Warn.
    pub(crate) fn of(query: &Query) -> Result<Self, Status> {
        match query.get("fieldValidation") {
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            "Ignore" => Ok(Self::Ignore),
            other => Err(Status::bad_request(format!(
                "invalid value for fieldValidation: {}: must be one of Ignore, Warn, Strict",
                crate::status::quoted(other)
            ))),
        }
    }
}

/// Reads `dryRun`.
pub(crate) fn dry_run(query: &Query) -> Result<bool, Status> {
    match query.get("dryRun") {
        "" => Ok(false),
        "All" => Ok(true),
        other => Err(Status::bad_request(format!(
            "invalid value for dryRun: {}: must be All",
            crate::status::quoted(other)
        ))),
    }
}

/// The form in which objects are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Object,
    /// `meta.k8s.io` Table of this version.
    Table { version: String, include: IncludeObject },
    /// `meta.k8s.io/v1 PartialObjectMetadata`.
    Metadata,
}

/// What can be sent.
const OFFERED: &[&str] = &["application/json"];

impl Form {
    /// Chooses the first accepted form that can be produced.
    pub(crate) fn negotiate(accept: &str, query: &Query) -> Result<Self, Status> {
        if accept.trim().is_empty() {
            return Ok(Self::Object);
        }
        for candidate in accept.split(',') {
            let mut parts = candidate.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            if !["application/json", "*/*", "application/*"].contains(&media_type) {
                continue;
            }
            let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let parameter = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| *value)
            };
            match (parameter("as"), parameter("g"), parameter("v")) {
                (None, _, _) => return Ok(Self::Object),
                (Some("Table"), Some("meta.k8s.io"), Some(version @ ("v1" | "v1beta1"))) => {
                    let include = match query.get("includeObject") {
                        "None" => IncludeObject::None,
                        "Object" => IncludeObject::Object,
                        _ => IncludeObject::Metadata,
                    };
                    return Ok(Self::Table {
                        version: version.to_owned(),
                        include,
                    });
                }
                (
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                    Some("meta.k8s.io"),
                    Some("v1"),
                ) => {
                    return Ok(Self::Metadata);
                }
                _ => {}
            }
        }
        Err(Status::not_acceptable(OFFERED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> (String, String, String, String) {
        let parsed = ResourcePath::parse(text).unwrap();
        (parsed.plural, parsed.namespace, parsed.name, parsed.subresource)
    }

    fn strings(a: &str, b: &str, c: &str, d: &str) -> (String, String, String, String) {
        (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())
    }

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(path("/api/v1/namespaces"), strings("namespaces", "", "", ""));
        assert_eq!(path("/api/v1/namespaces/x"), strings("namespaces", "", "x", ""));
        assert_eq!(
            path("/api/v1/namespaces/x/finalize"),
            strings("namespaces", "", "x", "finalize")
        );
        assert_eq!(path("/api/v1/namespaces/x/pods"), strings("pods", "x", "", ""));
        assert_eq!(
            path("/apis/g.io/v1/namespaces/x/things/n/status"),
            strings("things", "x", "n", "status")
        );
        assert_eq!(path("/apis/g.io/v1/things"), strings("things", "", "", ""));
        assert!(ResourcePath::parse("/apis/g.io/v1").is_none());
        assert!(ResourcePath::parse("/version").is_none());
    }

    #[test]
    fn kubectl_gets_a_table_and_everybody_else_json() {
        let query = Query::default();
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert!(matches!(Form::negotiate(table, &query), Ok(Form::Table { .. })));
        assert_eq!(
            Form::negotiate("application/vnd.kubernetes.protobuf,application/json", &query),
            Ok(Form::Object)
        );
        assert_eq!(Form::negotiate("", &query), Ok(Form::Object));
        assert!(Form::negotiate("application/vnd.kubernetes.protobuf", &query).is_err());
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc+in+%28d%29&limit=5&watch=1"));
        assert_eq!(query.get("labelSelector"), "a=b,c in (d)");
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert!(query.flag("watch"));
    }
}
