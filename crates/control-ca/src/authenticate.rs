//! How callers prove who they are. The proofs come from outside, as [`Authenticator`]s; this module has those that
//! need nothing but the connection, and reads what others bring.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use identity::Certificate;
use tonic::Extensions;
use tonic::metadata::MetadataMap;

use crate::authorise::{BoundPod, Caller, service_account_of};

/// What came with a call.
#[derive(Clone, Copy)]
pub struct Credentials<'c> {
    /// The headers.
    pub metadata: &'c MetadataMap,
    /// What the transport has put there: [`PeerIdentity`], [`PeerCredentials`].
    pub extensions: &'c Extensions,
}

/// One way of proving who somebody is.
pub trait Authenticator: Send + Sync {
    /// What it is called in logs.
    fn name(&self) -> &'static str;

    /// Looks for its kind of proof and checks it. `None` is "no such proof here", an error "a bad one"; in both cases
    /// the next authenticator is asked.
    fn authenticate<'c>(
        &'c self,
        credentials: Credentials<'c>,
    ) -> BoxFuture<'c, Result<Option<Caller>, NotAuthenticated>>;
}

/// Why a proof is refused. The words are for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAuthenticated(pub String);

/// The `Authorization: Bearer` token of a call, as Istio's agent sends it.
pub fn bearer_token(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The certificate that a peer has shown and the TLS layer has verified against the mesh's roots. The transport puts
/// it into the extensions of each call of the connection; nobody else may.
#[derive(Clone, Debug)]
pub struct PeerIdentity(pub Certificate);

/// The user of a peer on a Unix socket, as the kernel says. The transport puts it into the extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The user.
    pub uid: u32,
}

/// Authenticates by [`PeerIdentity`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerCertificates;

impl Authenticator for PeerCertificates {
    fn name(&self) -> &'static str {
        "client certificate"
    }

    fn authenticate<'c>(
        &'c self,
        credentials: Credentials<'c>,
    ) -> BoxFuture<'c, Result<Option<Caller>, NotAuthenticated>> {
        let caller = credentials.extensions.get::<PeerIdentity>().map(|peer| {
            if peer.0.is_authority() {
                return Err(NotAuthenticated("the certificate is an authority's".to_owned()));
            }
            let identity = peer.0.spiffe_id().map_err(|e| NotAuthenticated(e.to_string()))?;
            Ok(Caller::ClientCertificate { identity })
        });
        Box::pin(std::future::ready(caller.transpose()))
    }
}

/// Authenticates by [`PeerCredentials`].
#[derive(Clone, Copy, Debug, Default)]
pub struct UnixPeer;

impl Authenticator for UnixPeer {
    fn name(&self) -> &'static str {
        "Unix peer"
    }

    fn authenticate<'c>(
        &'c self,
        credentials: Credentials<'c>,
    ) -> BoxFuture<'c, Result<Option<Caller>, NotAuthenticated>> {
        let peer = credentials.extensions.get::<PeerCredentials>();
        let caller = peer.map(|peer| Caller::UnixPeer { uid: peer.uid });
        Box::pin(std::future::ready(Ok(caller)))
    }
}

/// What the Kubernetes API server says of a token (`status.user` of a TokenReview that is authenticated).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReviewedToken {
    /// `username`.
    pub username: String,
    /// `groups`.
    pub groups: Vec<String>,
    /// `extra`.
    pub extra: BTreeMap<String, Vec<String>>,
}

const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

impl ReviewedToken {
    /// Whose token it is, if it is a service account's.
    ///
    /// # Errors
    /// When it is a person's, or the user's name is not a service account's.
    pub fn caller(&self) -> Result<Caller, NotAuthenticated> {
        if !self.groups.iter().any(|group| group == SERVICE_ACCOUNTS) {
            return Err(NotAuthenticated(format!(
                "{:?} is no service account",
                self.username
            )));
        }
        let account = service_account_of(&self.username)
            .ok_or_else(|| NotAuthenticated(format!("{:?} is no service account", self.username)))?;
        let one = |key: &str| match self.extra.get(key).map(Vec::as_slice) {
            Some([value]) if !value.is_empty() => Some(value.clone()),
            _ => None,
        };
        let pod = one(POD_NAME)
            .zip(one(POD_UID))
            .map(|(name, uid)| BoundPod { name, uid });
        Ok(Caller::TokenReview { account, pod })
    }
}

/// Asks each authenticator in turn; the first caller that is found counts.
///
/// # Errors
/// The bad proofs, when there is no good one.
pub async fn authenticate(
    authenticators: &[Arc<dyn Authenticator>],
    credentials: Credentials<'_>,
) -> Result<Caller, Refusals> {
    let mut refusals = Vec::new();
    for authenticator in authenticators {
        match authenticator.authenticate(credentials).await {
            Ok(Some(caller)) => return Ok(caller),
            Ok(None) => {}
            Err(reason) => refusals.push((authenticator.name(), reason)),
        }
    }
    Err(Refusals(refusals))
}

/// Every bad proof with its reason, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals(Vec<(&'static str, NotAuthenticated)>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no proof of any kind was shown");
        }
        for (at, (name, reason)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{name}: {reason}")?;
        }
        Ok(())
    }
}
