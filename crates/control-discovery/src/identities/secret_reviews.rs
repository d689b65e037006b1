//! Whether an account may have the Secrets of its namespace: the API server is asked when a client asks, and again before
//! something is pushed, since a right may be taken back while a client is silent, or be given after it was denied.

use std::sync::Arc;

use api_envoy::type_url;
use control_snapshot::{Objects, ProxyKind};
use control_sources::reviews::{self, Access, ReviewError};
use identity::ServiceAccount;
use parking_lot::Mutex;
use telemetry::logging::chain;
use tokio::time::Instant;

use super::Identities;
use crate::limits::{SECRET_REVIEW_LIFETIME, SECRET_REVIEW_RETRY};
use crate::secrets::SecretAccess;
use crate::session::Session;

/// What the API server says of an account that asks for Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It may list those of its namespace.
    Allowed,
    /// It may not.
    Denied,
    /// The embedded API server has no rules about who may do what.
    NoRules,
}

/// What the API server has said of one stream's account, and when it was asked.
#[derive(Debug, Default)]
pub(crate) struct SecretReviews {
    /// The last answer. It holds for [`SECRET_REVIEW_LIFETIME`].
    answer: Option<(Verdict, Instant)>,
    /// The last question, answered or not.
    tried_at: Option<Instant>,
}

impl SecretReviews {
    /// The last answer, while it holds.
    fn verdict(&self) -> Option<Verdict> {
        let holds = |(_, asked_at): &(Verdict, Instant)| asked_at.elapsed() < SECRET_REVIEW_LIFETIME;
        self.answer.filter(holds).map(|(verdict, _)| verdict)
    }

    /// When to ask again though the client does not.
    fn due(&self) -> Instant {
        let ends = self.answer.map(|(_, asked_at)| asked_at + SECRET_REVIEW_LIFETIME);
        let again = self.tried_at.map(|tried_at| tried_at + SECRET_REVIEW_RETRY);
        ends.max(again).unwrap_or_else(Instant::now)
    }
}

/// A stream whose account is proven.
#[derive(Clone, Copy)]
pub(crate) struct ProvenStream<'s> {
    /// Whose it is.
    pub(crate) account: &'s ServiceAccount,
    /// What is known of its rights.
    pub(crate) reviews: &'s Mutex<SecretReviews>,
    /// What is served on it.
    pub(crate) session: &'s Mutex<Session>,
}

impl ProvenStream<'_> {
    /// When the API server is to be asked again though the client is silent: it waits for Secrets that it may not have,
    /// or nobody knows whether it may.
    pub(crate) fn next_review(self) -> Option<Instant> {
        {
            let session = self.session.lock();
            session.stream().watch(type_url::SECRET)?;
            match session.secret_access() {
                SecretAccess::Unproven | SecretAccess::Namespace(_) => return None,
                SecretAccess::Unknown | SecretAccess::Authorities { .. } => {}
            }
        }
        Some(self.reviews.lock().due())
    }

    fn verdict(self) -> Option<Verdict> {
        self.reviews.lock().verdict()
    }

    fn set(self, access: SecretAccess) {
        self.session.lock().set_secret_access(access);
    }
}

impl Identities {
    /// Takes over which Secrets a client may have that asks for some. Where nobody says it, it may have none.
    pub(crate) async fn review_secrets(&self, stream: ProvenStream<'_>) {
        if stream.verdict().is_none() {
            self.ask(stream).await;
        }
        let access = stream
            .verdict()
            .map(|verdict| self.secret_access(stream, verdict));
        stream.set(access.unwrap_or_else(|| denied(stream.account)));
    }

    /// Takes over, before something is pushed, which Secrets a client may have that has asked for some: what follows from
    /// the last answer in the world as it is now. Where that answer does not hold any more, nothing is known.
    pub(crate) fn recall_secrets(&self, stream: ProvenStream<'_>) {
        if stream.session.lock().stream().watch(type_url::SECRET).is_none() {
            return;
        }
        let access = stream
            .verdict()
            .map(|verdict| self.secret_access(stream, verdict));
        stream.set(access.unwrap_or(SecretAccess::Unknown));
    }

    /// Asks again where that is due; see [`ProvenStream::next_review`].
    pub(crate) async fn review_again(&self, stream: ProvenStream<'_>) {
        if stream.next_review().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.ask(stream).await;
        if let Some(verdict) = stream.verdict() {
            stream.set(self.secret_access(stream, verdict));
        }
    }

    async fn ask(&self, stream: ProvenStream<'_>) {
        let user = user(stream.account);
        let asked = Access {
            user: &user,
            verb: "list",
            resource: "secrets",
            namespace: &stream.account.namespace,
        };
        let asked_at = Instant::now();
        stream.reviews.lock().tried_at = Some(asked_at);
        let verdict = match reviews::access(&self.0.client, asked).await {
            Ok(true) => Verdict::Allowed,
            Ok(false) => Verdict::Denied,
            Err(ReviewError::NotServed) => Verdict::NoRules,
            Err(error) => {
                tracing::warn!(error = %chain(&error), account = %user, "nobody says whether this account may have Secrets");
                return;
            }
        };
        stream.reviews.lock().answer = Some((verdict, asked_at));
    }

    /// Which Secrets a proxy of this account may have: those of its namespace, if the account may list them there.
    fn secret_access(&self, stream: ProvenStream<'_>, verdict: Verdict) -> SecretAccess {
        let account = stream.account;
        let allowed = match verdict {
            Verdict::Allowed => true,
            Verdict::Denied => false,
            // There, what says that it is a gateway has to be one by the mesh's objects, which workloads cannot write.
            Verdict::NoRules => {
                let kind = stream.session.lock().proxy().profile.kind;
                let known = |objects: &Objects| objects.is_gateway_account(&account.namespace, &account.name);
                kind == ProxyKind::Gateway && self.0.world.read(known)
            }
        };
        match allowed {
            true => SecretAccess::Namespace(account.namespace.as_str().into()),
            false => denied(account),
        }
    }
}

fn denied(account: &ServiceAccount) -> SecretAccess {
    let reason: Arc<str> = format!("{} may not list secrets in its namespace", user(account)).into();
    SecretAccess::Authorities {
        namespace: account.namespace.as_str().into(),
        reason,
    }
}

/// What the API server calls an account.
fn user(account: &ServiceAccount) -> String {
    format!("system:serviceaccount:{}:{}", account.namespace, account.name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_its_time_and_a_question_without_one_is_asked_again() {
        let mut reviews = SecretReviews::default();
        assert_eq!((reviews.verdict(), reviews.due()), (None, Instant::now()));
        let began = Instant::now();
        reviews.tried_at = Some(began);
        assert_eq!(reviews.due(), began + SECRET_REVIEW_RETRY);
        reviews.answer = Some((Verdict::Denied, began));
        assert_eq!(reviews.due(), began + SECRET_REVIEW_LIFETIME);
        assert_eq!(reviews.verdict(), Some(Verdict::Denied));
        tokio::time::advance(SECRET_REVIEW_LIFETIME).await;
        assert_eq!(reviews.verdict(), None);
        // The API server was asked again, and did not answer.
        tokio::time::advance(Duration::from_secs(1)).await;
        reviews.tried_at = Some(Instant::now());
        assert_eq!(reviews.due(), Instant::now() + SECRET_REVIEW_RETRY);
    }
}
