//! What one stream watches, holds and has said about one resource type.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use api_envoy::google::rpc::Status;

use super::{Content, Outgoing, Said, WILDCARD};
use crate::limits;

/// A refusal, as the client worded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// `error_detail.message`.
    pub reason: String,
    /// The nonce of the refused response.
    pub nonce: String,
    /// The version of the refused response.
    pub version: String,
}

/// A response that the client has not accepted yet.
#[derive(Debug)]
struct Unanswered {
    nonce: String,
    version: String,
    digest: u64,
}

/// The state of one type on one stream.
#[derive(Debug, Default)]
pub struct Watch {
    pub(super) wildcard: bool,
    pub(super) names: BTreeSet<String>,
    /// What was sent last, by name. Zero: the client claims the name, and nothing is known about its bytes.
    held: BTreeMap<Arc<str>, u64>,
    nonce_sent: String,
    nonce_acked: String,
    /// The last that was answered, by an acceptance or a refusal.
    nonce_answered: String,
    version_sent: String,
    version_acked: String,
    nack: Option<Nack>,
    /// The latest responses since the last one that was accepted: a refusal may be on its way while more are sent.
    unanswered: VecDeque<Unanswered>,
    digest_refused: Option<u64>,
}

/// What of all resources of a type is not what the client holds.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// New or other than what was sent last.
    pub differing: Vec<&'a Outgoing>,
    /// Names that the client holds, and that are no more.
    pub vanished: Vec<Arc<str>>,
}

impl Watch {
    /// Whether everything of this type is wanted.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names subscribed to.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether a resource of this name is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether other bytes than these were sent last under this name, or none.
    #[must_use]
    pub fn differs(&self, resource: &Outgoing) -> bool {
        self.held.get(&resource.name) != Some(&resource.fingerprint)
    }

    /// The names that the client holds, or claimed to hold when it came.
    pub fn held(&self) -> impl Iterator<Item = &Arc<str>> {
        self.held.keys()
    }

    /// What of all resources of this type, sorted by name, differs from what was sent last.
    #[must_use]
    pub fn changes<'a>(&self, resources: &'a [Outgoing]) -> Changes<'a> {
        let mut changes = Changes::default();
        let mut resources = resources.iter().peekable();
        for (name, fingerprint) in &self.held {
            // Mostly both names are one, so that nobody has to read them.
            let before = |r: &&Outgoing| !Arc::ptr_eq(&r.name, name) && r.name < *name;
            while let Some(new) = resources.next_if(|r| before(r)) {
                changes.differing.push(new);
            }
            match resources.next_if(|r| r.name == *name) {
                Some(same) if same.fingerprint == *fingerprint => {}
                Some(other) => changes.differing.push(other),
                None => changes.vanished.push(Arc::clone(name)),
            }
        }
        changes.differing.extend(resources);
        changes
    }

    /// The nonce of the last response; empty before the first.
    #[must_use]
    pub fn nonce_sent(&self) -> &str {
        &self.nonce_sent
    }

    /// The nonce of the last response that was accepted; empty before the first.
    #[must_use]
    pub fn nonce_acked(&self) -> &str {
        &self.nonce_acked
    }

    /// The version of the last response.
    #[must_use]
    pub fn version_sent(&self) -> &str {
        &self.version_sent
    }

    /// The version of the last response that was accepted.
    #[must_use]
    pub fn version_acked(&self) -> &str {
        &self.version_acked
    }

    /// The last refusal, unless what was sent last was accepted since.
    #[must_use]
    pub fn nack(&self) -> Option<&Nack> {
        self.nack.as_ref()
    }

    /// Whether the last response is still unanswered.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.nonce_sent != self.nonce_answered
    }

    pub(super) fn claim<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        self.held.extend(names.map(|name| (Arc::from(name.as_str()), 0)));
    }

    pub(super) fn unsubscribe(&mut self, name: &str) -> bool {
        if name == WILDCARD {
            let names = &self.names;
            self.held.retain(|held, _| names.contains(held.as_ref()));
            return std::mem::replace(&mut self.wildcard, false);
        }
        if !self.wildcard {
            self.held.remove(name);
        }
        self.names.remove(name)
    }

    /// Takes an ACK or NACK into account.
    pub(super) fn answered(&mut self, nonce: &str, error: Option<&Status>) -> Said {
        if nonce.is_empty() && error.is_none() {
            return Said::Nothing;
        }
        if let Some(error) = error {
            let Some(refused) = self.unanswered.iter().find(|sent| sent.nonce == nonce) else {
                return Said::Stale;
            };
            self.nack = Some(Nack {
                reason: error.message.clone(),
                nonce: nonce.to_owned(),
                version: refused.version.clone(),
            });
            self.digest_refused = Some(refused.digest);
            nonce.clone_into(&mut self.nonce_answered);
            return Said::Nack(error.message.clone());
        }
        if nonce != self.nonce_sent {
            return Said::Stale;
        }
        // A client repeats the nonce whenever it changes its subscription; only the first time is an ACK, and not after a
        // refusal.
        if self.nonce_answered == nonce {
            return Said::Nothing;
        }
        nonce.clone_into(&mut self.nonce_acked);
        nonce.clone_into(&mut self.nonce_answered);
        self.version_acked.clone_from(&self.version_sent);
        self.unanswered.clear();
        self.nack = None;
        self.digest_refused = None;
        Said::Ack
    }

    /// Remembers content as sent; false when the client has refused the same content.
    pub(super) fn send(&mut self, nonce: &str, version: &str, content: &Content) -> bool {
        let digest = digest(content);
        if self.digest_refused == Some(digest) {
            return false;
        }
        for name in &content.removed {
            self.held.remove(name);
        }
        for resource in &content.resources {
            self.held.insert(resource.name.clone(), resource.fingerprint);
        }
        nonce.clone_into(&mut self.nonce_sent);
        version.clone_into(&mut self.version_sent);
        if self.unanswered.len() >= limits::MAX_UNANSWERED_RESPONSES {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(Unanswered {
            nonce: nonce.to_owned(),
            version: version.to_owned(),
            digest,
        });
        true
    }
}

fn digest(content: &Content) -> u64 {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    for resource in &content.resources {
        hasher.write(resource.name.as_bytes());
        hasher.write_u64(resource.fingerprint);
    }
    hasher.write_u8(0);
    for name in &content.removed {
        hasher.write(name.as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::Any;

    fn resource(name: &str, content: &str) -> Outgoing {
        Outgoing::new(
            name,
            Any {
                type_url: "t".to_owned(),
                value: content.as_bytes().to_vec(),
            },
        )
    }

    fn changes(held: &[(&str, &str)], now: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let mut watch = Watch::default();
        let resources = |list: &[(&str, &str)]| list.iter().map(|(n, c)| resource(n, c)).collect();
        let content = Content {
            resources: resources(held),
            removed: Vec::new(),
        };
        assert!(watch.send("1", "1", &content));
        let now: Vec<Outgoing> = resources(now);
        let changes = watch.changes(&now);
        let differing = changes.differing.iter().map(|r| r.name.to_string()).collect();
        (
            differing,
            changes.vanished.iter().map(|name| name.to_string()).collect(),
        )
    }

    #[test]
    fn what_is_new_or_other_differs_and_what_is_missing_has_vanished() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let held = [("b", "1"), ("d", "1"), ("f", "1")];
        assert_eq!(changes(&held, &held), (names(&[]), names(&[])));
        assert_eq!(changes(&[], &held), (names(&["b", "d", "f"]), names(&[])));
        assert_eq!(changes(&held, &[]), (names(&[]), names(&["b", "d", "f"])));
        let now = [("a", "1"), ("b", "1"), ("c", "1"), ("f", "2"), ("g", "1")];
        assert_eq!(
            changes(&held, &now),
            (names(&["a", "c", "f", "g"]), names(&["d"]))
        );
    }
}
