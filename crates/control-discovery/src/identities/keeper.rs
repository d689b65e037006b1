//! Keeps the authority: reads it from its Secret or makes it, takes over what changes there, renews its root.
//!
//! The Secret `cacerts` comes first, then `istio-ca-secret`; where there is neither, a new root is made and kept in the
//! latter. What is broken is refused whole: the authority in force stays, and a diagnostic on the Secret says why. So
//! is one whose roots nobody trusts yet, because it would cut every running workload off; it is taken when the process
//! starts again. Istiod asks the same of roots that are changed under it.

use std::sync::Arc;
use std::time::Duration;

use control_ca::{
    Authority, AuthorityError, Decision, Origin, PLUGGED_IN_SECRET, SELF_SIGNED_SECRET,
    SELF_SIGNED_SECRET_TYPE, SelfSigned,
};
use control_snapshot::Kind;
use control_sources::secrets::{self, NotBase64, ReadError, StoredSecret};
use control_sources::watch::{Change, Scope, watch_some};
use control_sources::write::WriteError;
use diagnostics::{Code, Diagnostic, ResourceRef};
use identity::{KeyError, TrustDomain};
use telemetry::logging::chain;
use tokio::time::Instant;

use super::Identities;
use crate::limits;

/// Why there is no authority, or no new one.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("the Secret cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the Secret cannot be read: {0}")]
    Damaged(#[from] NotBase64),
    #[error("the Secret cannot be written: {0}")]
    Write(#[from] WriteError),
    #[error("{}", chain(.0))]
    Broken(#[from] AuthorityError),
    #[error("the key cannot be written: {0}")]
    Key(#[from] KeyError),
    #[error("no root of it is one of those that running workloads trust")]
    Stranger,
}

/// What may be wrong about a Secret, each beside the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matter {
    /// What is in it.
    Content,
    /// That the next root cannot be written into it.
    Renewal,
}

impl Matter {
    /// What the world's note about a Secret is called.
    fn about(self, secret: &str) -> String {
        match self {
            Self::Content => secret.to_owned(),
            Self::Renewal => format!("{secret}, renewal"),
        }
    }
}

/// See the module.
pub(super) struct Keeper {
    identities: Identities,
    domain: TrustDomain,
    /// The version of the self-signed authority's Secret that was read or written last.
    version: String,
}

impl Keeper {
    pub(super) fn new(identities: Identities, domain: TrustDomain) -> Self {
        Self {
            identities,
            domain,
            version: String::new(),
        }
    }

    /// Keeps the authority, for ever.
    pub(super) async fn run(mut self) {
        let namespace = self.namespace().to_owned();
        let wanted =
            [PLUGGED_IN_SECRET, SELF_SIGNED_SECRET].map(|name| (Kind::Secret, Scope::one(&namespace, name)));
        let (mut changes, _watches) = watch_some(&self.identities.0.client, wanted);
        while !self.open().await {
            tokio::time::sleep(limits::AUTHORITY_RETRY).await;
        }
        let settings = &self.identities.0.settings;
        let first = settings.rotation.first_check(Some(settings.jitter));
        let mut due = Instant::now() + first;
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(change),
                    None => return,
                },
                () = tokio::time::sleep_until(due) => {
                    due = Instant::now() + self.renew_if_old().await;
                }
            }
        }
    }

    fn namespace(&self) -> &str {
        &self.identities.0.settings.root_namespace
    }

    /// Says what is wrong with a Secret, or that nothing is any more.
    fn note(&self, secret: &str, matter: Matter, problem: Option<&KeeperError>) {
        let diagnostic = problem.map(|problem| {
            let resource = ResourceRef::new(Kind::Secret.name(), self.namespace(), secret);
            let hint = match (problem, self.identities.authority()) {
                (_, None) => "there is no certificate authority until this is mended",
                (KeeperError::Stranger, _) => {
                    "keep the old root beside the new one until every workload trusts both, or restart the control plane"
                }
                _ => "the authority that was in force stays in force",
            };
            Diagnostic::new(Code::SchemaValidationError, resource, problem.to_string()).hint(hint)
        });
        let news = self
            .identities
            .0
            .world
            .note(&matter.about(secret), diagnostic.clone());
        if let Some(diagnostic) = diagnostic.filter(|_| news) {
            tracing::error!(resource = %diagnostic.resource, "{} ({})", diagnostic.message, diagnostic.hint);
        }
    }

    /// Finds or makes the first authority; false when that has failed.
    async fn open(&mut self) -> bool {
        match self.open_plugged_in().await {
            Ok(true) => return true,
            Ok(false) => self.note(PLUGGED_IN_SECRET, Matter::Content, None),
            Err(error) => {
                self.note(PLUGGED_IN_SECRET, Matter::Content, Some(&error));
                return false;
            }
        }
        match self.open_self_signed().await {
            Ok(authority) => {
                self.publish(authority, SELF_SIGNED_SECRET);
                true
            }
            Err(error) => {
                self.note(SELF_SIGNED_SECRET, Matter::Content, Some(&error));
                false
            }
        }
    }

    async fn open_plugged_in(&self) -> Result<bool, KeeperError> {
        let client = &self.identities.0.client;
        let Some(secret) = secrets::read(client, self.namespace(), PLUGGED_IN_SECRET).await? else {
            return Ok(false);
        };
        let authority = Authority::from_plugged_in(&secret.data, self.now())?;
        self.publish(authority, PLUGGED_IN_SECRET);
        Ok(true)
    }

    async fn open_self_signed(&mut self) -> Result<Authority, KeeperError> {
        let client = self.identities.0.client.clone();
        let namespace = self.namespace().to_owned();
        if let Some(secret) = secrets::read(&client, &namespace, SELF_SIGNED_SECRET).await? {
            self.version = secret.version;
            return Ok(Authority::from_self_signed_secret(&secret.data, self.now())?);
        }
        let authority = Authority::self_signed(&SelfSigned::for_trust_domain(&self.domain), self.now())?;
        let data = authority.to_self_signed_secret()?;
        // Another replica may have been first; then this fails, and the next try reads what that one has written.
        self.version = secrets::create(
            &client,
            &namespace,
            SELF_SIGNED_SECRET,
            SELF_SIGNED_SECRET_TYPE,
            &data,
        )
        .await?;
        tracing::info!("a new self-signed authority was made for {}", self.domain);
        Ok(authority)
    }

    fn now(&self) -> std::time::SystemTime {
        (self.identities.0.settings.clock)()
    }

    fn publish(&self, authority: Authority, secret: &str) {
        self.note(secret, Matter::Content, None);
        self.note(secret, Matter::Renewal, None);
        tracing::info!(
            secret,
            certificate = authority.certificate().serial(),
            roots = authority.roots().len(),
            "certificate authority in force"
        );
        self.identities.publish(Arc::new(authority));
    }

    /// Takes over what has become of a Secret.
    fn take(&mut self, change: Change) {
        match change {
            Change::Apply { object, .. } => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let taken = match name {
                    PLUGGED_IN_SECRET => self.take_plugged_in(&object),
                    SELF_SIGNED_SECRET => self.take_self_signed(&object),
                    _ => return,
                };
                self.note(name, Matter::Content, taken.as_ref().err());
            }
            Change::Delete { name, .. } => {
                let origin = self.identities.authority().map(|authority| authority.origin());
                let ours = match name.as_str() {
                    PLUGGED_IN_SECRET => Origin::PluggedIn,
                    _ => Origin::SelfSigned,
                };
                if origin == Some(ours) {
                    tracing::warn!(
                        secret = name,
                        "the authority's Secret is gone; what it held stays in force until the control plane restarts"
                    );
                }
                // What was wrong with it is gone as well.
                self.note(&name, Matter::Content, None);
            }
            Change::Synced { .. } => {}
        }
    }

    fn take_plugged_in(&self, object: &serde_json::Value) -> Result<(), KeeperError> {
        let secret = StoredSecret::of(object)?;
        let authority = Authority::from_plugged_in(&secret.data, self.now())?;
        self.replace(authority, PLUGGED_IN_SECRET)
    }

    fn take_self_signed(&mut self, object: &serde_json::Value) -> Result<(), KeeperError> {
        let secret = StoredSecret::of(object)?;
        let current = self.identities.authority();
        if current
            .as_ref()
            .is_some_and(|current| current.origin() == Origin::PluggedIn)
        {
            return Ok(());
        }
        let authority = Authority::from_self_signed_secret(&secret.data, self.now())?;
        // What the watch had seen before the root was renewed here.
        let since = |authority: &Authority| authority.certificate().not_before();
        if current.is_some_and(|current| since(&authority) < since(&current)) {
            return Ok(());
        }
        self.replace(authority, SELF_SIGNED_SECRET)?;
        // Only of what was taken: the next root is written over the Secret of this version, and over no other.
        self.version = secret.version;
        Ok(())
    }

    fn replace(&self, authority: Authority, secret: &str) -> Result<(), KeeperError> {
        if let Some(current) = self.identities.authority() {
            if same(&current, &authority) {
                return Ok(());
            }
            if !trusted_by_some(&current, &authority) {
                return Err(KeeperError::Stranger);
            }
        }
        self.publish(authority, secret);
        Ok(())
    }

    /// Renews a self-signed root when its time has come; returns when to look again.
    async fn renew_if_old(&mut self) -> Duration {
        let rotation = self.identities.0.settings.rotation;
        let Some(authority) = self.identities.authority() else {
            return rotation.check_interval;
        };
        if authority.origin() != Origin::SelfSigned {
            return rotation.check_interval;
        }
        match rotation.decide(self.now(), authority.certificate()) {
            Decision::Keep { check_in } => check_in.max(limits::AUTHORITY_RETRY),
            Decision::Rotate(why) => {
                tracing::info!(?why, "the root is renewed");
                match self.renew(&authority, rotation.lifetime).await {
                    Ok(renewed) => {
                        self.publish(renewed, SELF_SIGNED_SECRET);
                        rotation.check_interval
                    }
                    Err(error) => {
                        self.note(SELF_SIGNED_SECRET, Matter::Renewal, Some(&error));
                        limits::AUTHORITY_RETRY
                    }
                }
            }
        }
    }

    async fn renew(&mut self, authority: &Authority, lifetime: Duration) -> Result<Authority, KeeperError> {
        let renewed = authority.rotated(lifetime, self.now())?;
        let data = renewed.to_self_signed_secret()?;
        let client = self.identities.0.client.clone();
        // What is not kept must not be used: after a restart nobody would know of it. Another replica that has been
        // first makes this fail, and its root comes with the watch.
        let namespace = self.namespace().to_owned();
        self.version =
            secrets::replace(&client, &namespace, SELF_SIGNED_SECRET, &data, &self.version).await?;
        Ok(renewed)
    }
}

fn same(one: &Authority, other: &Authority) -> bool {
    one.certificate() == other.certificate()
        && one.roots() == other.roots()
        && one.intermediates() == other.intermediates()
        && one
            .revocations()
            .iter()
            .map(identity::RevocationList::der)
            .eq(other.revocations().iter().map(identity::RevocationList::der))
}

/// Whether a root of `next` has the name and the key of a root that workloads of `current` trust.
fn trusted_by_some(current: &Authority, next: &Authority) -> bool {
    next.roots().iter().any(|new| {
        current
            .roots()
            .iter()
            .any(|old| old.subject_der() == new.subject_der() && old.public_key() == new.public_key())
    })
}
