//! Comparing what came out with what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api_envoy::envoy::config::route::v3::RouteConfiguration;
use api_envoy::{Any, any};
use serde_json::Value;

/// A response, reduced to what recordings hold of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) type_url: String,
    pub(super) nonce: String,
    pub(super) version: String,
    /// By name: what the resource holds, where recordings say it.
    pub(super) resources: BTreeMap<String, String>,
    pub(super) removed: BTreeSet<String>,
}

/// Recorded nonces and versions and ours, in pairs.
#[derive(Debug, Default)]
pub(super) struct Names {
    nonces: BTreeMap<String, String>,
    versions: BTreeMap<String, String>,
}

impl Names {
    /// Ours for a recorded nonce; one that no server has sent goes in as it is.
    pub(super) fn our_nonce(&self, recorded: &str) -> String {
        self.nonces
            .get(recorded)
            .cloned()
            .unwrap_or_else(|| recorded.to_owned())
    }

    pub(super) fn our_version(&self, recorded: &str) -> String {
        self.versions
            .get(recorded)
            .cloned()
            .unwrap_or_else(|| recorded.to_owned())
    }

    /// Pairs two versions; says so when one of them is paired with another already.
    fn pair_versions(&mut self, recorded: &str, ours: &str) -> Option<String> {
        let paired = self.versions.get(recorded);
        let back = self
            .versions
            .iter()
            .find(|(_, v)| *v == ours)
            .map(|(k, _)| k.as_str());
        let difference = match (paired, back) {
            (Some(paired), _) if paired != ours => format!("version {recorded} was {paired}, is {ours} now"),
            (_, Some(back)) if back != recorded => format!("version {ours} was {back}, is {recorded} now"),
            _ => {
                self.versions.insert(recorded.to_owned(), ours.to_owned());
                return None;
            }
        };
        Some(difference)
    }
}

impl Message {
    pub(super) fn recorded(message: &Value) -> Self {
        let resources = message["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|r| (super::text(r, "name"), sorted(&super::text(r, "holds"))));
        let version = message.get("systemVersionInfo").or(message.get("versionInfo"));
        Self {
            type_url: super::text(message, "typeUrl"),
            nonce: super::text(message, "nonce"),
            version: version.and_then(Value::as_str).unwrap_or_default().to_owned(),
            resources: resources.collect(),
            removed: super::texts(message, "removedResources").into_iter().collect(),
        }
    }

    pub(super) fn short(&self) -> &str {
        self.type_url.rsplit('.').next().unwrap_or_default()
    }

    /// How a response of ours differs from this recorded one; its nonce and version are paired with the recorded ones.
    pub(super) fn differences(&self, ours: &Self, names: &mut Names) -> Vec<String> {
        names.nonces.insert(self.nonce.clone(), ours.nonce.clone());
        let mut all: Vec<_> = names
            .pair_versions(&self.version, &ours.version)
            .into_iter()
            .collect();
        for (name, holds) in &self.resources {
            match ours.resources.get(name) {
                None => all.push(format!("{} not sent", name)),
                Some(other) if !holds.is_empty() && holds != other => {
                    all.push(format!("{name} holds {other:?}, recorded {holds:?}"));
                }
                Some(_) => {}
            }
        }
        let unrecorded = ours
            .resources
            .keys()
            .filter(|name| !self.resources.contains_key(*name));
        all.extend(unrecorded.map(|name| format!("{name} sent, not recorded")));
        if self.removed != ours.removed {
            all.push(format!("removed {:?}, recorded {:?}", ours.removed, self.removed));
        }
        all.into_iter()
            .map(|difference| format!("{} {}: {difference}", self.short(), self.nonce))
            .collect()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.resources.keys().map(String::as_str).collect();
        write!(f, "{} [{}]", self.short(), names.join(", "))?;
        if !self.removed.is_empty() {
            write!(f, " removed {:?}", self.removed)?;
        }
        Ok(())
    }
}

/// What a resource holds, as recordings word it: how many endpoints, or which virtual hosts.
pub(super) fn holds(body: &Any) -> String {
    if let Ok(assignment) = any::unpack::<ClusterLoadAssignment>(body) {
        let count: usize = assignment
            .endpoints
            .iter()
            .map(|locality| locality.lb_endpoints.len())
            .sum();
        return format!("endpoints: {count}");
    }
    if let Ok(route) = any::unpack::<RouteConfiguration>(body) {
        let names: Vec<_> = route
            .virtual_hosts
            .iter()
            .map(|host| host.name.as_str())
            .collect();
        return sorted(&format!("virtual hosts: {}", names.join(", ")));
    }
    String::new()
}

/// The order of virtual hosts has no meaning.
fn sorted(holds: &str) -> String {
    let Some(hosts) = holds.strip_prefix("virtual hosts: ") else {
        return holds.to_owned();
    };
    let mut hosts: Vec<_> = hosts.split(", ").collect();
    hosts.sort_unstable();
    format!("virtual hosts: {}", hosts.join(", "))
}
