//! Istio's own configuration in all shapes: every file is loaded, validated and translated, and every resource that
//! comes of it is taken by our proxy and by Envoy.
//!
//! The proxies are those that the files speak of: a sidecar in each namespace, and a gateway for each selector of a
//! Gateway. Each is started once on each data plane, in a namespace of its own, and the files are put before it one
//! after another ([`casebook::load`]). A file is a case, and so is the file before each proxy whose configuration it
//! changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use casebook::load::{ObjectFile, Verdict, load};
use casebook::run::{apart, side_by_side};
use casebook::world::{CLIENT, Client, Service, World};
use casebook::{DataPlane, data_plane, page};
use serde_json::{Map, Value, json};

use super::{Arguments, Case};

const DATA_PLANES: [DataPlane; 2] = [DataPlane::Lateen, DataPlane::Envoy];

/// A proxy with the name that cases give it, and the world around it.
struct Cast {
    name: String,
    world: World,
}

/// Runs the set.
pub(crate) fn run(arguments: &Arguments, dir: &Path) -> Result<Vec<Case>> {
    for data_plane in DATA_PLANES {
        // Before anything starts: a data plane that is not there is an error, not a shorter list of cases.
        data_plane::program(data_plane)?;
    }
    let (files, unreadable) = files(dir)?;
    let itself = std::env::current_exe()?;
    let parts = DATA_PLANES.iter().flat_map(|data_plane| {
        cast(&files)
            .into_iter()
            .map(move |one| part(&one.name, *data_plane))
    });
    let outcomes = Mutex::new(BTreeMap::new());
    side_by_side(parts.collect(), &|part: String| {
        let mut command = Command::new(&itself);
        command
            .arg(&arguments.set)
            .arg("--dir")
            .arg(dir)
            .args(["--on-stage", &part]);
        let outcome: Result<Vec<Verdict>> = apart(command);
        if let Ok(mut outcomes) = outcomes.lock() {
            outcomes.insert(part, outcome);
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_default();
    let mut cases = unreadable;
    cases.extend(
        outcomes.iter().filter_map(|(part, outcome)| {
            Some(differing(part, vec![format!("{:#}", outcome.as_ref().err()?)]))
        }),
    );
    for file in &files {
        cases.extend(judge(&file.name, &outcomes));
    }
    Ok(cases)
}

/// Plays one part, in a process that this program started for it.
pub(crate) fn on_stage(part_name: &str, dir: &Path) -> Result<Vec<Verdict>> {
    let (files, _) = files(dir)?;
    for one in cast(&files) {
        for data_plane in DATA_PLANES {
            if part(&one.name, data_plane) == part_name {
                return load(&one.world, &files, &data_plane::program(data_plane)?);
            }
        }
    }
    anyhow::bail!("there is no part {part_name}")
}

fn part(proxy: &str, data_plane: DataPlane) -> String {
    format!("{proxy}/{data_plane}")
}

fn differing(name: &str, differences: Vec<String>) -> Case {
    Case {
        name: name.to_owned(),
        passed: differences.is_empty(),
        differences,
    }
}

/// The cases of one file: by itself, and before each proxy that it concerns.
fn judge(file: &str, outcomes: &BTreeMap<String, Result<Vec<Verdict>>>) -> Vec<Case> {
    let mut itself: BTreeSet<&String> = BTreeSet::new();
    let mut taken = Vec::new();
    for (part, outcome) in outcomes {
        let verdicts = outcome.as_ref().map(Vec::as_slice).unwrap_or_default();
        for verdict in verdicts.iter().filter(|v| v.file == file) {
            itself.extend(verdict.not_loaded.iter().chain(&verdict.left_out));
            if verdict.concerns || !verdict.refused.is_empty() {
                taken.push(differing(&format!("{file}/{part}"), verdict.refused.clone()));
            }
        }
    }
    let mut itself: Vec<String> = itself.into_iter().cloned().collect();
    if taken.is_empty() {
        itself.push("it changes no proxy's configuration".to_owned());
    }
    let mut cases = vec![differing(file, itself)];
    cases.append(&mut taken);
    cases
}

/// The files of a folder, in order; and a case for each that is no list of objects.
fn files(dir: &Path) -> Result<(Vec<ObjectFile>, Vec<Case>)> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known))
        {
            paths.push(path);
        }
    }
    paths.sort();
    let (mut files, mut unreadable) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        match page::documents(&text) {
            Ok(objects) => files.push(ObjectFile { name, objects }),
            Err(error) => unreadable.push(differing(&name, vec![format!("{error:#}")])),
        }
    }
    Ok((files, unreadable))
}

/// The proxies that the files speak of.
fn cast(files: &[ObjectFile]) -> Vec<Cast> {
    let objects: Vec<&Value> = files.iter().flat_map(|file| &file.objects).collect();
    let mut labels = BTreeMap::new();
    objects
        .iter()
        .for_each(|object| source_labels(object, &mut labels));
    let namespaces: BTreeSet<&str> = objects
        .iter()
        .map(|object| object["metadata"]["namespace"].as_str().unwrap_or("default"))
        .collect();
    let sidecars = namespaces.into_iter().map(|namespace| Cast {
        name: format!("sidecar.{namespace}"),
        world: sidecar(namespace, &labels, &objects),
    });
    let selectors: BTreeMap<String, &Value> = objects
        .iter()
        .filter(|object| object["kind"] == "Gateway")
        .map(|gateway| &gateway["spec"]["selector"])
        .map(|selector| (selector_name(selector), selector))
        .collect();
    let gateways = selectors.into_iter().map(|(name, selector)| Cast {
        name: format!("gateway.{name}"),
        world: World {
            proxy: "gateway".to_owned(),
            metadata: Map::from_iter([("LABELS".to_owned(), selector.clone())]),
            ..world()
        },
    });
    sidecars.chain(gateways).collect()
}

/// `app=x,istio=y` as one word of a name.
fn selector_name(selector: &Value) -> String {
    let labels = selector.as_object().into_iter().flatten();
    let words: Vec<&str> = labels.filter_map(|(_, value)| value.as_str()).collect();
    words.join("-")
}

/// What the files take for granted: Istio's own tests have this service beside them.
fn world() -> World {
    let service = Service {
        versions: vec!["v1".to_owned(), "v2".to_owned()],
        ports: BTreeMap::from([("http".to_owned(), 80), ("http-81".to_owned(), 81)]),
        ..Service::default()
    };
    World {
        services: BTreeMap::from([("service3".to_owned(), service)]),
        ..World::default()
    }
}

/// A sidecar to which every `sourceLabels` applies, and whose workload serves what the mesh's own entries of its
/// namespace name.
fn sidecar(namespace: &str, labels: &BTreeMap<String, String>, objects: &[&Value]) -> World {
    let of_mesh = |entry: &&&Value| {
        entry["metadata"]["namespace"] == namespace && entry["spec"]["location"] == "MESH_INTERNAL"
    };
    let endpoints = objects
        .iter()
        .filter(of_mesh)
        .filter_map(|entry| entry["spec"]["endpoints"].as_array())
        .flatten();
    let mut addresses = vec![CLIENT.to_string()];
    addresses.extend(endpoints.filter_map(|e| Some(e["address"].as_str()?.to_owned())));
    World {
        client: Client {
            namespace: namespace.to_owned(),
            labels: labels.clone(),
        },
        metadata: Map::from_iter([("INSTANCE_IPS".to_owned(), json!(addresses.join(",")))]),
        ..world()
    }
}

/// Collects the labels of every `sourceLabels`; the first value of a label stands.
fn source_labels(value: &Value, labels: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let own = value.as_object().filter(|_| name == "sourceLabels");
                for (label, value) in own.into_iter().flatten() {
                    let value = value.as_str().unwrap_or_default().to_owned();
                    labels.entry(label.clone()).or_insert(value);
                }
                source_labels(value, labels);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| source_labels(element, labels)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(objects: Value) -> ObjectFile {
        ObjectFile {
            name: "f.yaml".to_owned(),
            objects: objects.as_array().expect("list").clone(),
        }
    }

    #[test]
    fn the_proxies_are_those_that_the_files_speak_of() {
        let files = [file(json!([
            { "kind": "VirtualService", "metadata": { "namespace": "a" },
              "spec": { "http": [{ "match": [{ "sourceLabels": { "version": "v1" } }] }] } },
            { "kind": "ServiceEntry", "metadata": { "namespace": "b" },
              "spec": { "location": "MESH_INTERNAL", "endpoints": [{ "address": "10.0.0.1" }] } },
            { "kind": "Gateway", "metadata": { "namespace": "a" }, "spec": { "selector": { "app": "edge" } } },
        ]))];
        let cast = cast(&files);
        let names: Vec<&str> = cast.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["sidecar.a", "sidecar.b", "gateway.edge"]);
        assert_eq!(cast[0].world.client.labels["version"], "v1");
        assert_eq!(
            cast[1].world.metadata["INSTANCE_IPS"],
            format!("{CLIENT},10.0.0.1")
        );
        assert_eq!(cast[2].world.metadata["LABELS"], json!({ "app": "edge" }));
    }

    #[test]
    fn a_file_that_nobody_takes_up_differs() {
        let verdict = |concerns| Verdict {
            file: "f".to_owned(),
            concerns,
            ..Verdict::default()
        };
        let outcomes =
            |concerns| BTreeMap::from([("sidecar.a/envoy".to_owned(), Ok(vec![verdict(concerns)]))]);
        let cases = judge("f", &outcomes(false));
        assert_eq!((cases.len(), cases[0].passed), (1, false));
        let cases = judge("f", &outcomes(true));
        assert!(cases.iter().all(|case| case.passed));
        assert_eq!(cases[1].name, "f/sidecar.a/envoy");
    }
}
