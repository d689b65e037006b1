//! The server's side of one ADS stream, without I/O: who is answered, with what scope, and what the client holds.
//!
//! The rules are Istio's, as its transcripts show them:
//! - The first request for a type is answered, whatever its nonce: a reconnecting client may send an old one.
//! - An ACK or NACK is never answered by itself. New names are answered, alone; repeated, fewer or no names are not.
//! - A nonce that was not the last one sent makes a state-of-the-world request stale, and its names are ignored. A
//!   delta request is a change, so its names count even then. A refusal counts whatever has been sent since.
//! - A nonce is answered once: names that change after a refusal do not take it back.
//! - Content that a client has refused is not sent again unchanged.

mod protocol;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_envoy::envoy::config::core::v3::{ControlPlane, Node};
use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::{Any, type_url};

pub use protocol::{Delta, Protocol, StateOfTheWorld};
pub use watch::{Changes, Nack, Watch};

use crate::limits;
use crate::resource::fingerprint;

const WILDCARD: &str = "*";

/// Types of which a client may ask for everything by naming nothing. For the others, an empty list is no wish at all.
const WILDCARD_TYPES: [&str; 3] = [type_url::CLUSTER, type_url::LISTENER, type_url::NAME_TABLE];

/// A resource ready to be sent, shared by all streams that send it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The name that subscriptions use.
    pub name: Arc<str>,
    /// The packed resource.
    pub body: Arc<Any>,
    /// A hash of the bytes; equal within one process only.
    fingerprint: u64,
}

impl Outgoing {
    /// Wraps a packed resource; its bytes are hashed once, here.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, body: impl Into<Arc<Any>>) -> Self {
        let body = body.into();
        Self {
            name: name.into(),
            fingerprint: fingerprint(&body),
            body,
        }
    }
}

/// What a request said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The first request of this type on this stream.
    Hello,
    /// More or fewer names.
    Changed,
    /// The last response is in force.
    Ack,
    /// A response was refused, for this reason.
    Nack(String),
    /// It answers a response that is not the last one.
    Stale,
    /// Nothing new.
    Nothing,
}

/// Which resources a request wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that the stream subscribes to of this type.
    All,
    /// These names, newly subscribed.
    Names(BTreeSet<String>),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The resource type.
    pub type_url: String,
    /// What it said.
    pub said: Said,
    /// What is to be sent in answer, if anything.
    pub answer: Option<Scope>,
}

/// Why a request ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// ADS needs to know the type.
    #[error("type URL is required for ADS")]
    NoType,
    /// The first request must say who is asking.
    #[error("missing node information")]
    NoNode,
    /// Too many resource types on one stream.
    #[error("more than {} resource types on one stream", limits::MAX_TYPES_PER_STREAM)]
    TooManyTypes,
    /// Too many names of one type.
    #[error("more than {} names of one type on one stream", limits::MAX_NAMES_PER_TYPE)]
    TooManyNames,
}

/// What to send of one type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Resources, in order.
    pub resources: Vec<Outgoing>,
    /// Names that are gone (delta; state of the world says it by absence).
    pub removed: Vec<Arc<str>>,
}

/// One ADS stream as the server sees it.
#[derive(Debug)]
pub struct Stream {
    name: String,
    control_plane: Option<ControlPlane>,
    nonces: u64,
    node: Option<Node>,
    watches: BTreeMap<String, Watch>,
}

impl Stream {
    /// A new stream. `name` makes its nonces differ from those of other streams; `identifier` is what responses say
    /// about the server (`control_plane.identifier`).
    #[must_use]
    pub fn new(name: impl Into<String>, identifier: &str) -> Self {
        let control_plane = (!identifier.is_empty()).then(|| ControlPlane {
            identifier: identifier.to_owned(),
        });
        Self {
            name: name.into(),
            control_plane,
            nonces: 0,
            node: None,
            watches: BTreeMap::new(),
        }
    }

    /// The client, once its first request has come.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// What the stream knows of one type.
    #[must_use]
    pub fn watch(&self, type_url: &str) -> Option<&Watch> {
        self.watches.get(type_url)
    }

    /// All types that the stream watches, by type URL.
    pub fn watches(&self) -> impl Iterator<Item = (&str, &Watch)> {
        self.watches
            .iter()
            .map(|(type_url, watch)| (type_url.as_str(), watch))
    }

    /// Reads the parts that every request has, of whatever type: who is asking. Later nodes are ignored.
    ///
    /// # Errors
    /// No node although it is the first request, or no type.
    pub fn greet(&mut self, node: Option<&Node>, type_url: &str) -> Result<&Node, Refusal> {
        if type_url.is_empty() {
            return Err(Refusal::NoType);
        }
        if self.node.is_none() {
            self.node = node.filter(|n| !n.id.is_empty()).cloned();
        }
        self.node.as_ref().ok_or(Refusal::NoNode)
    }

    /// Reads a request of a delta stream.
    ///
    /// # Errors
    /// The request breaks the protocol or a limit; the stream is to be closed.
    pub fn receive_delta(&mut self, request: &ads::DeltaDiscoveryRequest) -> Result<Received, Refusal> {
        self.greet(request.node.as_ref(), &request.type_url)?;
        let (first, watch) = self.watch_mut(&request.type_url)?;
        let mut said = if first {
            Said::Hello
        } else {
            watch.answered(&request.response_nonce, request.error_detail.as_ref())
        };
        if first {
            watch.claim(request.initial_resource_versions.keys());
        }
        let allowed = WILDCARD_TYPES.contains(&request.type_url.as_str());
        let mut added = BTreeSet::new();
        let mut everything = false;
        if first && request.resource_names_subscribe.is_empty() && allowed {
            watch.wildcard = true;
        }
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                everything |= !std::mem::replace(&mut watch.wildcard, true);
            } else if watch.names.insert(name.clone()) {
                added.insert(name.clone());
            }
        }
        let mut fewer = false;
        for name in &request.resource_names_unsubscribe {
            fewer |= watch.unsubscribe(name);
            added.remove(name);
        }
        if watch.names.len() > limits::MAX_NAMES_PER_TYPE {
            return Err(Refusal::TooManyNames);
        }
        if said == Said::Nothing && (fewer || everything || !added.is_empty()) {
            said = Said::Changed;
        }
        let answer = match (first || everything, added.is_empty()) {
            (true, _) => (watch.wildcard || !watch.names.is_empty()).then_some(Scope::All),
            (false, false) => Some(Scope::Names(added)),
            (false, true) => None,
        };
        Ok(Received {
            type_url: request.type_url.clone(),
            said,
            answer,
        })
    }

    /// Reads a request of a state-of-the-world stream.
    ///
    /// # Errors
    /// The request breaks the protocol or a limit; the stream is to be closed.
    pub fn receive_sotw(&mut self, request: &ads::DiscoveryRequest) -> Result<Received, Refusal> {
        self.greet(request.node.as_ref(), &request.type_url)?;
        if request.resource_names.len() > limits::MAX_NAMES_PER_TYPE {
            return Err(Refusal::TooManyNames);
        }
        let complete = [type_url::CLUSTER, type_url::LISTENER].contains(&request.type_url.as_str());
        let allowed = WILDCARD_TYPES.contains(&request.type_url.as_str());
        let (first, watch) = self.watch_mut(&request.type_url)?;
        let nonce = &request.response_nonce;
        let late = !first && !nonce.is_empty() && *nonce != watch.nonce_sent();
        let mut said = if first {
            Said::Hello
        } else {
            watch.answered(nonce, request.error_detail.as_ref())
        };
        if late || said == Said::Stale {
            return Ok(Received {
                type_url: request.type_url.clone(),
                said,
                answer: None,
            });
        }
        let names: BTreeSet<_> = request
            .resource_names
            .iter()
            .filter(|n| *n != WILDCARD)
            .cloned()
            .collect();
        let added: BTreeSet<_> = names.difference(&watch.names).cloned().collect();
        let fewer = watch.names.iter().any(|name| !names.contains(name));
        let listed = request.resource_names.iter().any(|n| n == WILDCARD);
        // Naming nothing asks for everything only as long as nothing was ever named.
        let wildcard = listed || (allowed && names.is_empty() && (first || watch.wildcard));
        let everything = wildcard && !watch.wildcard;
        watch.wildcard = wildcard;
        watch.names = names;
        if said == Said::Nothing && (fewer || everything || !added.is_empty()) {
            said = Said::Changed;
        }
        // Without a nonce on a stream that has answered before, a client starts over.
        let again = first || everything || (nonce.is_empty() && request.error_detail.is_none());
        let answer = match (again, added.is_empty()) {
            (true, _) => (watch.wildcard || !watch.names.is_empty()).then_some(Scope::All),
            (false, false) => Some(if complete { Scope::All } else { Scope::Names(added) }),
            (false, true) => None,
        };
        Ok(Received {
            type_url: request.type_url.clone(),
            said,
            answer,
        })
    }

    /// Makes the response that carries `content`, and remembers it as sent. `None`: the client has refused exactly
    /// this content, or does not watch the type.
    pub fn respond_delta(
        &mut self,
        type_url: &str,
        version: &str,
        content: Content,
    ) -> Option<ads::DeltaDiscoveryResponse> {
        let nonce = self.sent(type_url, version, &content)?;
        let resources = content.resources.into_iter().map(|r| ads::Resource {
            name: r.name.as_ref().to_owned(),
            resource: Some(Any::clone(&r.body)),
            ..Default::default()
        });
        Some(ads::DeltaDiscoveryResponse {
            system_version_info: version.to_owned(),
            resources: resources.collect(),
            type_url: type_url.to_owned(),
            removed_resources: content
                .removed
                .iter()
                .map(|name| name.as_ref().to_owned())
                .collect(),
            nonce,
            control_plane: self.control_plane.clone(),
            ..Default::default()
        })
    }

    /// As [`Stream::respond_delta`], for a state-of-the-world stream.
    pub fn respond_sotw(
        &mut self,
        type_url: &str,
        version: &str,
        content: Content,
    ) -> Option<ads::DiscoveryResponse> {
        let nonce = self.sent(type_url, version, &content)?;
        Some(ads::DiscoveryResponse {
            version_info: version.to_owned(),
            resources: content
                .resources
                .into_iter()
                .map(|r| Any::clone(&r.body))
                .collect(),
            type_url: type_url.to_owned(),
            nonce,
            control_plane: self.control_plane.clone(),
            ..Default::default()
        })
    }

    fn sent(&mut self, type_url: &str, version: &str, content: &Content) -> Option<String> {
        let nonce = format!("{}-{}", self.name, self.nonces + 1);
        if !self.watches.get_mut(type_url)?.send(&nonce, version, content) {
            return None;
        }
        self.nonces += 1;
        Some(nonce)
    }

    fn watch_mut(&mut self, type_url: &str) -> Result<(bool, &mut Watch), Refusal> {
        let first = !self.watches.contains_key(type_url);
        if first && self.watches.len() >= limits::MAX_TYPES_PER_STREAM {
            return Err(Refusal::TooManyTypes);
        }
        Ok((first, self.watches.entry(type_url.to_owned()).or_default()))
    }
}
