//! Replays conversations recorded with istiod against a [`Session`]: the real state machine, the real translation.
//!
//! A transcript is a list of client messages, server messages and notes. Client messages go in as they are, with nonces
//! and versions exchanged for ours; server messages are what must come out. Notes say which objects change.

mod actions;
mod compare;
mod files;
mod sds;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::google::rpc::Status;
use control_snapshot::{Proxy, Settings};
use serde_json::Value;

use crate::generate::Cache;
use crate::session::{Delta, Protocol, Session, StateOfTheWorld};
use crate::world::World;
use actions::{Action, Objects};
use compare::{Message, Names};

/// The transcripts, with the variant each is in.
const SCRIPTS: [(&str, bool); 2] = [("delta-script.json", true), ("sotw-script.json", false)];

/// One step of a transcript: what follows one note.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// Script and note, for example `delta-script/4`.
    pub name: String,
    /// Whether all of it came out as recorded.
    pub passed: bool,
    /// What did not.
    pub differences: Vec<String>,
}

/// Why a recording could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file is missing or does not read.
    #[error("{path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Replays every transcript of a folder of recordings.
///
/// # Errors
/// The folder lacks a file that a transcript needs. A folder without transcripts has no cases.
pub fn run_scripts(directory: &Path) -> Result<Vec<CaseResult>, ReplayError> {
    let mut results = Vec::new();
    for (file, delta) in SCRIPTS {
        if directory.join(file).exists() {
            let script = files::json(&directory.join(file))?;
            let prefix = file.trim_end_matches(".json");
            results.extend(match delta {
                true => Replay::<Delta>::open(directory, &script)?.run(prefix, &script),
                false => Replay::<StateOfTheWorld>::open(directory, &script)?.run(prefix, &script),
            });
        }
    }
    if directory.join(sds::FILE).exists() {
        results.push(sds::run(directory)?);
    }
    Ok(results)
}

/// How a variant turns recorded JSON into requests, and its responses into what was recorded.
trait Recorded: Protocol {
    fn request(message: &Value, node: Option<Node>, names: &Names) -> Self::Request;
    fn read(response: &Self::Response) -> Message;
}

struct Replay<P: Protocol> {
    world: Arc<World>,
    cache: Cache,
    node: Node,
    session: Option<Session>,
    sessions: u32,
    outbox: VecDeque<P::Response>,
    objects: Objects,
    pending: VecDeque<Vec<Action>>,
    names: Names,
}

impl<P: Recorded> Replay<P> {
    fn open(directory: &Path, script: &Value) -> Result<Self, ReplayError> {
        let world = World::new(
            Settings {
                identity: true,
                ..Settings::default()
            },
            "recorded",
        );
        for (kind, object) in files::world(directory)? {
            world.apply(kind, object);
        }
        world.publish();
        let id = script["node"].as_str().unwrap_or_default();
        Ok(Self {
            world,
            cache: Cache::default(),
            node: files::node(directory, id)?,
            session: None,
            sessions: 0,
            outbox: VecDeque::new(),
            objects: Objects::new(&script["objects"]),
            pending: VecDeque::new(),
            names: Names::default(),
        })
    }

    fn run(mut self, prefix: &str, script: &Value) -> Vec<CaseResult> {
        let mut results: Vec<CaseResult> = Vec::new();
        let mut differences = Vec::new();
        let mut name = String::new();
        for entry in script["transcript"].as_array().into_iter().flatten() {
            if let Some(note) = entry["note"].as_str() {
                self.finish(&mut differences);
                push_case(&mut results, &name, &mut differences);
                let number = note.split('.').next().unwrap_or_default();
                name = format!("{prefix}/{number}");
                self.pending = actions::of_note(note);
            } else if entry["client"].is_object() {
                self.client(&entry["client"], &mut differences);
            } else {
                self.server(&entry["server"], &mut differences);
            }
        }
        self.finish(&mut differences);
        push_case(&mut results, &name, &mut differences);
        results
    }

    /// At the end of a step nothing more may come: neither after the last message nor after changes that the note
    /// announced and no message waited for.
    fn finish(&mut self, differences: &mut Vec<String>) {
        while self.act() {}
        for response in self.outbox.drain(..) {
            differences.push(format!("not recorded: {}", P::read(&response)));
        }
    }

    fn client(&mut self, message: &Value, differences: &mut Vec<String>) {
        let node = message["node"].is_string().then(|| self.node.clone());
        if node.is_some() || self.session.is_none() {
            self.connect(differences);
        }
        let request = P::request(message, node, &self.names);
        let Some(session) = &mut self.session else { return };
        match session.receive::<P>(&request, &self.cache) {
            Ok(reply) => self.outbox.extend(reply.responses),
            Err(refusal) => differences.push(format!("refused: {refusal}")),
        }
    }

    fn connect(&mut self, differences: &mut Vec<String>) {
        let (Ok(proxy), Some(publication)) = (Proxy::from_node(&self.node), self.world.current()) else {
            differences.push("the node is refused".to_owned());
            return;
        };
        self.sessions += 1;
        self.session = Some(Session::open(&self.sessions.to_string(), "", proxy, publication));
    }

    fn server(&mut self, message: &Value, differences: &mut Vec<String>) {
        let recorded = Message::recorded(message);
        while self.outbox.is_empty() && self.act() {}
        let position = self
            .outbox
            .iter()
            .position(|r| P::response_type(r) == recorded.type_url);
        let Some(position) = position else {
            differences.push(format!("missing: {recorded}"));
            return;
        };
        for skipped in self.outbox.drain(..position) {
            differences.push(format!(
                "not recorded before {}: {}",
                recorded.short(),
                P::read(&skipped)
            ));
        }
        let Some(response) = self.outbox.pop_front() else {
            return;
        };
        let ours = P::read(&response);
        differences.extend(recorded.differences(&ours, &mut self.names));
    }

    /// Makes the next change that the note announced; false when there is none.
    fn act(&mut self) -> bool {
        let Some(actions) = self.pending.pop_front() else {
            return false;
        };
        for action in actions {
            self.objects.perform(&action, &self.world);
        }
        self.world.publish();
        if let (Some(session), Some(publication)) = (&mut self.session, self.world.current()) {
            self.outbox.extend(session.push::<P>(publication, &self.cache));
        }
        true
    }
}

fn push_case(results: &mut Vec<CaseResult>, name: &str, differences: &mut Vec<String>) {
    if !name.is_empty() {
        let differences = std::mem::take(differences);
        results.push(CaseResult {
            name: name.to_owned(),
            passed: differences.is_empty(),
            differences,
        });
    }
}

fn text(message: &Value, key: &str) -> String {
    message[key].as_str().unwrap_or_default().to_owned()
}

fn texts(message: &Value, key: &str) -> Vec<String> {
    message[key]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn error(message: &Value) -> Option<Status> {
    let detail = message["errorDetail"].as_object()?;
    let text = detail.get("message").and_then(Value::as_str).unwrap_or_default();
    Some(Status {
        code: 3,
        message: text.to_owned(),
        ..Status::default()
    })
}

impl Recorded for Delta {
    fn request(message: &Value, node: Option<Node>, names: &Names) -> Self::Request {
        let versions = message["initialResourceVersions"]
            .as_object()
            .into_iter()
            .flatten();
        let initial: BTreeMap<_, _> = versions
            .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
            .collect();
        ads::DeltaDiscoveryRequest {
            node,
            type_url: text(message, "typeUrl"),
            resource_names_subscribe: texts(message, "resourceNamesSubscribe"),
            resource_names_unsubscribe: texts(message, "resourceNamesUnsubscribe"),
            initial_resource_versions: initial,
            response_nonce: names.our_nonce(&text(message, "responseNonce")),
            error_detail: error(message),
            ..Default::default()
        }
    }

    fn read(response: &Self::Response) -> Message {
        let resources = response.resources.iter().map(|r| {
            let holds = r.resource.as_ref().map(compare::holds).unwrap_or_default();
            (r.name.clone(), holds)
        });
        Message {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            version: response.system_version_info.clone(),
            resources: resources.collect(),
            removed: response.removed_resources.iter().cloned().collect(),
        }
    }
}

impl Recorded for StateOfTheWorld {
    fn request(message: &Value, node: Option<Node>, names: &Names) -> Self::Request {
        ads::DiscoveryRequest {
            version_info: names.our_version(&text(message, "versionInfo")),
            node,
            resource_names: texts(message, "resourceNames"),
            type_url: text(message, "typeUrl"),
            response_nonce: names.our_nonce(&text(message, "responseNonce")),
            error_detail: error(message),
            ..Default::default()
        }
    }

    fn read(response: &Self::Response) -> Message {
        let resources = response
            .resources
            .iter()
            .map(|r| (xds::resource_name(r), compare::holds(r)));
        Message {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            version: response.version_info.clone(),
            resources: resources.collect(),
            removed: Default::default(),
        }
    }
}
