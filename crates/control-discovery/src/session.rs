//! One proxy's stream, without I/O: what it gets in answer to a request, and when the world changes.
//!
//! The order within a push is clusters, endpoints, listeners, routes, then the rest, so that nothing refers to what has
//! not been sent. What a push holds follows istiod:
//! - When the proxy's own view of the world has changed, it gets all listeners and all routes it subscribes to, and of
//!   the clusters, in delta, those that differ and those that belong to no service.
//! - Endpoints go out where they differ, and with a cluster that differs: Envoy warms a changed cluster until its
//!   endpoints come.
//! - When only endpoints have changed, only endpoints go out.

use std::collections::BTreeSet;
use std::sync::Arc;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::type_url;
use control_snapshot::{Kind, Proxy};
use xds::Variant;
use xds::server::{Content, Outgoing, Refusal, Said, Scope, Stream, Watch};

pub use xds::server::{Delta, Protocol, StateOfTheWorld};

use crate::generate::{Cache, Translated};
use crate::secrets::{self, SecretAccess, Withheld};
use crate::world::Publication;

/// A stream of one proxy.
#[derive(Debug)]
pub struct Session {
    proxy: Proxy,
    stream: Stream,
    publication: Arc<Publication>,
    /// Made when the client first asks for something: an agent's stream only reports, and costs no translation.
    translated: Option<Arc<Translated>>,
    /// The version of the last publication that changed this proxy's view.
    config_version: Arc<str>,
    secret_access: SecretAccess,
    /// Whether Secrets may be due though none has changed: the access has.
    secrets_owed: bool,
}

/// What came of a request.
#[derive(Debug)]
pub struct Reply<Response> {
    /// What the request said.
    pub said: Said,
    /// What to send, in order.
    pub responses: Vec<Response>,
}

impl Session {
    /// Opens a session. `name` makes the nonces of this stream its own, `identifier` is what responses say about the
    /// server.
    #[must_use]
    pub fn open(name: &str, identifier: &str, proxy: Proxy, publication: Arc<Publication>) -> Self {
        let config_version = Arc::clone(&publication.version);
        Self {
            proxy,
            stream: Stream::new(name, identifier),
            publication,
            translated: None,
            config_version,
            secret_access: SecretAccess::default(),
            secrets_owed: false,
        }
    }

    /// The proxy.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Says which Secrets the proxy may have: none, before this is called. [`Session::owed_secrets`] are what follows.
    pub fn set_secret_access(&mut self, access: SecretAccess) {
        // Before the first time nothing was asked for, and what is asked for is answered.
        self.secrets_owed |= access != self.secret_access && self.secret_access != SecretAccess::Unproven;
        self.secret_access = access;
    }

    /// Which Secrets the proxy may have.
    #[must_use]
    pub fn secret_access(&self) -> &SecretAccess {
        &self.secret_access
    }

    /// The Secrets that the proxy is to get, or may have no more, since its access has changed.
    pub fn owed_secrets<P: Protocol>(&mut self) -> Option<P::Response> {
        let version = Arc::clone(&self.publication.version);
        self.push_secrets::<P>(Some(&BTreeSet::new()), &version)
    }

    /// The node, once a request has come.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.stream.node()
    }

    /// What the stream has been sent and has answered.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The resources it is served from; none before the client has asked for any.
    #[must_use]
    pub fn translated(&self) -> Option<&Arc<Translated>> {
        self.translated.as_ref()
    }

    /// The world it is served from.
    #[must_use]
    pub fn publication(&self) -> &Arc<Publication> {
        &self.publication
    }

    /// The endpoints of the clusters it subscribes to.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Outgoing> {
        let names = self.stream.watch(type_url::ENDPOINT).map(Watch::names);
        names
            .into_iter()
            .flatten()
            .map(|name| self.endpoint(name))
            .collect()
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// The request breaks the protocol; the stream is to be closed.
    pub fn receive<P: Protocol>(
        &mut self,
        request: &P::Request,
        cache: &Cache,
    ) -> Result<Reply<P::Response>, Refusal> {
        let received = P::receive(&mut self.stream, request)?;
        let mut responses = Vec::new();
        if let Some(scope) = received.answer {
            // Secrets are not translated from the proxy's view of the world.
            if self.translated.is_none() && received.type_url != type_url::SECRET {
                self.config_version = Arc::clone(&self.publication.version);
                let view = self.publication.snapshot.proxy_view(&self.proxy);
                self.translated = Some(cache.translate(view));
            }
            let version = Arc::clone(&self.config_version);
            let content = self.content(&received.type_url, &scope);
            responses.extend(self.respond::<P>(&received.type_url, &version, content));
            // The client will warm these clusters, and waits for their endpoints to be sent again.
            if received.type_url == type_url::CLUSTER && P::VARIANT == Variant::Delta {
                let content = self.content(type_url::ENDPOINT, &Scope::All);
                responses.extend(self.respond::<P>(type_url::ENDPOINT, &version, content));
            }
        }
        Ok(Reply {
            said: received.said,
            responses,
        })
    }

    /// Brings the proxy to a later publication.
    pub fn push<P: Protocol>(&mut self, publication: Arc<Publication>, cache: &Cache) -> Vec<P::Response> {
        let kinds = publication.kinds_since(self.publication.sequence);
        let version = Arc::clone(&publication.version);
        let Some(translated) = &self.translated else {
            self.publication = publication;
            return self
                .push_secrets::<P>(kinds.as_ref(), &version)
                .into_iter()
                .collect();
        };
        let view = publication.snapshot.proxy_view(&self.proxy);
        let changed = view != *translated.view;
        let earlier = std::mem::replace(&mut self.publication, publication);
        let mut responses = Vec::new();
        let mut warming = BTreeSet::new();
        if changed {
            self.translated = Some(cache.translate(view));
            self.config_version = Arc::clone(&version);
            let clusters = self.cluster_changes(P::VARIANT, &mut warming);
            responses.extend(self.respond::<P>(type_url::CLUSTER, &version, clusters));
        }
        let all_endpoints = changed && kinds.as_ref().is_none_or(resends_all_endpoints);
        let endpoints = self.endpoint_changes(all_endpoints, &warming, &earlier);
        responses.extend(self.respond::<P>(type_url::ENDPOINT, &version, endpoints));
        if changed {
            for type_url in [type_url::LISTENER, type_url::ROUTE] {
                let content = self.content(type_url, &Scope::All);
                responses.extend(self.respond::<P>(type_url, &version, content));
            }
            let names = self.name_table_change();
            responses.extend(self.respond::<P>(type_url::NAME_TABLE, &version, names));
        }
        responses.extend(self.push_secrets::<P>(kinds.as_ref(), &version));
        responses
    }

    /// The Secrets that differ from what the proxy holds, or are no more.
    fn push_secrets<P: Protocol>(
        &mut self,
        kinds: Option<&BTreeSet<Kind>>,
        version: &str,
    ) -> Option<P::Response> {
        let concerns = |kind: &Kind| matches!(kind, Kind::Secret | Kind::ConfigMap | Kind::ReferenceGrant);
        let concerned = kinds.is_none_or(|kinds| kinds.iter().any(concerns));
        self.stream.watch(type_url::SECRET)?;
        self.secrets_owed |= concerned;
        if self.secret_access == SecretAccess::Unknown || !std::mem::take(&mut self.secrets_owed) {
            return None;
        }
        let watch = self.stream.watch(type_url::SECRET)?;
        let held: BTreeSet<Arc<str>> = watch.held().cloned().collect();
        let mut content = self.secrets(watch, &Scope::All, &held);
        content.resources.retain(|secret| watch.differs(secret));
        content.removed.retain(|name| held.contains(name));
        self.respond::<P>(type_url::SECRET, version, content)
    }

    /// Secrets by name. Those that the proxy does not get are removed, so that it does not wait for them; of those that
    /// it holds, damage takes none away.
    fn secrets(&self, watch: &Watch, scope: &Scope, held: &BTreeSet<Arc<str>>) -> Content {
        let mut content = Content::default();
        if self.secret_access == SecretAccess::Unproven {
            tracing::warn!(
                proxy = &*self.proxy.id,
                "Secrets are sent over the secure port only, to proven proxies"
            );
            return content;
        }
        let names = match scope {
            Scope::All => watch.names(),
            Scope::Names(names) => names,
        };
        for name in names {
            match secrets::resource(&self.publication.snapshot, &self.secret_access, name) {
                Ok(secret) => content.resources.push(secret),
                Err(reason) => {
                    tracing::warn!(proxy = &*self.proxy.id, name, %reason, "a Secret is not sent");
                    let damaged = matches!(reason, Withheld::Content(_));
                    if !(damaged && held.contains(name.as_str())) {
                        content.removed.push(name.as_str().into());
                    }
                }
            }
        }
        content
    }

    /// Nothing to say is not said, except that a client that asks for listeners or clusters is told there are none.
    fn respond<P: Protocol>(
        &mut self,
        type_url: &str,
        version: &str,
        content: Content,
    ) -> Option<P::Response> {
        let complete = [type_url::CLUSTER, type_url::LISTENER].contains(&type_url);
        if content.resources.is_empty() && content.removed.is_empty() && !complete {
            return None;
        }
        P::respond(&mut self.stream, type_url, version, content)
    }

    fn content(&self, type_url: &str, scope: &Scope) -> Content {
        if type_url == type_url::SECRET {
            let watch = self.stream.watch(type_url);
            let none = BTreeSet::new();
            return watch
                .map(|watch| self.secrets(watch, scope, &none))
                .unwrap_or_default();
        }
        let (Some(watch), Some(translated)) = (self.stream.watch(type_url), &self.translated) else {
            return Content::default();
        };
        match type_url {
            type_url::CLUSTER => listed(&translated.clusters, watch, scope),
            type_url::LISTENER => listed(&translated.listeners, watch, scope),
            type_url::ROUTE => named(watch, scope, |name| translated.route(name)),
            type_url::ENDPOINT => named(watch, scope, |name| self.endpoint(name)),
            type_url::NAME_TABLE => Content {
                resources: vec![translated.name_table().clone()],
                removed: Vec::new(),
            },
            _ => Content::default(),
        }
    }

    fn endpoint(&self, cluster: &str) -> Outgoing {
        let publication = &self.publication;
        publication
            .assignments
            .get(&publication.snapshot, &self.proxy, cluster)
    }

    /// `warming` receives the names of the clusters that differ.
    fn cluster_changes(&self, variant: Variant, warming: &mut BTreeSet<String>) -> Content {
        let (Some(watch), Some(translated)) = (self.stream.watch(type_url::CLUSTER), &self.translated) else {
            return Content::default();
        };
        let changes = watch.changes(&translated.clusters);
        warming.extend(changes.differing.iter().map(|c| c.name.to_string()));
        let sent = |c: &&Outgoing| {
            let always = variant == Variant::StateOfTheWorld || !c.name.starts_with("outbound");
            (always || warming.contains(&*c.name)) && watch.wants(&c.name)
        };
        Content {
            resources: translated.clusters.iter().filter(sent).cloned().collect(),
            removed: changes.vanished,
        }
    }

    /// Assignments are made only where they are sent in any case or something in them may differ: a proxy watches every
    /// cluster, and mostly the endpoints of one have changed.
    fn endpoint_changes(&self, all: bool, warming: &BTreeSet<String>, earlier: &Publication) -> Content {
        let Some(watch) = self.stream.watch(type_url::ENDPOINT) else {
            return Content::default();
        };
        let snapshot = &self.publication.snapshot;
        let changes = self.publication.endpoint_changes_since(earlier.sequence);
        let resources = watch.names().iter().filter_map(|name| {
            if all || warming.contains(name.as_str()) {
                return Some(self.endpoint(name));
            }
            let same = changes.is_some_and(|changes| !changes.concern(name))
                || snapshot.same_endpoints(&earlier.snapshot, &self.proxy, name);
            (!same)
                .then(|| self.endpoint(name))
                .filter(|endpoint| watch.differs(endpoint))
        });
        Content {
            resources: resources.collect(),
            removed: Vec::new(),
        }
    }

    fn name_table_change(&self) -> Content {
        // Whoever does not watch it costs no name table.
        let watch = self.stream.watch(type_url::NAME_TABLE);
        let names = watch.zip(self.translated.as_deref());
        let names = names.map(|(watch, translated)| (watch, translated.name_table()));
        let changed = names
            .filter(|(watch, names)| watch.differs(names))
            .map(|(_, names)| names);
        Content {
            resources: changed.into_iter().cloned().collect(),
            removed: Vec::new(),
        }
    }
}

/// Of a type whose resources are all known, sorted by name: those in scope, and what the client holds and is no more.
fn listed(resources: &[Outgoing], watch: &Watch, scope: &Scope) -> Content {
    let wanted = |name: &str| match scope {
        Scope::All => watch.wants(name),
        Scope::Names(names) => names.contains(name),
    };
    Content {
        resources: resources.iter().filter(|r| wanted(&r.name)).cloned().collect(),
        removed: watch.changes(resources).vanished,
    }
}

/// Of a type that is made by name.
fn named(watch: &Watch, scope: &Scope, make: impl Fn(&str) -> Outgoing) -> Content {
    let names = match scope {
        Scope::All => watch.names(),
        Scope::Names(names) => names,
    };
    Content {
        resources: names.iter().map(|name| make(name)).collect(),
        removed: Vec::new(),
    }
}

/// Whether istiod would send all endpoints again, changed or not: when something may touch endpoints, and something
/// beside it makes the push more than a push of single services.
fn resends_all_endpoints(kinds: &BTreeSet<Kind>) -> bool {
    const WITHOUT_ENDPOINTS: [Kind; 5] = [
        Kind::VirtualService,
        Kind::Gateway,
        Kind::WorkloadGroup,
        Kind::Secret,
        Kind::ReferenceGrant,
    ];
    const BY_SERVICE: [Kind; 6] = [
        Kind::Service,
        Kind::ServiceEntry,
        Kind::DestinationRule,
        Kind::EndpointSlice,
        Kind::Pod,
        Kind::WorkloadEntry,
    ];
    kinds.iter().any(|k| !WITHOUT_ENDPOINTS.contains(k)) && !kinds.iter().all(|k| BY_SERVICE.contains(k))
}

#[cfg(test)]
mod tests;
