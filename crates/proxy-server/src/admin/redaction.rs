//! Secrets do not leave by the admin interface: Envoy's `[redacted]` for what its messages mark as sensitive
//! (`udpa.annotations.sensitive`).

use serde_json::Value;

/// Fields of TLS messages that are sensitive, with everything below them.
const SENSITIVE: &[&str] = &[
    "private_key",
    "password",
    "pkcs12",
    "private_key_provider",
    "session_ticket_keys",
    "generic_secret",
];

/// What stands for text.
const TEXT: &str = "[redacted]";
/// The same, as bytes are printed.
const BYTES: &str = "W3JlZGFjdGVkXQ==";

/// Takes secrets out of a printed message.
pub(super) fn redact(printed: &mut Value) {
    match printed {
        Value::Object(fields) => {
            for (name, value) in fields {
                match SENSITIVE.contains(&name.as_str()) {
                    true => blacken(value, TEXT),
                    false => redact(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn blacken(value: &mut Value, stands_for: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "@type" => {}
                    "inline_bytes" => blacken(value, BYTES),
                    _ => blacken(value, TEXT),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| blacken(item, stands_for)),
        Value::String(text) => stands_for.clone_into(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_redacted_wherever_they_are_and_certificates_are_not() {
        let certificate = |key: Value| {
            json!({ "filter_chains": [{ "typed_config": { "@type": "t", "tls_certificates": [{
                "certificate_chain": { "inline_string": "public" }, "private_key": key }] } }] })
        };
        for (key, redacted) in [
            (json!({ "inline_string": "s" }), json!({ "inline_string": TEXT })),
            (
                json!({ "inline_bytes": "cw==" }),
                json!({ "inline_bytes": BYTES }),
            ),
            (json!({ "filename": "/s" }), json!({ "filename": TEXT })),
        ] {
            let mut printed = certificate(key);
            redact(&mut printed);
            assert_eq!(printed, certificate(redacted));
        }
    }
}
