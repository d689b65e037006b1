//! Runs recorded CRDs and objects through the server and compares: for `cargo xtask oracle`.
//!
//! Every verdict is the answer to a real create request (`dryRun=All`, `fieldValidation=Strict`) to a real server.

mod compare;
mod mutate;
mod server;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use server::{Verdict, VerdictServer};

/// What came of one case.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// `set/file#number`, the same on every run.
    pub name: String,
    /// Whether ours did what was expected.
    pub passed: bool,
    /// What differs; empty when nothing does.
    pub detail: String,
}

impl CaseResult {
    fn new(name: impl Into<String>, differences: Vec<String>) -> Self {
        Self {
            name: name.into(),
            passed: differences.is_empty(),
            detail: differences.join("; "),
        }
    }
}

/// The file of CRDs in the folder `istio-crds`.
const CRD_FILE: &str = "crd-all.gen.yaml";
/// The key that says which error a document must cause.
const EXPECTED_ERROR: &str = "_err";

/// Runs the documents of the folder `istio-crd-validation`: each must be accepted, or refused with the error it names,
/// under the recorded CRDs (in the folder `istio-crds` beside it) and under our own.
///
/// A folder that cannot be read is one failed case that says so.
pub fn run_crd_validation(dir: &Path) -> Vec<CaseResult> {
    let crds = dir.with_file_name("istio-crds");
    run(|| {
        let documents = documents(&yaml_files(dir)?)?;
        let recorded = VerdictServer::start(recorded_crds(&crds)?)?;
        let own = VerdictServer::start(api_istio::crds())?;
        let mut results = Vec::new();
        for (set, server) in [("recorded", &recorded), ("own", &own)] {
            for document in &documents {
                let expected = document.value[EXPECTED_ERROR].as_str().map(str::to_owned);
                let mut object = document.value.clone();
                if let Some(map) = object.as_object_mut() {
                    map.shift_remove(EXPECTED_ERROR);
                }
                let difference = judge(expected.as_deref(), &server.verdict(&object)?);
                results.push(CaseResult::new(
                    format!("{set}/{}", document.name),
                    difference.into_iter().collect(),
                ));
            }
        }
        Ok(results)
    })
}

/// Compares our CRDs with those of the folder `istio-crds`: names, versions, columns and subresources, and the verdicts
/// on the documents of the folders `istio-config`, `istio-samples` and `istio-crd-validation` beside it, changed in
/// small ways as well.
pub fn run_crds(dir: &Path) -> Vec<CaseResult> {
    run(|| {
        let recorded = recorded_crds(dir)?;
        let own = api_istio::crds();
        let mut results: Vec<CaseResult> = recorded
            .iter()
            .map(|crd| compare::definition(crd, &own))
            .collect();
        let mut files = Vec::new();
        for folder in ["istio-config", "istio-samples", "istio-crd-validation"] {
            let folder = dir.with_file_name(folder);
            // More recordings exist than are shared; a folder may be missing, and then has no cases.
            if folder.is_dir() {
                files.extend(yaml_files(&folder)?);
            }
        }
        let recorded_server = VerdictServer::start(recorded)?;
        let own_server = VerdictServer::start(own)?;
        for document in documents(&files)? {
            let mut object = document.value;
            if let Some(map) = object.as_object_mut() {
                map.shift_remove(EXPECTED_ERROR);
            }
            let mut differences = Vec::new();
            for (change, object) in mutate::variants(&object) {
                let (theirs, ours) = (recorded_server.verdict(&object)?, own_server.verdict(&object)?);
                if theirs.is_accepted() != ours.is_accepted() {
                    differences.push(format!("{change}: recorded CRD: {theirs}; ours: {ours}"));
                }
            }
            results.push(CaseResult::new(format!("verdict/{}", document.name), differences));
        }
        Ok(results)
    })
}

fn run(cases: impl FnOnce() -> Result<Vec<CaseResult>, String>) -> Vec<CaseResult> {
    cases().unwrap_or_else(|why| vec![CaseResult::new("setup", vec![why])])
}

fn judge(expected: Option<&str>, verdict: &Verdict) -> Option<String> {
    match (expected, verdict) {
        (None, Verdict::Accepted) => None,
        (Some(expected), Verdict::Refused(message)) if message.contains(expected) => None,
        (None, refused) => Some(format!("should be accepted: {refused}")),
        (Some(expected), other) => Some(format!("should be refused with {expected:?}: {other}")),
    }
}

/// One object of a file.
struct Document {
    name: String,
    value: Value,
}

/// The Istio objects in these files.
fn documents(files: &[PathBuf]) -> Result<Vec<Document>, String> {
    let mut found = Vec::new();
    for file in files {
        let values = read(file)?;
        let folder = file
            .parent()
            .and_then(Path::file_name)
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        for (index, value) in values.into_iter().enumerate() {
            let api_version = value["apiVersion"].as_str().unwrap_or_default();
            if api_version
                .split('/')
                .next()
                .is_some_and(|group| group.ends_with("istio.io"))
            {
                found.push(Document {
                    name: format!("{folder}/{stem}#{index}"),
                    value,
                });
            }
        }
    }
    Ok(found)
}

fn recorded_crds(dir: &Path) -> Result<Vec<Value>, String> {
    let mut values = read(&dir.join(CRD_FILE))?;
    values.retain(|value| value["kind"] == "CustomResourceDefinition");
    Ok(values)
}

fn read(file: &Path) -> Result<Vec<Value>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut values = Vec::new();
    // In a flow list YAML 1.2 takes `001:db8::]` for a key without a value, and go-yaml, which kubectl uses, for text.
    let address = regex::Regex::new(r"([0-9a-fA-F:]+::)([\],])").map_err(|error| error.to_string())?;
    let text = address.replace_all(&text, "\"$1\"$2");
    // Documents are parsed one by one, so that a broken one is named.
    for part in format!("\n{text}").split("\n---") {
        let part = part.split_once('\n').map_or("", |(_, rest)| rest);
        if part
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            continue;
        }
        let value =
            crate::decode::yaml(part.as_bytes()).map_err(|error| format!("{}: {error}", file.display()))?;
        if value.value.is_object() {
            values.push(value.value);
        }
    }
    Ok(values)
}

/// All YAML files below a folder, in order.
fn yaml_files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|error| format!("{}: {error}", dir.display()))?
            .path();
        if path.is_dir() {
            files.extend(yaml_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
