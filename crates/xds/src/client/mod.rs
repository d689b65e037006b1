//! The client's side of an ADS stream, without I/O.
//!
//! Usage: say what is wanted with [`Client::watch_all`] and [`Client::subscribe`]; call [`Client::connected`] when a
//! stream opens; send what [`Client::poll_request`] gives; hand each response to [`Client::receive`], apply the
//! [`Update`] and answer it with [`Client::accept`] or [`Client::reject`]; call [`Client::disconnected`] when the stream
//! ends. What the client holds outlives the stream: a reconnect announces it (delta: `initial_resource_versions`, state
//! of the world: `version_info`), so the server need not send it again.

mod backoff;
mod subscription;

use std::collections::{BTreeSet, VecDeque};

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use api_envoy::google::rpc::Status;

pub use backoff::Backoff;
use subscription::Subscription;

use crate::resource::{Resource, fingerprint, resource_name};
use crate::{Variant, limits};

/// `google.rpc.Code.INVALID_ARGUMENT`, the code of a NACK.
const INVALID_ARGUMENT: i32 = 3;

/// A message to send.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Request {
    /// On a state-of-the-world stream.
    StateOfTheWorld(DiscoveryRequest),
    /// On a delta stream.
    Delta(DeltaDiscoveryRequest),
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// On a state-of-the-world stream.
    StateOfTheWorld(DiscoveryResponse),
    /// On a delta stream.
    Delta(DeltaDiscoveryResponse),
}

/// What a response changes. Both variants of the protocol come out as changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The resource type.
    pub type_url: String,
    /// The version of the whole response.
    pub version: String,
    /// The nonce, echoed by the ACK or NACK.
    pub nonce: String,
    /// Added and changed resources. In state of the world also unchanged ones, marked so.
    pub resources: Vec<Resource>,
    /// Names that the server says are gone.
    pub removed: Vec<String>,
}

/// Why one resource was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The resource name.
    pub name: String,
    /// What is wrong, with the field path.
    pub reason: String,
}

#[derive(Debug)]
struct Answer {
    type_url: String,
    nonce: String,
    error: Option<Status>,
}

/// One ADS subscriber: all resource types over one stream.
#[derive(Debug)]
pub struct Client {
    variant: Variant,
    node: Node,
    connected: bool,
    node_sent: bool,
    subscriptions: Vec<Subscription>,
    answers: VecDeque<Answer>,
}

impl Client {
    /// A client that wants nothing yet.
    #[must_use]
    pub fn new(variant: Variant, node: Node) -> Self {
        Self {
            variant,
            node,
            connected: false,
            node_sent: false,
            subscriptions: Vec::new(),
            answers: VecDeque::new(),
        }
    }

    /// The variant this client speaks.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Wants every resource of a type that the server has for this node (a wildcard subscription).
    pub fn watch_all(&mut self, type_url: &str) {
        self.subscription(type_url).set_wildcard();
    }

    /// Wants these resources. Names already wanted change nothing.
    pub fn subscribe<I: IntoIterator<Item = S>, S: Into<String>>(&mut self, type_url: &str, names: I) {
        let subscription = self.subscription(type_url);
        names.into_iter().for_each(|name| subscription.add(name.into()));
    }

    /// No longer wants these resources, and forgets them.
    pub fn unsubscribe<I: IntoIterator<Item = S>, S: AsRef<str>>(&mut self, type_url: &str, names: I) {
        let subscription = self.subscription(type_url);
        names
            .into_iter()
            .for_each(|name| subscription.remove(name.as_ref()));
    }

    /// A stream has opened: every subscription is announced again.
    pub fn connected(&mut self) {
        self.connected = true;
        self.node_sent = false;
        self.answers.clear();
        self.subscriptions.iter_mut().for_each(Subscription::restart);
    }

    /// The stream has ended. Answers to its responses are dropped, since nonces die with their stream.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.answers.clear();
    }

    /// The next request to send, if any. Call it until it gives `None` after each change of state.
    ///
    /// Answers go first, in the order of the responses; a subscription change of the same type rides along.
    pub fn poll_request(&mut self) -> Option<Request> {
        if !self.connected {
            return None;
        }
        let (type_url, nonce, error) = match self.answers.pop_front() {
            Some(answer) => (answer.type_url, Some(answer.nonce), answer.error),
            None => (
                self.subscriptions
                    .iter()
                    .find(|s| s.wants_request())?
                    .type_url
                    .clone(),
                None,
                None,
            ),
        };
        let node = (!std::mem::replace(&mut self.node_sent, true)).then(|| self.node.clone());
        let variant = self.variant;
        let subscription = self.subscription(&type_url);
        Some(match variant {
            Variant::Delta => Request::Delta(subscription.delta_request(node, nonce, error)),
            Variant::StateOfTheWorld => {
                Request::StateOfTheWorld(subscription.sotw_request(node, nonce, error))
            }
        })
    }

    /// Reads a response. `None`: a type that nobody subscribed to; the stream goes on without an answer.
    pub fn receive(&mut self, response: Response) -> Option<Update> {
        let update = match response {
            Response::Delta(response) => self.receive_delta(response)?,
            Response::StateOfTheWorld(response) => self.receive_sotw(response)?,
        };
        self.subscription(&update.type_url)
            .nonce
            .clone_from(&update.nonce);
        Some(update)
    }

    /// Answers an update with an ACK: all of it is in force.
    pub fn accept(&mut self, update: &Update) {
        self.hold(update, &[]);
        self.subscription(&update.type_url)
            .version
            .clone_from(&update.version);
        self.answer(update, None);
    }

    /// Answers an update with a NACK that names each refused resource. Resources of the update that are not named
    /// count as held: the caller has put them in force.
    pub fn reject(&mut self, update: &Update, rejections: &[Rejection]) {
        self.hold(update, rejections);
        let mut message = rejections
            .iter()
            .map(|r| {
                if r.name.is_empty() {
                    r.reason.clone()
                } else {
                    format!("{}: {}", r.name, r.reason)
                }
            })
            .collect::<Vec<_>>()
            .join("\n");
        let end = message.floor_char_boundary(limits::MAX_ERROR_DETAIL_BYTES);
        message.truncate(end);
        let status = Status {
            code: INVALID_ARGUMENT,
            message,
            details: Vec::new(),
        };
        self.answer(update, Some(status));
    }

    /// Tells the server something about this client that is no answer, as Istio's agents do with `HealthInformation`:
    /// a request of that type, with an error or without. Nothing is sent while there is no stream; say it again then.
    pub fn report(&mut self, type_url: &str, error: Option<Status>) {
        if self.connected {
            let (type_url, nonce) = (type_url.to_owned(), String::new());
            self.answers.push_back(Answer {
                type_url,
                nonce,
                error,
            });
        }
    }

    fn answer(&mut self, update: &Update, error: Option<Status>) {
        let (type_url, nonce) = (update.type_url.clone(), update.nonce.clone());
        self.answers.push_back(Answer {
            type_url,
            nonce,
            error,
        });
    }

    fn hold(&mut self, update: &Update, rejections: &[Rejection]) {
        let refused: BTreeSet<&str> = rejections.iter().map(|r| r.name.as_str()).collect();
        let subscription = self.subscription(&update.type_url);
        for name in &update.removed {
            subscription.known.remove(name);
        }
        // A rejection without a name is one of the whole response.
        let whole = refused.contains("");
        for resource in update.resources.iter().filter(|_| !whole) {
            if !refused.contains(resource.name.as_str()) {
                subscription.hold(&resource.name, &resource.version, fingerprint(&resource.body));
            }
        }
    }

    fn receive_delta(&mut self, response: DeltaDiscoveryResponse) -> Option<Update> {
        let subscription = self.find(&response.type_url)?;
        let resources = response.resources.into_iter().map(|r| {
            let body = r.resource.unwrap_or_default();
            let unchanged = subscription.holds(&r.name, fingerprint(&body));
            Resource {
                name: r.name,
                version: r.version,
                body,
                unchanged,
            }
        });
        Some(Update {
            resources: resources.collect(),
            version: response.system_version_info,
            nonce: response.nonce,
            removed: response.removed_resources,
            type_url: response.type_url,
        })
    }

    fn receive_sotw(&mut self, response: DiscoveryResponse) -> Option<Update> {
        let subscription = self.find(&response.type_url)?;
        let resources: Vec<_> = response
            .resources
            .into_iter()
            .map(|body| {
                let name = resource_name(&body);
                let unchanged = subscription.holds(&name, fingerprint(&body));
                Resource {
                    name,
                    version: response.version_info.clone(),
                    body,
                    unchanged,
                }
            })
            .collect();
        let removed = subscription.missing_from(&resources);
        let (version, nonce) = (response.version_info, response.nonce);
        Some(Update {
            type_url: response.type_url,
            version,
            nonce,
            resources,
            removed,
        })
    }

    fn find(&self, type_url: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|s| s.type_url == type_url)
    }

    fn subscription(&mut self, type_url: &str) -> &mut Subscription {
        let position = self.subscriptions.iter().position(|s| s.type_url == type_url);
        let index = position.unwrap_or_else(|| {
            self.subscriptions.push(Subscription::new(type_url));
            self.subscriptions.len() - 1
        });
        &mut self.subscriptions[index]
    }
}
