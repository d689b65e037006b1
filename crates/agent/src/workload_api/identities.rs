//! The certificates of the workloads that have asked, each kept for as long as somebody uses it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use identity::ServiceAccount;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Inner, Keeper, Metrics, Settings};
use crate::certificates::roots::Roots;
use crate::certificates::{Settings as Wanted, State};
use crate::limits::{IDENTITY_SWEEP_INTERVAL, MAX_NODE_IDENTITIES, UNUSED_IDENTITY_LIFETIME};

/// The certificate of one service account, kept until dropped.
#[derive(Debug)]
pub(super) struct Identity {
    state: watch::Receiver<State>,
    used: Mutex<Instant>,
    /// Aborted with this value.
    _tasks: JoinSet<()>,
}

impl Identity {
    /// How it stands.
    pub(super) fn state(&self) -> State {
        *self.used.lock() = Instant::now();
        self.state.borrow().clone()
    }
}

/// All of them.
pub(super) struct Identities {
    settings: Settings,
    roots: Roots,
    generation: watch::Sender<u64>,
    metrics: Arc<Metrics>,
    held: Mutex<BTreeMap<ServiceAccount, Arc<Identity>>>,
}

impl Identities {
    /// None yet. `generation` counts each change of one.
    pub(super) fn new(settings: Settings, roots: Roots, generation: watch::Sender<u64>) -> Self {
        Self {
            settings,
            roots,
            generation,
            metrics: Arc::default(),
            held: Mutex::default(),
        }
    }

    /// That of an account, asked for if nobody has yet; `None` when there are too many.
    pub(super) fn of(&self, account: &ServiceAccount) -> Option<Arc<Identity>> {
        let mut held = self.held.lock();
        if let Some(identity) = held.get(account) {
            return Some(Arc::clone(identity));
        }
        if held.len() >= MAX_NODE_IDENTITIES {
            tracing::warn!(%account, limit = MAX_NODE_IDENTITIES, "too many identities of this node");
            return None;
        }
        let identity = Arc::new(self.keep(account.clone()));
        held.insert(account.clone(), Arc::clone(&identity));
        Some(identity)
    }

    fn keep(&self, account: ServiceAccount) -> Identity {
        let wanted = Wanted {
            key: self.settings.key,
            lifetime: self.settings.lifetime,
            ..Wanted::new(account)
        };
        let (keeper, state) = Keeper::new(
            self.settings.authority.clone(),
            wanted,
            Arc::clone(&self.settings.clock),
            Box::new(rand::random::<f64>),
            Arc::clone(&self.metrics),
            self.roots.clone(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        let (mut changes, generation) = (state.clone(), self.generation.clone());
        tasks.spawn(async move {
            while changes.changed().await.is_ok() {
                generation.send_modify(|generation| *generation += 1);
            }
        });
        Identity {
            state,
            used: Mutex::new(Instant::now()),
            _tasks: tasks,
        }
    }

    /// What was counted, and how long each certificate is still valid, by its service account.
    pub(super) fn print(&self, now: SystemTime) -> String {
        let held = self.held.lock();
        let ends: Vec<(String, SystemTime)> = held
            .iter()
            .filter_map(|(account, identity)| {
                let held = identity.state.borrow().held.clone()?;
                Some((account.to_string(), held.svid.expires()))
            })
            .collect();
        let ends: Vec<(&str, SystemTime)> = ends.iter().map(|(name, end)| (name.as_str(), *end)).collect();
        self.metrics.print(&ends, now)
    }

    /// Forgets what nobody holds or has used for a while.
    fn sweep(&self, now: Instant) {
        self.held.lock().retain(|account, identity| {
            let recent = now.duration_since(*identity.used.lock()) < UNUSED_IDENTITY_LIFETIME;
            let kept = recent || Arc::strong_count(identity) > 1;
            if !kept {
                tracing::info!(%account, "nobody asks for this identity any more");
            }
            kept
        });
    }
}

/// Forgets unused identities, for ever.
pub(super) async fn forget_unused(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(IDENTITY_SWEEP_INTERVAL).await;
        inner.identities.sweep(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::authority::CertificateAuthority;

    fn account(name: usize) -> ServiceAccount {
        ServiceAccount {
            namespace: "default".to_owned(),
            name: format!("a{name}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn identities_are_bounded_and_forgotten_when_nobody_uses_them() {
        let settings = Settings {
            authority: CertificateAuthority::Unix("/nowhere".into()),
            key: identity::KeyKind::default(),
            lifetime: crate::limits::CERTIFICATE_LIFETIME,
            revocations: None,
            status: None,
            clock: Arc::new(SystemTime::now),
        };
        let identities = Identities::new(settings, Roots::none(), watch::Sender::new(0));
        for name in 0..MAX_NODE_IDENTITIES {
            assert!(identities.of(&account(name)).is_some());
        }
        assert!(identities.of(&account(MAX_NODE_IDENTITIES)).is_none());
        let held = identities.of(&account(0)).unwrap();
        let later = Instant::now() + UNUSED_IDENTITY_LIFETIME;
        identities.sweep(later);
        let left: Vec<ServiceAccount> = identities.held.lock().keys().cloned().collect();
        assert_eq!(left, [account(0)], "a stream holds it");
        drop(held);
        identities.sweep(later);
        assert!(identities.held.lock().is_empty());
    }
}
