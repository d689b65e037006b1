//! The generated CRDs: the committed files are current, and the schemas are Istio's own in all but the sentences.

mod oracle;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn crds_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")
}

fn read_yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_committed_files_are_what_the_types_generate() {
    for kind in api_istio::kinds::KINDS {
        let path = crds_folder().join(format!("{}.yaml", kind.crd_name()));
        assert!(
            read_yaml(&path) == api_istio::crd::crd(kind),
            "{} is stale; run `cargo run -p api-istio --bin generate-crds`",
            path.display()
        );
    }
    let files = std::fs::read_dir(crds_folder()).expect("crds").count();
    assert_eq!(
        files,
        api_istio::kinds::KINDS.len(),
        "a file in crds/ belongs to no kind"
    );
}

#[test]
fn schemas_equal_istios_in_all_but_sentences() {
    let Some(folder) = oracle::folder("istio-crds") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("crd-all.gen.yaml")).expect("crd-all.gen.yaml");
    let theirs: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let ours = api_istio::crds();
    let mut differences = Vec::new();
    let mut compared = 0;
    for their in theirs
        .iter()
        .filter(|crd| crd["kind"] == "CustomResourceDefinition")
    {
        let name = their["metadata"]["name"].as_str().expect("name");
        match ours.iter().find(|crd| crd["metadata"]["name"] == name) {
            Some(our) => compare(name, &our["spec"], &their["spec"], &mut differences),
            None => differences.push(format!("{name}: we have no such CRD")),
        }
        compared += 1;
    }
    assert_eq!(compared, ours.len(), "number of CRDs");
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Arrays that mean sets: their order says nothing.
const SETS: [&str; 4] = ["required", "enum", "categories", "shortNames"];

/// Walks both in parallel and notes everything that differs, descriptions aside.
fn compare(path: &str, our: &Value, their: &Value, differences: &mut Vec<String>) {
    match (our, their) {
        (Value::Object(our), Value::Object(their)) => {
            let in_properties = path.ends_with("/properties");
            let keys: BTreeSet<&String> = our.keys().chain(their.keys()).collect();
            for key in keys
                .into_iter()
                .filter(|key| in_properties || *key != "description")
            {
                let path = format!("{path}/{key}");
                match (our.get(key), their.get(key)) {
                    (Some(our), Some(their)) => compare(&path, our, their, differences),
                    (Some(our), None) => differences.push(format!("{path}: only ours: {our}")),
                    (None, Some(their)) => differences.push(format!("{path}: only theirs: {their}")),
                    (None, None) => unreachable!("the key came from one of them"),
                }
            }
        }
        (Value::Array(our), Value::Array(their)) => {
            let is_set = SETS.iter().any(|set| path.ends_with(set));
            if our.len() != their.len() || (is_set && !their.iter().all(|item| our.contains(item))) {
                differences.push(format!("{path}: ours {our:?}, theirs {their:?}"));
            } else if !is_set {
                for (index, (our, their)) in our.iter().zip(their).enumerate() {
                    compare(&format!("{path}[{index}]"), our, their, differences);
                }
            }
        }
        (Value::Number(our), Value::Number(their)) if our.as_f64() == their.as_f64() => {}
        (our, their) if our == their => {}
        (our, their) => differences.push(format!("{path}: ours {our}, theirs {their}")),
    }
}

/// Every schema says something to `kubectl explain`, in our own words: no description is a copy of Istio's.
#[test]
fn every_field_is_documented() {
    fn walk(path: &str, schema: &Value) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let text = property["description"].as_str().unwrap_or_default();
            assert!(
                text.ends_with(['.', ':']) && text.len() > 3,
                "{path} has no sentence: {text:?}"
            );
            walk(&path, property);
            for inner in ["items", "additionalProperties"] {
                walk(&path, &property[inner]);
            }
        }
    }
    for crd in api_istio::crds() {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk(crd["spec"]["names"]["kind"].as_str().expect("kind"), schema);
    }
}
