//! Syntax of names, labels and annotations (RFC 1123 and the Kubernetes documentation), with the server's messages.

use serde_json::Value;

use crate::limits;
use crate::status::Cause;

const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_MESSAGE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// A DNS subdomain of at most 253 characters.
pub(crate) fn dns_subdomain(name: &str) -> Result<(), &'static str> {
    if name.len() > 253 {
        return Err("must be no more than 253 bytes");
    }
    let valid = name.split('.').all(is_label);
    if valid { Ok(()) } else { Err(SUBDOMAIN_MESSAGE) }
}

/// A DNS label of at most 63 characters.
pub(crate) fn dns_label(name: &str) -> Result<(), &'static str> {
    if name.len() > 63 {
        return Err("must be no more than 63 bytes");
    }
    if is_label(name) {
        Ok(())
    } else {
        Err(LABEL_MESSAGE)
    }
}

/// An IANA service name: at most 15 characters with at least one letter.
pub(crate) fn port_name(name: &str) -> Result<(), &'static str> {
    if name.len() > 15 {
        return Err("must be no more than 15 characters");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err("must contain at least one letter (a-z)");
    }
    if is_label(name) && !name.contains("--") {
        Ok(())
    } else {
        Err("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    }
}

fn is_label(label: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = label.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            alphanumeric(*first)
                && alphanumeric(*last)
                && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
        }
        _ => false,
    }
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// A label or annotation key: an optional DNS prefix, `/`, and a name of at most 63 characters.
fn qualified_name(key: &str) -> Result<(), &'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| dns_subdomain(&prefix.to_ascii_lowercase()).is_err()) {
        return Err(SUBDOMAIN_MESSAGE);
    }
    if name.is_empty() {
        return Err("name part must be non-empty");
    }
    if name.len() > 63 {
        return Err("name part must be no more than 63 bytes");
    }
    if is_word(name) {
        Ok(())
    } else {
        Err(QUALIFIED_MESSAGE)
    }
}

/// Checks `metadata` of an object. Names of kinds in `label_names` are labels, of all others subdomains.
pub(crate) fn check_metadata(metadata: &Value, namespaced: bool, label_name: bool, causes: &mut Vec<Cause>) {
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Err(detail) = if label_name {
        dns_label(name)
    } else {
        dns_subdomain(name)
    } {
        causes.push(Cause::invalid("metadata.name", &metadata["name"], detail));
    }
    if namespaced && metadata["namespace"].as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required("metadata.namespace", ""));
    }
    check_labels(metadata, causes);
    check_annotations(metadata, causes);
    check_references(metadata, causes);
}

fn check_labels(metadata: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if let Err(detail) = qualified_name(key) {
            causes.push(Cause::invalid("metadata.labels", &key.as_str().into(), detail));
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            causes.push(Cause::invalid(
                "metadata.labels",
                value,
                "must be no more than 63 bytes",
            ));
        } else if !text.is_empty() && !is_word(text) {
            causes.push(Cause::invalid("metadata.labels", value, VALUE_MESSAGE));
        }
    }
}

fn check_annotations(metadata: &Value, causes: &mut Vec<Cause>) {
    let mut annotation_bytes = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if let Err(detail) = qualified_name(&key.to_ascii_lowercase()) {
            causes.push(Cause::invalid(
                "metadata.annotations",
                &key.as_str().into(),
                detail,
            ));
        }
        annotation_bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if annotation_bytes > limits::ANNOTATIONS_MAX_BYTES {
        let message = format!(
            "Too long: may not be more than {} bytes",
            limits::ANNOTATIONS_MAX_BYTES
        );
        causes.push(Cause::new("FieldValueTooLong", "metadata.annotations", message));
    }
}

/// Finalizers and owner references.
fn check_references(metadata: &Value, causes: &mut Vec<Cause>) {
    for (index, finalizer) in metadata["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if let Err(detail) = qualified_name(finalizer.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(
                format!("metadata.finalizers[{index}]"),
                finalizer,
                detail,
            ));
        }
    }
    for (index, owner) in metadata["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::invalid(
                    format!("metadata.ownerReferences[{index}].{field}"),
                    &Value::from(""),
                    "must not be empty",
                ));
            }
        }
    }
}
