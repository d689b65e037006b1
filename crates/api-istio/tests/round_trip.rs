//! Objects in the wild survive our types: what is read is written again, field by field.

mod oracle;

use std::path::{Path, PathBuf};

use api_istio::{extensions, networking, security, telemetry};
use serde_json::Value;

/// Reads a spec into the type of its kind and writes it again; `None` for kinds that are not Istio's.
fn through_types(kind: &str, spec: &Value) -> Option<Result<Value, serde_json::Error>> {
    fn through<T: serde::de::DeserializeOwned + serde::Serialize>(
        spec: &Value,
    ) -> Result<Value, serde_json::Error> {
        serde_json::to_value(serde_json::from_value::<T>(spec.clone())?)
    }
    Some(match kind {
        "TrafficExtension" => through::<extensions::TrafficExtension>(spec),
        "WasmPlugin" => through::<extensions::WasmPlugin>(spec),
        "DestinationRule" => through::<networking::DestinationRule>(spec),
        "EnvoyFilter" => through::<networking::EnvoyFilter>(spec),
        "Gateway" => through::<networking::Gateway>(spec),
        "ProxyConfig" => through::<networking::ProxyConfig>(spec),
        "ServiceEntry" => through::<networking::ServiceEntry>(spec),
        "Sidecar" => through::<networking::Sidecar>(spec),
        "VirtualService" => through::<networking::VirtualService>(spec),
        "WorkloadEntry" => through::<networking::WorkloadEntry>(spec),
        "WorkloadGroup" => through::<networking::WorkloadGroup>(spec),
        "AuthorizationPolicy" => through::<security::AuthorizationPolicy>(spec),
        "PeerAuthentication" => through::<security::PeerAuthentication>(spec),
        "RequestAuthentication" => through::<security::RequestAuthentication>(spec),
        "Telemetry" => through::<telemetry::Telemetry>(spec),
        _ => return None,
    })
}

/// Whether a value is the default of its protobuf type, and so rightly absent when written.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || ZERO_ENUMS.contains(&text.as_str()),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Names of zero values of enums that the data writes out.
const ZERO_ENUMS: [&str; 14] = [
    "ANY",
    "NONE",
    "ALLOW",
    "MESH_EXTERNAL",
    "PASSTHROUGH",
    "DISABLE",
    "UNSET",
    "UPSERT",
    "CLIENT_AND_SERVER",
    "FAIL_CLOSE",
    "INLINE",
    "REGISTRY_ONLY",
    "DEFAULT",
    "V1",
];

fn missing(path: &str, read: &Value, written: Option<&Value>, out: &mut Vec<String>) {
    match (read, written) {
        (read, None) if is_zero(read) => {}
        (read, None) => out.push(format!("{path}: {read} is lost")),
        (Value::Object(read), Some(Value::Object(written))) => {
            for (key, value) in read {
                missing(&format!("{path}.{key}"), value, written.get(key), out);
            }
        }
        (Value::Array(read), Some(Value::Array(written))) => {
            for (index, value) in read.iter().enumerate() {
                missing(&format!("{path}[{index}]"), value, written.get(index), out);
            }
        }
        (Value::String(read), Some(Value::String(written))) if same_duration(read, written) => {}
        (Value::Number(read), Some(Value::Number(written))) if read.as_f64() == written.as_f64() => {}
        (read, Some(written)) if read == written => {}
        (read, Some(written)) => out.push(format!("{path}: {read} became {written}")),
    }
}

fn same_duration(read: &str, written: &str) -> bool {
    let parse = |text: &str| text.parse::<api_istio::Duration>().ok();
    parse(read).is_some() && parse(read) == parse(written)
}

fn yaml_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("folder").flatten() {
        let path = entry.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.is_dir() => yaml_files(&path, out),
            Some("yaml") => out.push(path),
            _ => {}
        }
    }
}

fn check_round_trip(set: &str, least: usize) {
    let Some(folder) = oracle::folder(set) else { return };
    let mut files = Vec::new();
    yaml_files(&folder, &mut files);
    let (mut seen, mut problems) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("file");
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap_or_default() {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if !object["apiVersion"]
                .as_str()
                .unwrap_or_default()
                .contains(".istio.io/")
            {
                continue;
            }
            let kind = object["kind"].as_str().unwrap_or_default();
            let path = format!(
                "{name} {kind}/{}",
                object["metadata"]["name"].as_str().unwrap_or_default()
            );
            match through_types(kind, &object["spec"]) {
                None => continue,
                Some(Err(error)) => problems.push(format!("{path}: {error}")),
                Some(Ok(written)) => missing(&path, &object["spec"], Some(&written), &mut problems),
            }
            seen += 1;
        }
    }
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
    assert!(seen >= least, "only {seen} objects in {set}");
}

#[test]
fn configuration_in_all_shapes_survives() {
    check_round_trip("istio-config", 20);
}

#[test]
fn istios_samples_survive() {
    check_round_trip("istio-samples", 20);
}

#[test]
fn recorded_scenarios_survive() {
    check_round_trip("istiod-xds", 60);
}

#[test]
fn authorization_policies_survive() {
    check_round_trip("istio-authz", 20);
}
