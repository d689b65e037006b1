//! What a client wants and holds of one resource type.

use std::collections::{BTreeMap, BTreeSet};

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use api_envoy::google::rpc::Status;
use api_envoy::type_url;

use crate::resource::Resource;

/// The name that means "everything" where names and the wildcard stand together.
const WILDCARD: &str = "*";

#[derive(Debug)]
pub(super) struct Known {
    version: String,
    fingerprint: u64,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) type_url: String,
    pub(super) names: BTreeSet<String>,
    pub(super) known: BTreeMap<String, Known>,
    /// The last version accepted as a whole (state of the world).
    pub(super) version: String,
    /// The last nonce received on this stream.
    pub(super) nonce: String,
    wildcard: bool,
    /// Changes that no request has carried yet.
    added: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// Whether this stream has seen a request for the type.
    announced: bool,
}

impl Subscription {
    pub(super) fn new(type_url: &str) -> Self {
        Self {
            type_url: type_url.to_owned(),
            names: BTreeSet::new(),
            known: BTreeMap::new(),
            version: String::new(),
            nonce: String::new(),
            wildcard: false,
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
            announced: false,
        }
    }

    pub(super) fn set_wildcard(&mut self) {
        if !std::mem::replace(&mut self.wildcard, true) && self.announced {
            self.added.insert(WILDCARD.to_owned());
        }
    }

    pub(super) fn add(&mut self, name: String) {
        if self.names.insert(name.clone()) {
            self.added.insert(name);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if self.names.remove(name) {
            self.known.remove(name);
            if !self.added.remove(name) {
                self.removed.insert(name.to_owned());
            }
        }
    }

    pub(super) fn restart(&mut self) {
        self.nonce.clear();
        self.added.clear();
        self.removed.clear();
        self.announced = false;
    }

    pub(super) fn hold(&mut self, name: &str, version: &str, fingerprint: u64) {
        if self.wildcard || self.names.contains(name) {
            self.known.insert(
                name.to_owned(),
                Known {
                    version: version.to_owned(),
                    fingerprint,
                },
            );
        }
    }

    pub(super) fn holds(&self, name: &str, fingerprint: u64) -> bool {
        self.known
            .get(name)
            .is_some_and(|known| known.fingerprint == fingerprint)
    }

    /// What a state-of-the-world response takes away by not listing it. Only listeners and clusters are complete in
    /// each response; for the other types absence says nothing (xDS protocol, "Knowing when a requested resource does
    /// not exist").
    pub(super) fn missing_from(&self, resources: &[Resource]) -> Vec<String> {
        if self.type_url != type_url::LISTENER && self.type_url != type_url::CLUSTER {
            return Vec::new();
        }
        let present: BTreeSet<_> = resources.iter().map(|r| r.name.as_str()).collect();
        self.known
            .keys()
            .filter(|name| !present.contains(name.as_str()))
            .cloned()
            .collect()
    }

    pub(super) fn wants_request(&self) -> bool {
        if self.announced {
            !self.added.is_empty() || !self.removed.is_empty()
        } else {
            self.wildcard || !self.names.is_empty()
        }
    }

    pub(super) fn delta_request(
        &mut self,
        node: Option<Node>,
        nonce: Option<String>,
        error: Option<Status>,
    ) -> DeltaDiscoveryRequest {
        let removed = std::mem::take(&mut self.removed);
        // A name that was dropped and is wanted again needs its resource again. Servers differ in how they read one
        // request that does both, so the second half goes out in a request of its own.
        let (again, added): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut self.added)
            .into_iter()
            .partition(|name| removed.contains(name));
        self.added = again;
        let mut request = DeltaDiscoveryRequest {
            node,
            type_url: self.type_url.clone(),
            response_nonce: nonce.unwrap_or_default(),
            error_detail: error,
            ..Default::default()
        };
        if std::mem::replace(&mut self.announced, true) {
            request.resource_names_subscribe = added.into_iter().collect();
            request.resource_names_unsubscribe = removed.into_iter().collect();
        } else {
            self.added.clear();
            request.resource_names_subscribe = self.all_names();
            let versions = self
                .known
                .iter()
                .map(|(name, known)| (name.clone(), known.version.clone()));
            request.initial_resource_versions = versions.collect();
        }
        request
    }

    pub(super) fn sotw_request(
        &mut self,
        node: Option<Node>,
        nonce: Option<String>,
        error: Option<Status>,
    ) -> DiscoveryRequest {
        self.announced = true;
        self.added.clear();
        self.removed.clear();
        DiscoveryRequest {
            version_info: self.version.clone(),
            node,
            resource_names: self.all_names(),
            type_url: self.type_url.clone(),
            response_nonce: nonce.unwrap_or_else(|| self.nonce.clone()),
            error_detail: error,
            ..Default::default()
        }
    }

    /// An empty list is the wildcard; beside names it must be written out.
    fn all_names(&self) -> Vec<String> {
        let wildcard = (self.wildcard && !self.names.is_empty()).then(|| WILDCARD.to_owned());
        wildcard.into_iter().chain(self.names.iter().cloned()).collect()
    }
}
