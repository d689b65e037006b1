//! `sds.<name>.`: what came of one secret (Envoy: "Secret discovery service, Statistics").

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use telemetry::stats::{Counter, Gauge, Registry, Scope, Shard};

/// Those of all secrets. By name, as Envoy counts: secrets of one name from several sources count together.
#[derive(Debug)]
pub(crate) struct AllSecretStats {
    registry: Registry,
    by_name: RefCell<HashMap<Arc<str>, Rc<SecretStats>>>,
}

impl AllSecretStats {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            by_name: RefCell::default(),
        }
    }

    /// Those of the secret called `name`.
    pub(crate) fn of(&self, name: &str) -> Rc<SecretStats> {
        let mut all = self.by_name.borrow_mut();
        if let Some(known) = all.get(name) {
            return Rc::clone(known);
        }
        let new = Rc::new(SecretStats::new(&self.registry, name));
        all.insert(name.into(), Rc::clone(&new));
        new
    }

    /// Nobody uses a secret of that name any more.
    pub(crate) fn forget(&self, name: &str) {
        self.by_name.borrow_mut().remove(name);
    }
}

/// Handles of the statistics of one secret.
#[derive(Debug)]
pub(crate) struct SecretStats {
    /// Keeps the handles valid.
    _scope: Scope,
    update_attempt: Counter,
    update_success: Counter,
    update_failure: Counter,
    update_rejected: Counter,
    init_fetch_timeout: Counter,
    key_rotation_failed: Counter,
    update_time: Gauge,
    version: Gauge,
}

impl SecretStats {
    fn new(registry: &Registry, name: &str) -> Self {
        let scope = registry.scope(&format!("sds.{}.", name.replace(':', "_")));
        Self {
            update_attempt: scope.counter("update_attempt"),
            update_success: scope.counter("update_success"),
            update_failure: scope.counter("update_failure"),
            update_rejected: scope.counter("update_rejected"),
            init_fetch_timeout: scope.counter("init_fetch_timeout"),
            key_rotation_failed: scope.counter("key_rotation_failed"),
            update_time: scope.gauge("update_time"),
            version: scope.gauge("version"),
            _scope: scope,
        }
    }

    /// It was asked for.
    pub(crate) fn asked(&self, shard: &Shard) {
        shard.inc(self.update_attempt);
    }

    /// It could not be asked for, or the stream ended.
    pub(crate) fn failed(&self, shard: &Shard) {
        shard.inc(self.update_failure);
    }

    /// A version has come.
    pub(crate) fn updated(&self, shard: &Shard, version: &str, taken: bool) {
        if !taken {
            return shard.inc(self.update_rejected);
        }
        shard.inc(self.update_success);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        shard.set_gauge(self.update_time, milliseconds);
        shard.set_gauge(self.version, twox_hash::XxHash64::oneshot(0, version.as_bytes()));
    }

    /// It did not come within `initial_fetch_timeout`.
    pub(crate) fn timed_out(&self, shard: &Shard) {
        shard.inc(self.init_fetch_timeout);
    }

    /// Its files have changed and cannot be used.
    pub(crate) fn rotation_failed(&self, shard: &Shard) {
        shard.inc(self.key_rotation_failed);
    }
}
