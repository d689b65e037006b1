//! Replays the recorded SDS exchange of an authenticated gateway (`sds.json`).
//!
//! The recording has no bytes; certificates and keys are made here, other ones for each Secret, and must come out where
//! the recording says whose bytes there were.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::json::{Schema, Style};
use api_envoy::type_url;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_ca::{Authority, SelfSigned};
use control_snapshot::{Kind, Proxy, Settings};
use identity::{KeyKind, PrivateKey, SubjectName, TrustDomain};
use serde_json::{Value, json};

use super::{CaseResult, ReplayError, files, texts};
use crate::generate::Cache;
use crate::secrets::SecretAccess;
use crate::session::{Delta, Session};
use crate::world::World;

/// The recording.
pub(super) const FILE: &str = "sds.json";
/// How long the certificates of the replay are valid.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Base64 of the entries of Secrets, by `namespace/name` and entry.
type Entries = BTreeMap<String, BTreeMap<String, String>>;

/// Replays the exchange: one case.
pub(super) fn run(directory: &Path) -> Result<CaseResult, ReplayError> {
    let recorded = files::json(&directory.join(FILE))?;
    let world = World::new(Settings::default(), "recorded");
    for (kind, object) in files::world(directory)? {
        world.apply(kind, object);
    }
    let mut entries = Entries::new();
    for (title, wanted) in recorded["secrets"].as_object().into_iter().flatten() {
        let (object, made) = secret(title, wanted).ok_or_else(|| ReplayError::Malformed {
            path: FILE.to_owned(),
            reason: format!("no Secret can be made for {title}"),
        })?;
        entries.insert(path_of(title).to_owned(), made);
        world.apply(Kind::Secret, object);
    }
    world.publish();
    let node = files::node(directory, recorded["node"].as_str().unwrap_or_default())?;
    let mut differences = Vec::new();
    match (Proxy::from_node(&node), world.current()) {
        (Ok(proxy), Some(publication)) => {
            let namespace = Arc::clone(&proxy.profile.namespace);
            let mut session = Session::open("1", "", proxy, publication);
            session.set_secret_access(SecretAccess::Namespace(namespace));
            let request = ads::DeltaDiscoveryRequest {
                node: Some(node),
                type_url: type_url::SECRET.to_owned(),
                resource_names_subscribe: texts(&recorded, "subscribe"),
                ..Default::default()
            };
            match session.receive::<Delta>(&request, &Cache::default()) {
                Ok(reply) => compare(&recorded, &entries, &reply.responses, &mut differences),
                Err(refusal) => differences.push(format!("refused: {refusal}")),
            }
        }
        _ => differences.push("the node is refused".to_owned()),
    }
    Ok(CaseResult {
        name: "sds".to_owned(),
        passed: differences.is_empty(),
        differences,
    })
}

fn path_of(title: &str) -> &str {
    title.split(' ').next().unwrap_or_default()
}

/// A Secret with these entries, and what is in them in base64. The title names its type in brackets, if it has one.
fn secret(title: &str, wanted: &Value) -> Option<(Value, BTreeMap<String, String>)> {
    let (namespace, name) = path_of(title).split_once('/')?;
    let kind = title.split(['(', ')']).nth(1).unwrap_or("Opaque");
    let now = SystemTime::now();
    let domain = TrustDomain::new("example.com").ok()?;
    let authority = Authority::self_signed(&SelfSigned::for_trust_domain(&domain), now).ok()?;
    let key = PrivateKey::generate(KeyKind::default()).ok()?;
    let names = [SubjectName::Dns("example.com".to_owned())];
    let issued = authority.certify(key.public_key(), &names, LIFETIME, now).ok()?;
    let mut data = BTreeMap::new();
    for entry in wanted.as_array()?.iter().filter_map(Value::as_str) {
        let text = match entry {
            "tls.crt" => issued.leaf().ok()?.pem(),
            "tls.key" => key.to_pem().ok()?.to_string(),
            "ca.crt" => authority.roots_pem(),
            _ => return None,
        };
        data.insert(entry.to_owned(), STANDARD.encode(text));
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": name, "namespace": namespace}, "data": data,
    });
    Some((object, data))
}

fn compare(
    recorded: &Value,
    entries: &Entries,
    responses: &[ads::DeltaDiscoveryResponse],
    differences: &mut Vec<String>,
) {
    let [response] = responses else {
        differences.push(format!("{} responses instead of one", responses.len()));
        return;
    };
    let schema = Schema::get();
    let printed = response.resources.iter().filter_map(|r| {
        let body = schema.print_any(r.resource.as_ref()?, Style::Canonical).ok()?;
        Some((r.name.clone(), body))
    });
    let mut ours: BTreeMap<String, Value> = printed.collect();
    for resource in recorded["resources"].as_array().into_iter().flatten() {
        let name = resource["name"].as_str().unwrap_or_default();
        let expected = with_bytes(resource, name, entries);
        // Neither side is shown: one holds a key.
        match ours.remove(name) {
            None => differences.push(format!("missing: {name}")),
            Some(body) if body != expected => differences.push(format!("{name} differs")),
            Some(_) => {}
        }
    }
    differences.extend(ours.keys().map(|name| format!("not recorded: {name}")));
    let mut removed = response.removed_resources.clone();
    removed.sort();
    if removed != texts(recorded, "removedResources") {
        differences.push(format!("removed: {removed:?}"));
    }
}

/// The recorded resource with our bytes in the place of `<bytes of ENTRY>`.
fn with_bytes(recorded: &Value, name: &str, entries: &Entries) -> Value {
    match recorded {
        Value::String(text) => match text.strip_prefix("<bytes of ").and_then(|t| t.strip_suffix('>')) {
            Some(entry) => content(name, entry, entries).map_or(Value::Null, Value::String),
            None => recorded.clone(),
        },
        Value::Array(list) => list.iter().map(|v| with_bytes(v, name, entries)).collect(),
        Value::Object(map) => {
            let filled = map.iter().map(|(k, v)| (k.clone(), with_bytes(v, name, entries)));
            Value::Object(filled.collect())
        }
        other => other.clone(),
    }
}

/// The entry of the Secret of this resource: of the Secret of its whole name, or of the one without the suffix.
fn content(name: &str, entry: &str, entries: &Entries) -> Option<String> {
    let path = format!("istio-system/{}", name.strip_prefix("kubernetes://")?);
    let whole = path.strip_suffix("-cacert");
    let secret = entries.get(&path).or_else(|| entries.get(whole?))?;
    secret.get(entry).cloned()
}
