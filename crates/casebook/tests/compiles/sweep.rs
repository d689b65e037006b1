//! Sets every field of a kind, one at a time, to whatever an API server admits, and puts the object before proxies.

use std::collections::{BTreeMap, BTreeSet};

use api_istio::kinds::Kind as Istio;
use casebook::certificates::Files;
use casebook::page::documents;
use casebook::world::World;
use control_apiserver::conformance::VerdictServer;
use control_snapshot::{Kind, Objects, Proxy, Settings, Snapshot};
use serde_json::{Value, json};

use crate::fields::{self, Path};
use crate::proxies::{Bench, Taken};

const WORLD: &str = "
identities: true
services:
  orders: {versions: [v1, v2], ports: {http: 80, tcp-orders: 4001}}
  wire: {ports: {http: 80, tcp-wire: 4000, tls-wire: 443}}
certificates: {edge: {names: [shop.test]}}
";

/// What every scene has beside its own objects.
const BESIDE: &str = "
- {kind: ServiceEntry, metadata: {name: bank}, spec: {hosts: [bank.test], resolution: DNS, ports: [
    {number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}, {number: 4002, name: tcp, protocol: TCP}]}}
- {kind: ServiceEntry, metadata: {name: wild}, spec: {hosts: ['*.wild.test'], resolution: NONE, ports: [
    {number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]}}
";

/// Fields that stand in several places of a kind get all values in one of them, and a few in the others.
const OTHER_PLACES: [&str; 2] = ["subsets[].trafficPolicy.", "portLevelSettings[]."];
/// As many values has a field elsewhere than where it has all.
const FEW_VALUES: usize = 1;

/// The name of the object whose fields are set.
const SUBJECT: &str = "subject";

/// An object and the part of it whose fields are set.
struct Scene {
    name: String,
    kind: &'static Istio,
    spec: Value,
    under: Path,
    beside: Vec<Value>,
}

impl Scene {
    /// The proxies that see the object.
    fn concerns(&self) -> &'static [&'static str] {
        match self.kind.kind {
            "Gateway" => &["gateway"],
            "VirtualService" if !self.spec["gateways"].is_null() => &["gateway"],
            "Sidecar" => &["sidecar", "orders-v1"],
            "PeerAuthentication" => &["orders-v1"],
            _ => &["sidecar"],
        }
    }
}

/// What came of all scenes of some kinds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) taken: Taken,
    /// Objects that were admitted.
    pub(crate) admitted: usize,
    /// By kind and field: object, value, proxy, resource and message of the first.
    pub(crate) refused: BTreeMap<String, String>,
    /// Fields, and whether one of their values was admitted, and changed what some proxy gets.
    pub(crate) fields: BTreeMap<String, Reached>,
}

/// How far a field was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reached {
    /// No value was admitted.
    #[default]
    Never,
    /// A value was admitted, and changed nothing.
    Admitted,
    /// A value changed what some proxy gets.
    Translated,
}

/// Runs all scenes of these kinds.
pub(crate) fn run(kinds: &[&str]) -> Report {
    let server = VerdictServer::start(api_istio::crds()).expect("an API server");
    let world = World::parse(WORLD).expect("a world");
    let files = Files::make(&world.certificates).expect("certificates");
    let stage = Stage {
        bench: Bench::new(),
        server,
        objects: objects(&world, &files),
        proxies: ["sidecar", "orders-v1", "gateway"]
            .map(|proxy| {
                (
                    proxy,
                    World {
                        proxy: proxy.to_owned(),
                        ..world.clone()
                    },
                )
            })
            .to_vec(),
    };
    let proxies: Vec<(&str, Proxy)> = stage
        .proxies
        .iter()
        .map(|(name, world)| (*name, stage.bench.proxy_of(world)))
        .collect();
    let mut report = Report::default();
    let mut seen = Seen::new();
    for scene in scenes()
        .into_iter()
        .filter(|scene| kinds.contains(&scene.kind.kind))
    {
        let concerned = proxies.iter().filter(|(name, _)| scene.concerns().contains(name));
        let concerned: Vec<_> = concerned.cloned().collect();
        stage.play(&scene, &concerned, &mut seen, &mut report);
    }
    report
}

fn objects(world: &World, files: &Files) -> Objects {
    let mut objects = Objects::new(Settings {
        identity: true,
        ..Settings::default()
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": { "name": "edge", "namespace": "istio-system" },
        "stringData": {
            "cert": files.read("edge.crt").expect("a file"), "key": files.read("edge.key").expect("a file"),
            "cacert": files.read("ca.crt").expect("a file"),
        },
    });
    let beside: Vec<Value> = serde_saphyr::from_str(BESIDE).expect("objects");
    for object in world.objects("/dev/null").into_iter().chain([secret]) {
        put(&mut objects, object);
    }
    for object in beside {
        put(&mut objects, complete(object));
    }
    objects
}

/// Applies an object; what does not parse is absent.
pub(crate) fn put(objects: &mut Objects, object: Value) {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    if let Some(kind) = Kind::parse(text("apiVersion"), text("kind")) {
        objects.apply(kind, object);
    }
}

/// An Istio object with the version of its kind, its namespace and a name.
fn complete(mut object: Value) -> Value {
    let kind = kind_of(&object);
    object["apiVersion"] = format!("{}/{}", kind.group, kind.versions[0]).into();
    let namespace = if kind.kind == "Gateway" {
        "istio-system"
    } else {
        "default"
    };
    object["metadata"]["namespace"] = namespace.into();
    object
}

fn kind_of(object: &Value) -> &'static Istio {
    let name = object["kind"].as_str().unwrap_or_default();
    let found = api_istio::kinds::KINDS.iter().find(|kind| kind.kind == name);
    found.unwrap_or_else(|| panic!("there is no kind {name}"))
}

fn scenes() -> Vec<Scene> {
    let scenes = documents(include_str!("scenes.yaml")).expect("scenes");
    let list = scenes[0].as_array().expect("a list").clone();
    list.into_iter().map(scene).collect()
}

fn scene(scene: Value) -> Scene {
    let kind = kind_of(&scene["subject"]);
    let schema = (kind.spec)();
    let mut under = Path::new();
    for name in scene["under"].as_array().into_iter().flatten() {
        under.push(name.as_str().unwrap_or_default().to_owned());
        if fields::schema_at(&schema, &under).get("items").is_some() {
            under.push(fields::ELEMENT.to_owned());
        }
    }
    let beside = scene["beside"].as_array().into_iter().flatten();
    Scene {
        name: scene["scene"].as_str().expect("a name").to_owned(),
        kind,
        spec: scene["subject"]["spec"].clone(),
        under,
        beside: beside.cloned().map(complete).collect(),
    }
}

/// Fields that had all their values, in a part of a kind.
type Seen = BTreeSet<(&'static str, Path, String)>;

/// The world before scenes.
struct Stage {
    bench: Bench,
    server: VerdictServer,
    objects: Objects,
    proxies: Vec<(&'static str, World)>,
}

impl Stage {
    fn play(&self, scene: &Scene, proxies: &[(&str, Proxy)], seen: &mut Seen, report: &mut Report) {
        let mut objects = self.objects.clone();
        for object in &scene.beside {
            put(&mut objects, object.clone());
        }
        let subject = |spec: Value| {
            complete(json!({ "kind": scene.kind.kind, "metadata": { "name": SUBJECT }, "spec": spec }))
        };
        let plain = format!("{}, {}", scene.kind.kind, scene.name);
        let base = self.trial(&mut objects, subject(scene.spec.clone()), proxies, &plain, report);
        let base = base.unwrap_or_else(|| panic!("{plain}: the object itself is not admitted"));
        let schema = (scene.kind.spec)();
        for field in fields::all(fields::schema_at(&schema, &scene.under), &scene.under) {
            let shown = fields::shown(&field.path);
            let elsewhere = OTHER_PLACES.iter().any(|place| shown.contains(place));
            let seen = !seen.insert((scene.kind.kind, scene.under.clone(), shown.clone()));
            let few = (seen || elsewhere).then_some(FEW_VALUES);
            for value in field.values.iter().take(few.unwrap_or(usize::MAX)) {
                let mut spec = scene.spec.clone();
                fields::set(&mut spec, &schema, &field.path, value);
                let about = format!("{plain}: {shown}: {value}");
                let prints = self.trial(&mut objects, subject(spec), proxies, &about, report);
                let reached = match prints {
                    None => Reached::Never,
                    Some(prints) if prints == base => Reached::Admitted,
                    Some(_) => Reached::Translated,
                };
                let known = report
                    .fields
                    .entry(format!("{} {shown}", scene.kind.kind))
                    .or_default();
                *known = reached.max(*known);
            }
        }
    }

    /// Puts an object before all proxies, if it is admitted.
    fn trial(
        &self,
        objects: &mut Objects,
        object: Value,
        proxies: &[(&str, Proxy)],
        about: &str,
        report: &mut Report,
    ) -> Option<Vec<u64>> {
        let verdict = self.server.verdict(&object).expect("a verdict");
        if !verdict.is_accepted() {
            return None;
        }
        report.admitted += 1;
        put(objects, object);
        let snapshot = Snapshot::build(objects);
        let mut prints = Vec::new();
        for (name, proxy) in proxies {
            let outcome = self.bench.put(&snapshot, proxy);
            report.taken.add(outcome.taken);
            prints.push(outcome.fingerprint);
            for refusal in outcome.refused {
                // One value stands for all of its field.
                let mut words = about.splitn(3, ": ");
                let kind = words.next().and_then(|plain| plain.split(',').next());
                let key = format!(
                    "{} {}",
                    kind.unwrap_or_default(),
                    words.next().unwrap_or_default()
                );
                report
                    .refused
                    .entry(key)
                    .or_insert_with(|| format!("{about}\n    {name}: {refusal}"));
            }
        }
        Some(prints)
    }
}

/// The fields of a report that were reached so far.
pub(crate) fn reached(report: &Report, how_far: Reached) -> BTreeSet<&str> {
    let fields = report.fields.iter().filter(|(_, reached)| **reached == how_far);
    fields.map(|(field, _)| field.as_str()).collect()
}
