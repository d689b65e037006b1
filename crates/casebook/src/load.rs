//! Loads files of objects before one proxy, one file after another, and notes what the proxy takes.
//!
//! A file stays when the proxy takes it, so that later files may refer to it; one that is refused is taken back, so that
//! each file is judged by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use control_snapshot::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::certificates::{Files, Wanted};
use crate::control_plane::{Access, ControlPlane};
use crate::data_plane::{self, Proxy};
use crate::limits::{CHANGE_TIME, READY_TIME};
use crate::stage;
use crate::world::World;

/// A file with the objects that it holds.
#[derive(Clone, Debug)]
pub struct ObjectFile {
    /// Its name.
    pub name: String,
    /// The objects, in order.
    pub objects: Vec<Value>,
}

/// What came of one file before one proxy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// The file's name.
    pub file: String,
    /// What of it is not loaded: kinds that the mesh does not read, and objects that the API server refuses.
    pub not_loaded: Vec<String>,
    /// What of it translation leaves out, as diagnostics.
    pub left_out: Vec<String>,
    /// Whether the proxy's configuration is another with it.
    pub concerns: bool,
    /// What the proxy refuses.
    pub refused: Vec<String>,
}

/// Time between two looks at what the proxy holds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The codes of diagnostics by which translation says that it leaves a part of an object out.
const LEFT_OUT: [&str; 2] = ["[IST0106]", "[IST0133]"];

/// Files that the objects of Istio's own tests name, where those tests run, and the certificate that stands in for them.
const TAKEN_FOR_GRANTED: [(&str, &str); 8] = [
    ("tests/testdata/certs/default/cert-chain.pem", "client.crt"),
    ("tests/testdata/certs/default/key.pem", "client.key"),
    ("tests/testdata/certs/default/root-cert.pem", "ca.crt"),
    ("etc/certs/cert-chain.pem", "client.crt"),
    ("etc/certs/key.pem", "client.key"),
    ("etc/certs/root-cert.pem", "ca.crt"),
    ("etc/certs/servercert.pem", "client.crt"),
    ("etc/certs/privatekey.pem", "client.key"),
];

/// A folder of the root that is one of the stage's here: nothing is put into the root of the machine.
const MOVED_FOLDER: &str = "/etc/certs/";

/// An object whose files of [`MOVED_FOLDER`] are looked for beside the proxy.
fn with_moved_files(object: &Value) -> Value {
    match object {
        Value::String(text) if text.starts_with(MOVED_FOLDER) => text.trim_start_matches('/').into(),
        Value::Array(list) => list.iter().map(with_moved_files).collect(),
        Value::Object(map) => {
            let moved = map
                .iter()
                .map(|(key, value)| (key.clone(), with_moved_files(value)));
            Value::Object(moved.collect())
        }
        other => other.clone(),
    }
}

fn taken_for_granted() -> Result<Files> {
    let client = Wanted {
        names: vec!["client.test".to_owned()],
        ..Wanted::default()
    };
    Files::make(&BTreeMap::from([("client".to_owned(), client)]))
}

/// Loads files before the proxy of a world. This process must have one thread; it ends up inside a namespace of its own.
///
/// # Errors
/// The stage cannot be set up, or the proxy does not come up before any file is loaded.
pub fn load(world: &World, files: &[ObjectFile], program: &Path) -> Result<Vec<Verdict>> {
    stage::on(world, &taken_for_granted()?, async |stage| {
        let scratch = &stage.scratch;
        let access_log = scratch.join("access.log");
        let control_plane =
            ControlPlane::start(&scratch.join("api"), Access::InProcess, world.identities).await?;
        control_plane
            .put_cluster(&world.objects(&access_log.to_string_lossy()))
            .await?;
        control_plane.put_cluster(&namespaces(files)).await?;
        control_plane.ready().await?;
        put_files(scratch)?;
        let mut proxy = Proxy::start(program, world, scratch)?;
        let mut loader = Loader {
            control_plane,
            node: data_plane::node_id(world),
            held: BTreeSet::new(),
        };
        loader.control_plane.converge(&loader.node, READY_TIME).await?;
        proxy.wait_until_ready().await?;
        loader.held = held().await?.resources;
        let mut verdicts = Vec::new();
        for file in files {
            let verdict = loader.file(file).await;
            verdicts.push(
                verdict.with_context(|| format!("{}; the log ends:\n{}", file.name, proxy.log_tail()))?,
            );
        }
        // Only now: a rule may refer to an object of a later file.
        let diagnostics = loader.control_plane.diagnostics(&loader.node);
        for (file, verdict) in files.iter().zip(&mut verdicts) {
            verdict.left_out.extend(left_out(file, &diagnostics));
        }
        Ok(verdicts)
    })
}

fn put_files(directory: &Path) -> Result<()> {
    for (name, content) in TAKEN_FOR_GRANTED {
        let file = directory.join(name);
        std::fs::create_dir_all(file.parent().unwrap_or(directory))?;
        std::fs::copy(directory.join(content), file).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// The namespaces that objects of the files are in.
fn namespaces(files: &[ObjectFile]) -> Vec<Value> {
    let objects = files.iter().flat_map(|file| &file.objects);
    let names: BTreeSet<&str> = objects
        .filter_map(|o| o["metadata"]["namespace"].as_str())
        .collect();
    let namespace = |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    names.into_iter().map(namespace).collect()
}

/// The diagnostics that say that a part of an object of this file is left out.
fn left_out(file: &ObjectFile, diagnostics: &[String]) -> Vec<String> {
    let about: Vec<String> = file
        .objects
        .iter()
        .map(|object| format!("({})", named(object)))
        .collect();
    let of_file = |line: &&String| {
        LEFT_OUT.iter().any(|code| line.contains(code)) && about.iter().any(|object| line.contains(object))
    };
    diagnostics.iter().filter(of_file).cloned().collect()
}

/// An object as diagnostics call it: `VirtualService reviews.default`.
fn named(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str();
    let kind = object["kind"].as_str().unwrap_or_default();
    let (name, namespace) = (
        text("name").unwrap_or_default(),
        text("namespace").unwrap_or("default"),
    );
    format!("{kind} {name}.{namespace}")
}

struct Loader {
    control_plane: ControlPlane,
    node: String,
    /// What the proxy held after the last file.
    held: BTreeSet<String>,
}

impl Loader {
    async fn file(&mut self, file: &ObjectFile) -> Result<Verdict> {
        let mut verdict = Verdict {
            file: file.name.clone(),
            ..Verdict::default()
        };
        let mut readable = Vec::new();
        for object in &file.objects {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            if Kind::parse(text("apiVersion"), text("kind")).is_some() {
                readable.push(with_moved_files(object));
            } else {
                let (version, named) = (text("apiVersion"), named(object));
                verdict.not_loaded.push(format!(
                    "{named}: the mesh reads no {version} {} yet",
                    text("kind")
                ));
            }
        }
        if let Some(reason) = self.put(&readable, &mut verdict).await? {
            // Once more one by one, so that what is refused does not hide the rest.
            for object in &readable {
                if let Some(reason) = self.put(std::slice::from_ref(object), &mut verdict).await? {
                    verdict.refused.push(format!("{}: {reason}", named(object)));
                }
            }
            if verdict.refused.is_empty() {
                verdict.refused.push(reason);
            }
        }
        Ok(verdict)
    }

    /// Applies objects together and says why the proxy refuses them; then they are taken back.
    async fn put(&mut self, objects: &[Value], verdict: &mut Verdict) -> Result<Option<String>> {
        let mut applied = Vec::new();
        for object in objects {
            match self.control_plane.apply(std::slice::from_ref(object)).await {
                Ok(()) => applied.push(object.clone()),
                Err(error) => verdict.not_loaded.push(format!("{}: {error:#}", named(object))),
            }
        }
        match self.taken().await {
            Ok(held) => {
                verdict.concerns |= held != self.held;
                self.held = held;
                Ok(None)
            }
            Err(error) => {
                self.control_plane.delete(&applied).await?;
                self.recovered().await?;
                Ok(Some(format!("{error:#}")))
            }
        }
    }

    /// Waits until the proxy has taken what was applied; what it holds then.
    async fn taken(&self) -> Result<BTreeSet<String>> {
        self.control_plane.converge(&self.node, CHANGE_TIME).await?;
        let deadline = Instant::now() + CHANGE_TIME;
        loop {
            let held = held().await?;
            if held.warming.is_empty() {
                return Ok(held.resources);
            }
            if Instant::now() > deadline {
                bail!("still warming after {CHANGE_TIME:?}: {}", held.warming.join(", "));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the proxy refuses nothing any more.
    async fn recovered(&self) -> Result<()> {
        let deadline = Instant::now() + CHANGE_TIME;
        loop {
            match self.control_plane.converge(&self.node, CHANGE_TIME).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("the proxy does not recover from a refusal");
                }
                Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }
}

/// What a proxy says that it holds.
#[derive(Debug, Default)]
struct Held {
    /// Every resource, with neither version nor time.
    resources: BTreeSet<String>,
    /// Resources that wait for others.
    warming: Vec<String>,
}

async fn held() -> Result<Held> {
    let answer = data_plane::admin("/config_dump?include_eds").await?;
    let dump: Value = serde_json::from_str(&answer.body)
        .with_context(|| format!("/config_dump answers {}", answer.status))?;
    Ok(read_dump(&dump))
}

/// Reads the parts of a configuration dump that came over ADS.
fn read_dump(dump: &Value) -> Held {
    let mut held = Held::default();
    let parts = dump["configs"].as_array().into_iter().flatten();
    let lists = parts
        .filter_map(Value::as_object)
        .flatten()
        .filter(|(name, _)| name.starts_with("dynamic_"));
    for (list, resources) in lists {
        for resource in resources.as_array().into_iter().flatten() {
            let name = [
                "/name",
                "/cluster/name",
                "/route_config/name",
                "/endpoint_config/cluster_name",
            ]
            .iter()
            .find_map(|pointer| resource.pointer(pointer)?.as_str())
            .unwrap_or_default();
            if list.contains("warming") || resource.get("warming_state").is_some() {
                held.warming.push(name.to_owned());
            }
            let mut resource = resource.clone();
            strip(&mut resource);
            held.resources.insert(resource.to_string());
        }
    }
    held
}

/// Takes versions and times out, and refusals of what is not held.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields
                .retain(|name, _| !["version_info", "last_updated", "error_state"].contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(elements) => elements.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(version: &str, timeout: &str) -> Value {
        json!({ "configs": [
            { "bootstrap": {} },
            { "static_clusters": [{ "cluster": { "name": "xds-grpc" } }] },
            { "dynamic_active_clusters": [
                { "version_info": version, "cluster": { "name": "a", "connect_timeout": timeout } },
            ] },
            { "dynamic_listeners": [
                { "name": "b", "warming_state": {} },
            ] },
        ] })
    }

    #[test]
    fn a_dump_tells_what_is_held_and_what_waits() {
        let held = read_dump(&dump("1", "1s"));
        assert_eq!(held.resources.len(), 2);
        assert_eq!(held.warming, ["b"]);
    }

    #[test]
    fn only_content_makes_a_difference() {
        assert_eq!(
            read_dump(&dump("1", "1s")).resources,
            read_dump(&dump("2", "1s")).resources
        );
        assert_ne!(
            read_dump(&dump("1", "1s")).resources,
            read_dump(&dump("1", "2s")).resources
        );
    }

    #[test]
    fn a_diagnostic_belongs_to_the_file_of_its_object() {
        let file = ObjectFile {
            name: "f".to_owned(),
            objects: vec![json!({ "kind": "Gateway", "metadata": { "name": "g", "namespace": "n" } })],
        };
        let lines = [
            "Warning [IST0133] (Gateway g.n) spec.servers: left out".to_owned(),
            "Warning [IST0133] (Gateway g.m) spec.servers: left out".to_owned(),
            "Error [IST0101] (Gateway g.n) no such secret".to_owned(),
        ];
        assert_eq!(left_out(&file, &lines), lines[..1]);
    }
}
