//! The connected proxies, for whoever wants to look at them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use identity::ServiceAccount;
use parking_lot::Mutex;
use time::OffsetDateTime;
use xds::Variant;

use crate::identities::{ProvenStream, SecretReviews};
use crate::limits::MAX_STREAMS_OF_ACCOUNT;
use crate::session::Session;

/// One open stream.
#[derive(Debug)]
pub struct Connection {
    /// Names the stream within this process.
    pub stream: u64,
    /// The node id of the proxy.
    pub proxy_id: Arc<str>,
    /// Where it connects from.
    pub peer: Option<SocketAddr>,
    /// Whose account it has proven to have; nothing on the plaintext port.
    pub account: Option<ServiceAccount>,
    /// Since when.
    pub connected_at: OffsetDateTime,
    /// Which variant of ADS it speaks.
    pub variant: Variant,
    /// What the API server has said to whether the account may have Secrets.
    pub(crate) secret_reviews: Mutex<SecretReviews>,
    /// Its state. Locked only for as long as a request or a push is worked out, never while anything is sent.
    pub session: Mutex<Session>,
}

impl Connection {
    /// `name.namespace`, as Istio's tools name proxies.
    #[must_use]
    pub fn proxy_name(&self) -> &str {
        self.proxy_id.split('~').nth(2).unwrap_or(&self.proxy_id)
    }

    /// The stream as one whose account is proven, where it is.
    pub(crate) fn proven(&self) -> Option<ProvenStream<'_>> {
        Some(ProvenStream {
            account: self.account.as_ref()?,
            reviews: &self.secret_reviews,
            session: &self.session,
        })
    }
}

/// All open streams.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    places: Arc<Places>,
}

/// How many streams accounts have.
#[derive(Debug, Default)]
struct Places(Mutex<BTreeMap<ServiceAccount, usize>>);

/// The place of one stream of an account, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    account: ServiceAccount,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(count) = taken.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.account);
            }
        }
    }
}

impl Connections {
    /// A place for one more stream of an account; `None` when it has [`MAX_STREAMS_OF_ACCOUNT`].
    pub(crate) fn place(&self, account: &ServiceAccount) -> Option<Place> {
        let mut taken = self.places.0.lock();
        let count = taken.entry(account.clone()).or_default();
        if *count >= MAX_STREAMS_OF_ACCOUNT {
            return None;
        }
        *count += 1;
        Some(Place {
            places: Arc::clone(&self.places),
            account: account.clone(),
        })
    }

    pub(crate) fn add(&self, connection: Arc<Connection>) {
        self.open.lock().insert(connection.stream, connection);
    }

    pub(crate) fn remove(&self, stream: u64) {
        self.open.lock().remove(&stream);
    }

    /// All streams, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.open.lock().values().cloned().collect()
    }

    /// How many streams are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// The stream of a proxy, by `name.namespace` or by node id; of several, the one that gets configuration, and of
    /// those the youngest.
    #[must_use]
    pub fn find(&self, proxy: &str) -> Option<Arc<Connection>> {
        let named = |c: &&Arc<Connection>| c.proxy_name() == proxy || &*c.proxy_id == proxy;
        let configured = |c: &Arc<Connection>| {
            c.session
                .lock()
                .stream()
                .watch(api_envoy::type_url::CLUSTER)
                .is_some()
        };
        let found: Vec<_> = self.all().into_iter().filter(|c| named(&c)).collect();
        found
            .iter()
            .rev()
            .find(|c| configured(c))
            .or(found.last())
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_has_its_share_of_streams_and_no_more() {
        let connections = Connections::default();
        let account = |name: &str| ServiceAccount {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        let greedy = account("greedy");
        let mut held: Vec<_> = std::iter::from_fn(|| connections.place(&greedy)).collect();
        assert_eq!(held.len(), MAX_STREAMS_OF_ACCOUNT);
        assert!(connections.place(&account("modest")).is_some());
        held.pop();
        assert!(connections.place(&greedy).is_some());
        drop(held);
        assert!(connections.places.0.lock().is_empty());
    }
}
