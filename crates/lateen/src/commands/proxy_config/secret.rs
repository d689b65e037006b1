//! `lateen proxy-config secret`: the table of istioctl, out of `envoy.admin.v3.SecretsConfigDump`.

use std::time::SystemTime;

use base64::Engine as _;
use identity::Certificate;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The columns.
pub(super) const HEADER: &[&str] = &[
    "RESOURCE NAME",
    "TYPE",
    "STATUS",
    "VALID CERT",
    "SERIAL NUMBER",
    "NOT AFTER",
    "NOT BEFORE",
];

/// The parts of the dump that hold secrets.
pub(super) const PARTS: &[&str] = &[
    "static_secrets",
    "dynamic_active_secrets",
    "dynamic_warming_secrets",
];

/// One secret of a dump.
#[derive(Debug)]
pub(super) struct Entry {
    status: &'static str,
    dumped: Value,
}

/// The secrets of a whole dump.
pub(super) fn in_dump(dump: &Value) -> Vec<Entry> {
    let configs = dump["configs"].as_array().into_iter().flatten();
    let of_config = |config: &Value| -> Vec<Entry> {
        let parts = PARTS.iter().map(|part| in_part(part, &config[*part]));
        parts.flatten().collect()
    };
    configs.flat_map(of_config).collect()
}

/// The secrets of one part of it.
pub(super) fn in_part(part: &str, entries: &Value) -> Vec<Entry> {
    let status = match part {
        "dynamic_warming_secrets" => "WARMING",
        _ => "ACTIVE",
    };
    let entries = entries.as_array().into_iter().flatten().cloned();
    entries.map(|dumped| Entry { status, dumped }).collect()
}

/// The secrets as they were dumped: without keys.
pub(super) fn in_json(entries: &[Entry]) -> Value {
    entries.iter().map(|entry| entry.dumped.clone()).collect()
}

/// A row for each certificate; one for a secret without any.
pub(super) fn rows(entry: &Entry, now: SystemTime) -> Vec<Vec<String>> {
    let secret = &entry.dumped["secret"];
    let name = entry.dumped["name"].as_str().unwrap_or_default();
    let chain = &secret["tls_certificate"]["certificate_chain"];
    let roots = &secret["validation_context"]["trusted_ca"];
    let (kind, source) = match (chain.is_object(), roots.is_object()) {
        (true, _) => ("Cert Chain", chain),
        (_, true) => ("CA", roots),
        _ => ("", &Value::Null),
    };
    let head = |valid: bool| {
        [name, kind, entry.status, if valid { "true" } else { "false" }]
            .map(str::to_owned)
            .to_vec()
    };
    let certificates = pem(source).and_then(|pem| Certificate::bundle_from_pem(&pem).ok());
    let Some(certificates) = certificates.filter(|found| !found.is_empty()) else {
        return vec![[head(false), vec![String::new(); 3]].concat()];
    };
    let row = |certificate: &Certificate| {
        let facts = vec![
            certificate.serial().to_owned(),
            moment(certificate.not_after()),
            moment(certificate.not_before()),
        ];
        [head(certificate.is_valid_at(now)), facts].concat()
    };
    certificates.iter().map(row).collect()
}

/// What was refused of a secret, in a line.
pub(super) fn refusal(entry: &Entry) -> Option<String> {
    let error = entry
        .dumped
        .get("error_state")
        .filter(|error| error.is_object())?;
    let name = entry.dumped["name"].as_str().unwrap_or_default();
    let (when, why) = (&error["last_update_attempt"], &error["details"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(format!(
        "{name}: an update was refused at {}: {}",
        text(when),
        text(why)
    ))
}

fn pem(source: &Value) -> Option<Vec<u8>> {
    if let Some(text) = source["inline_string"].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    let bytes = source["inline_bytes"].as_str()?;
    base64::engine::general_purpose::STANDARD.decode(bytes).ok()
}

fn moment(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dump(pem: &str) -> Value {
        let kept = json!({ "name": "default", "version_info": "1", "secret": { "name": "default", "tls_certificate": {
            "certificate_chain": { "inline_string": pem }, "private_key": { "inline_string": "[redacted]" } } } });
        let mut roots = json!({ "name": "ROOTCA", "secret": { "validation_context": { "trusted_ca": {
            "inline_bytes": base64::engine::general_purpose::STANDARD.encode(pem) } } } });
        roots["error_state"] =
            json!({ "details": "trusted_ca is empty", "last_update_attempt": "2026-11-21T19:06:54Z" });
        let waiting =
            json!({ "name": "late", "version_info": "uninitialized", "secret": { "name": "late" } });
        json!({ "configs": [
            { "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump" },
            { "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
              "dynamic_active_secrets": [kept, roots], "dynamic_warming_secrets": [waiting] } ] })
    }

    #[test]
    fn certificates_authorities_and_what_has_not_come_are_rows_of_istioctls_table() {
        let pem = include_str!("../../../tests/data/certificate.pem");
        let found = in_dump(&dump(pem));
        let certificate = Certificate::from_pem(pem.as_bytes()).unwrap();
        let rows: Vec<_> = found
            .iter()
            .flat_map(|entry| rows(entry, certificate.not_before()))
            .collect();
        let serial = certificate.serial();
        let (from, to) = (moment(certificate.not_before()), moment(certificate.not_after()));
        assert_eq!(
            rows,
            [
                ["default", "Cert Chain", "ACTIVE", "true", serial, &to, &from],
                ["ROOTCA", "CA", "ACTIVE", "true", serial, &to, &from],
                ["late", "", "WARMING", "false", "", "", ""],
            ]
        );
        assert_eq!(
            found.iter().filter_map(refusal).collect::<Vec<_>>(),
            ["ROOTCA: an update was refused at 2026-11-21T19:06:54Z: trusted_ca is empty"]
        );
    }
}
