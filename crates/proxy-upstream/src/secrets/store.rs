//! Every secret that configuration names, who uses it, and what has come of it.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foldhash::{HashMap, HashMapExt as _};
use proxy_core::{ConfigError, ConfigResult};
use telemetry::stats::{Registry, Scope, Shard};
use tls::{Awaited, ContextError, ContextSettings, Current, Rotation};

use super::context::{Commit, ContextUser, Updates, User};
use super::{SecretKey, SecretKind, SecretRef, SecretRefs, SecretSource, SecretValue, SecuredContext};
use crate::limits::MAX_SECRETS;

/// Where secrets can come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Whether there is an aggregated discovery service.
    pub ads: bool,
    /// The static clusters that a discovery service can be reached through.
    pub clusters: HashSet<Arc<str>>,
}

/// Something that must be done about a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fetch it, and tell of every change.
    Fetch {
        /// The secret.
        key: SecretKey,
        /// How long it is waited for; zero is for ever.
        timeout: Duration,
    },
    /// Nobody uses it any more.
    Drop {
        /// The secret.
        key: SecretKey,
    },
}

#[derive(Default)]
struct Entry {
    value: Option<SecretValue>,
    /// Nobody waits for it any more: it did not come in time.
    given_up: bool,
    users: Vec<Rc<dyn User>>,
}

/// All secrets. It lives on the main thread.
pub struct SecretStore {
    sources: Sources,
    shard: Shard,
    fixed: HashMap<(SecretKind, Arc<str>), SecretValue>,
    entries: HashMap<SecretKey, Entry>,
    requests: VecDeque<Request>,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretStore")
            .field("secrets", &self.entries.keys())
            .finish_non_exhaustive()
    }
}

impl SecretStore {
    /// Without any secret; those that come can come from `sources`.
    #[must_use]
    pub fn new(stats: &Registry, sources: Sources) -> Self {
        Self {
            sources,
            shard: stats.shard(),
            fixed: HashMap::new(),
            entries: HashMap::new(),
            requests: VecDeque::new(),
        }
    }

    /// Says anew where secrets can come from.
    pub fn set_sources(&mut self, sources: Sources) {
        self.sources = sources;
    }

    /// Takes a secret of the bootstrap.
    ///
    /// # Errors
    /// There is one of that name and kind already.
    pub fn add_static(&mut self, name: &str, value: SecretValue) -> ConfigResult<()> {
        match self.fixed.insert((value.kind(), name.into()), value) {
            None => Ok(()),
            Some(_) => Err(ConfigError::at("name", format!("{name} is there twice"))),
        }
    }

    /// What must be done now, in order.
    pub fn take_requests(&mut self) -> VecDeque<Request> {
        std::mem::take(&mut self.requests)
    }

    /// Makes the context of a transport socket, or begins to wait for its secrets. `factory` is what Envoy calls the
    /// statistics of its side in `scope`.
    ///
    /// # Errors
    /// The settings make no context, or a secret cannot come from where it should.
    pub fn context<S>(
        &mut self,
        settings: S,
        secrets: &SecretRefs,
        (scope, factory): (&Scope, &str),
    ) -> ConfigResult<SecuredContext<S::Context>>
    where
        S: ContextSettings + 'static,
        S::Context: 'static,
    {
        let now = SystemTime::now();
        let refused = |error: ContextError| ConfigError::new(error.to_string());
        let awaited = Awaited {
            certificates: !secrets.certificates.is_empty(),
            validation: secrets.validation.is_some(),
        };
        let left_out = settings.check(awaited, now).map_err(refused)?;
        if !left_out.is_empty() {
            tracing::info!(names = ?left_out, "left out of a TLS context, as nothing here offers them");
        }
        let rotation = Rotation::new(settings, awaited, now).map_err(refused)?;
        let current = Current::new(rotation.current().cloned());
        if secrets.is_empty() {
            return Ok(SecuredContext {
                current,
                secrets: Vec::new(),
            });
        }
        for (key, reference) in secrets.keys() {
            self.check_source(&key)
                .map_err(|error| name_in(error, reference))?;
        }
        let keys: Vec<SecretKey> = secrets.keys().map(|(key, _)| key).collect();
        let updates = Updates::new(&self.shard, scope, factory);
        let certificates = keys.iter().filter(|key| key.kind == SecretKind::Certificate);
        let user = ContextUser::new(
            rotation,
            certificates.cloned().collect(),
            current.clone(),
            updates,
        );
        self.serve(Rc::new(user), secrets, now)?;
        Ok(SecuredContext {
            current,
            secrets: keys,
        })
    }

    /// Gives a new user what has come already, and notes that it wants the rest.
    fn serve(&mut self, user: Rc<dyn User>, secrets: &SecretRefs, now: SystemTime) -> ConfigResult<()> {
        for (key, reference) in secrets.keys() {
            if let Some(value) = self.value(&key) {
                let commit = Rc::clone(&user).attempt(&key, value, now);
                let refused =
                    |error: ContextError| ConfigError::new(format!("secret {}: {error}", reference.name));
                commit.map_err(refused)?();
            }
        }
        for (key, reference) in secrets.keys() {
            if key.source == SecretSource::Static {
                continue;
            }
            if !self.entries.contains_key(&key) {
                self.requests.push_back(Request::Fetch {
                    key: key.clone(),
                    timeout: reference.initial_fetch_timeout,
                });
            }
            self.entries.entry(key).or_default().users.push(Rc::clone(&user));
        }
        Ok(())
    }

    fn check_source(&self, key: &SecretKey) -> ConfigResult<()> {
        let possible = match &key.source {
            SecretSource::Static => self.fixed.contains_key(&(key.kind, Arc::clone(&key.name))),
            SecretSource::Ads => self.sources.ads,
            SecretSource::Service { cluster, .. } => self.sources.clusters.contains(cluster),
            SecretSource::File { .. } => true,
        };
        if !possible {
            return Err(ConfigError::new(match &key.source {
                SecretSource::Service { cluster, .. } => {
                    format!("there is no static cluster {cluster} with an address")
                }
                SecretSource::Ads => "there is no aggregated discovery service".to_owned(),
                _ => format!("the bootstrap has no {} of that name", key.kind),
            }));
        }
        if self.entries.len() >= MAX_SECRETS && !self.entries.contains_key(key) {
            return Err(ConfigError::new(format!("more than {MAX_SECRETS} secrets")));
        }
        Ok(())
    }

    /// Whether somebody uses a secret.
    #[must_use]
    pub fn knows(&self, key: &SecretKey) -> bool {
        self.entries.contains_key(key)
    }

    /// The secrets from `source` called `name`, of every kind.
    #[must_use]
    pub fn keys_of(&self, source: &SecretSource, name: &str) -> Vec<SecretKey> {
        let kinds = [SecretKind::Certificate, SecretKind::Validation];
        let keys = kinds.map(|kind| SecretKey {
            kind,
            source: source.clone(),
            name: name.into(),
        });
        keys.into_iter().filter(|key| self.knows(key)).collect()
    }

    /// Whether nobody need wait for a secret (any more).
    #[must_use]
    pub fn is_ready(&self, key: &SecretKey) -> bool {
        self.entries
            .get(key)
            .is_none_or(|entry| entry.value.is_some() || entry.given_up)
    }

    /// Whether a secret has come.
    #[must_use]
    pub fn has(&self, key: &SecretKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.value.is_some())
    }

    /// The version of a secret that is in use.
    #[must_use]
    pub fn value(&self, key: &SecretKey) -> Option<&SecretValue> {
        match key.source {
            SecretSource::Static => self.fixed.get(&(key.kind, Arc::clone(&key.name))),
            _ => self.entries.get(key)?.value.as_ref(),
        }
    }

    /// A secret did not come in time; those who wait for it go on without. Says whether somebody waited.
    pub fn time_out(&mut self, key: &SecretKey) -> bool {
        match self.entries.get_mut(key) {
            Some(entry) if entry.value.is_none() => !std::mem::replace(&mut entry.given_up, true),
            _ => false,
        }
    }

    /// Takes a new version of a secret for everybody who uses it. Says whether it is another one than before.
    ///
    /// # Errors
    /// Somebody could not use it; then nothing has changed for anybody.
    pub fn update(&mut self, key: &SecretKey, value: SecretValue, now: SystemTime) -> ConfigResult<bool> {
        if value.kind() != key.kind {
            return Err(ConfigError::new(format!(
                "is a {}, and a {} is needed",
                value.kind(),
                key.kind
            )));
        }
        let Some(entry) = self.entries.get_mut(key) else {
            return Ok(false);
        };
        if entry.value.as_ref() == Some(&value) {
            return Ok(false);
        }
        entry.users.retain(|user| user.is_in_use());
        let attempts = entry
            .users
            .iter()
            .map(|user| Rc::clone(user).attempt(key, &value, now));
        let commits: Vec<Commit> = attempts
            .collect::<Result<_, _>>()
            .map_err(|error: ContextError| ConfigError::at(&key.kind.to_string(), error.to_string()))?;
        commits.into_iter().for_each(|commit| commit());
        entry.value = Some(value);
        Ok(true)
    }

    /// Lets go of the secrets that nobody uses any more.
    pub fn collect(&mut self) {
        let mut unused = Vec::new();
        for (key, entry) in &mut self.entries {
            entry.users.retain(|user| user.is_in_use());
            if entry.users.is_empty() {
                unused.push(key.clone());
            }
        }
        for key in unused {
            self.entries.remove(&key);
            self.requests.push_back(Request::Drop { key });
        }
    }
}

fn name_in(error: ConfigError, reference: &SecretRef) -> ConfigError {
    ConfigError::new(format!("secret {}: {}", reference.name, error.reason()))
}
