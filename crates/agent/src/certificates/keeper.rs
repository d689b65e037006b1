//! Keeps a workload's certificate: asks, checks, publishes, waits, and asks again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Certificate, KeyError, KeyKind, PrivateKey, RequestError, SubjectName, request_certificate};
use telemetry::logging::chain;
use tokio::sync::watch;
use tokio::time::Instant;

use super::authority::{Authority, AuthorityError, SigningRequest};
use super::check::{self, AnswerError};
use super::revocations::Revocations;
use super::roots::Roots;
use super::{Clock, Held, Random, Settings, State, renewal};
use crate::limits::{CA_CALL_TIMEOUT, CLOCK_LOOK_INTERVAL};
use crate::metrics::Metrics;
use crate::secrets::Secrets;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("a key cannot be made")]
    Key(#[from] KeyError),
    #[error("a signing request cannot be made")]
    Request(#[from] RequestError),
    #[error("a key cannot be made: {0}")]
    Thread(#[from] tokio::task::JoinError),
    #[error("the certificate authority")]
    Authority(#[from] AuthorityError),
    #[error("the certificate authority does not answer within {CA_CALL_TIMEOUT:?}")]
    Late,
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// See the module above.
pub struct Keeper<A> {
    authority: A,
    settings: Settings,
    clock: Clock,
    random: Random,
    metrics: Arc<Metrics>,
    roots: Roots,
    state: watch::Sender<State>,
}

impl<A> std::fmt::Debug for Keeper<A> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Keeper")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<A: Authority> Keeper<A> {
    /// Nothing happens before [`Keeper::run`]. The receiver tells how things stand. When `roots` change, the next
    /// certificate is asked for at once, since a new authority is near (as Istio's agent does).
    #[must_use]
    pub fn new(
        authority: A,
        settings: Settings,
        clock: Clock,
        random: Random,
        metrics: Arc<Metrics>,
        roots: Roots,
    ) -> (Self, watch::Receiver<State>) {
        let (state, stands) = watch::channel(State::default());
        let keeper = Self {
            authority,
            settings,
            clock,
            random,
            metrics,
            roots,
            state,
        };
        (keeper, stands)
    }

    /// Keeps the certificate, for ever.
    pub async fn run(mut self) {
        loop {
            let known = self.roots.see();
            let due = match self.obtain().await {
                Ok(held) => self.publish(held),
                Err(error) => self.failed(&error),
            };
            tokio::select! {
                () = wait_until(&self.clock, due) => {}
                () = others(&mut self.roots, known) => {}
            }
        }
    }

    /// A new certificate for a new key.
    async fn obtain(&self) -> Result<Held, KeeperError> {
        let key = make_key(self.settings.key).await?;
        let names: Vec<SubjectName> = self
            .settings
            .identity()
            .map(|identity| SubjectName::Uri(identity.to_string()))
            .into_iter()
            .collect();
        let held = self.state.borrow().held.clone();
        let request = SigningRequest {
            csr: request_certificate(&key, &names)?,
            lifetime: self.settings.lifetime,
            account: &self.settings.account,
            held: held.as_deref().map(|held| &held.svid),
            now: (self.clock)(),
        };
        let began = Instant::now();
        let answer = tokio::time::timeout(CA_CALL_TIMEOUT, self.authority.sign(request)).await;
        self.metrics
            .requested(began.elapsed(), !matches!(answer, Ok(Ok(_))));
        let parts = answer.map_err(|_| KeeperError::Late)??;
        Ok(check::answer(
            &parts,
            key,
            &self.settings.account,
            (self.clock)(),
        )?)
    }

    /// Puts a certificate in force. The moment for the next one.
    fn publish(&mut self, held: Held) -> SystemTime {
        let expires = held.svid.expires();
        let due = renewal::due(&self.settings, held.obtained, expires, (self.random)());
        let seconds = |then: SystemTime| then.duration_since(held.obtained).unwrap_or_default().as_secs();
        tracing::info!(
            identity = %held.svid.id(),
            serial = held.svid.leaf().serial(),
            valid_seconds = seconds(expires),
            renewed_after_seconds = seconds(due),
            "the workload has a certificate"
        );
        self.state.send_replace(State {
            held: Some(Arc::new(held)),
            next: Some(due),
            failure: None,
            failures: 0,
        });
        due
    }

    /// Says why there is no new certificate. The moment for the next attempt.
    fn failed(&mut self, error: &KeeperError) -> SystemTime {
        let failures = self.state.borrow().failures + 1;
        let wait = renewal::retry(failures, (self.random)());
        let reason: Arc<str> = chain(error).into();
        let left = self.state.borrow().held.as_ref().map(|held| {
            let expires = held.svid.expires();
            expires
                .duration_since((self.clock)())
                .unwrap_or_default()
                .as_secs()
        });
        tracing::warn!(
            account = %self.settings.account, %reason, failures, retry_in = ?wait, seconds_left = left,
            "the workload gets no new certificate"
        );
        let due = (self.clock)() + wait;
        self.state.send_modify(|state| {
            state.failures = failures;
            state.failure = Some(reason);
            state.next = Some(due);
        });
        due
    }
}

/// RSA takes long to find its primes; other work of this thread goes on meanwhile.
async fn make_key(kind: KeyKind) -> Result<PrivateKey, KeeperError> {
    Ok(match kind {
        KeyKind::EcdsaP256 | KeyKind::EcdsaP384 => PrivateKey::generate(kind)?,
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
            tokio::task::spawn_blocking(move || PrivateKey::generate(kind)).await??
        }
    })
}

/// Waits for other roots than the known ones. The first that are known at all are no others.
async fn others(roots: &mut Roots, mut known: Vec<Certificate>) {
    loop {
        roots.changed().await;
        let now = roots.see();
        if !known.is_empty() && now != known {
            return;
        }
        known = now;
    }
}

/// Waits for a moment of the clock, and looks at it again and again: a machine that sleeps stops timers, not time.
async fn wait_until(clock: &Clock, due: SystemTime) {
    while let Ok(left) = due.duration_since(clock())
        && left > Duration::ZERO
    {
        tokio::time::sleep(left.min(CLOCK_LOOK_INTERVAL)).await;
    }
}

/// Serves what a keeper holds as secrets, for ever: its certificate, and its roots together with those of a file and
/// with what is revoked. As long as it is not known what is revoked, there are no roots: who trusts by them would trust
/// the revoked.
pub async fn serve(
    mut state: watch::Receiver<State>,
    mut roots: Roots,
    mut revocations: Revocations,
    secrets: Secrets,
) {
    loop {
        let held = state.borrow_and_update().held.clone();
        put(
            &secrets,
            held.as_deref(),
            &roots.see(),
            revocations.see_known().as_deref(),
        );
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = roots.changed() => {}
            () = revocations.changed() => {}
        }
    }
}

fn put(secrets: &Secrets, held: Option<&Held>, beside: &[Certificate], revocations: Option<&str>) {
    let mut roots = held.map(|held| held.roots.clone()).unwrap_or_default();
    for root in beside {
        if !roots.contains(root) {
            roots.push(root.clone());
        }
    }
    // First the roots: who sees a new certificate of a new authority then trusts it already.
    if let Some(revocations) = revocations.filter(|_| !roots.is_empty()) {
        secrets.set_roots(&roots, revocations);
    }
    if let Some(held) = held
        && let Err(error) = secrets.set_certificate(&held.svid)
    {
        tracing::error!(%error, "the workload's certificate cannot be served");
    }
}
