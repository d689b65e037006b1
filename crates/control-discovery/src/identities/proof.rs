//! Proofs that need more than the connection, and what they are worth to a proxy.

use std::collections::BTreeSet;
use std::sync::Arc;

use control_ca::{
    Authenticator, Caller, Credentials, Inventory, NotAuthenticated, Pod, ReviewedToken, bearer_token,
};
use control_snapshot::Proxy;
use control_sources::{Client, reviews};
use futures::future::BoxFuture;
use identity::{ServiceAccount, SpiffeId};
use telemetry::logging::chain;
use tokio::sync::Semaphore;

use crate::limits;
use crate::world::World;

/// The audiences of tokens that are worth an identity (istiod's `TOKEN_AUDIENCES`).
const AUDIENCES: [&str; 1] = ["istio-ca"];

/// Asks the API server whose a bearer token is.
pub(super) struct TokenReviews {
    client: Client,
    /// Whoever sends many bad tokens makes others wait, and not the API server fail.
    reviews: Semaphore,
}

impl TokenReviews {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            reviews: Semaphore::new(limits::CONCURRENT_TOKEN_REVIEWS),
        }
    }

    async fn review(&self, token: &str) -> Result<Caller, NotAuthenticated> {
        if token.len() > limits::MAX_TOKEN_BYTES {
            return Err(NotAuthenticated(format!(
                "a token of {} bytes is too long",
                token.len()
            )));
        }
        let failed = |error: &dyn std::error::Error| NotAuthenticated(chain(error));
        let _permit = self.reviews.acquire().await.map_err(|e| failed(&e))?;
        let user = reviews::token(&self.client, token, &AUDIENCES)
            .await
            .map_err(|e| failed(&e))?
            .map_err(NotAuthenticated)?;
        let reviewed = ReviewedToken {
            username: user.name,
            groups: user.groups,
            extra: user.extra,
        };
        reviewed.caller()
    }
}

impl Authenticator for TokenReviews {
    fn name(&self) -> &'static str {
        "token review"
    }

    fn authenticate<'c>(
        &'c self,
        credentials: Credentials<'c>,
    ) -> BoxFuture<'c, Result<Option<Caller>, NotAuthenticated>> {
        Box::pin(async move {
            match bearer_token(credentials.metadata) {
                Some(token) => self.review(token).await.map(Some),
                None => Ok(None),
            }
        })
    }
}

/// The pods of the world.
pub(super) struct Pods(pub(super) Arc<World>);

impl Inventory for Pods {
    fn pod(&self, namespace: &str, name: &str) -> Option<Pod> {
        self.0.read(|objects| {
            objects.pod(namespace, name).map(|pod| Pod {
                uid: pod.metadata.uid.clone(),
                service_account: account_of(pod).to_owned(),
                node: pod.spec.node_name.clone(),
            })
        })
    }

    fn runs_on(&self, node: &str, account: &ServiceAccount) -> bool {
        self.0.read(|objects| {
            objects.pods().any(|pod| {
                pod.spec.node_name == node
                    && pod.metadata.namespace == account.namespace
                    && account_of(pod) == account.name
                    && !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
            })
        })
    }

    /// Nobody registers users of this host with the control plane.
    fn registered(&self, _: u32) -> Vec<SpiffeId> {
        Vec::new()
    }

    fn workload_accounts(&self) -> BTreeSet<ServiceAccount> {
        let account = |(namespace, name): (&str, &str)| ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.0
            .read(|objects| objects.workload_accounts().map(account).collect())
    }
}

/// A pod that names no account has the namespace's default one.
fn account_of(pod: &control_snapshot::kubernetes::Pod) -> &str {
    match pod.spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    }
}

/// The account among `identities` that the proxy's node says it has (`PILOT_ENABLE_XDS_IDENTITY_CHECK`). A node that
/// names no account is taken at its namespace, as by istiod; unlike there, the namespace of the node's id counts, too,
/// since entries are registered and answers worked out by it.
pub(super) fn matching(identities: &[SpiffeId], proxy: &Proxy) -> Result<ServiceAccount, String> {
    let namespace = &*proxy.profile.namespace;
    let mut accounts = identities.iter().filter_map(SpiffeId::service_account);
    let found = accounts.find(|account| {
        account.namespace == namespace
            && account.namespace == proxy.id_namespace()
            && (proxy.service_account.is_empty() || account.name == *proxy.service_account)
    });
    found.ok_or_else(|| {
        let shown: Vec<String> = identities.iter().map(ToString::to_string).collect();
        let account = &proxy.service_account;
        format!(
            "no identities ({}) matched {namespace}/{account} of {}",
            shown.join(", "),
            proxy.id
        )
    })
}
