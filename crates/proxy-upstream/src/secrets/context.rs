//! A TLS context that secrets make and renew.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::SystemTime;

use telemetry::stats::{Counter, Scope, Shard};
use tls::{ContextError, ContextSettings, Current, Identity, Rotation};

use super::{SecretKey, SecretValue};

/// A context, shared with the workers, and what it waits for.
#[derive(Debug)]
pub struct SecuredContext<C> {
    /// The context for new handshakes; empty while a secret is missing.
    pub current: Current<C>,
    /// The secrets that it is made of.
    pub secrets: Vec<SecretKey>,
}

/// What a change of a secret does, once it is found good for everybody.
pub(super) type Commit = Box<dyn FnOnce()>;

/// Somebody whose context changes with a secret.
pub(super) trait User {
    /// Whether a worker may still do handshakes with the context.
    fn is_in_use(&self) -> bool;

    /// Tries a secret, without changing anything.
    ///
    /// # Errors
    /// Why it is refused.
    fn attempt(
        self: Rc<Self>,
        key: &SecretKey,
        value: &SecretValue,
        now: SystemTime,
    ) -> Result<Commit, ContextError>;
}

/// The context of one transport socket.
pub(super) struct ContextUser<S: ContextSettings> {
    rotation: RefCell<Rotation<S>>,
    certificates: Vec<SecretKey>,
    /// Those that have come, in the order of `certificates`.
    parts: RefCell<Vec<Option<Identity>>>,
    current: Current<S::Context>,
    updates: Updates,
}

/// `ssl_context_update_by_sds`.
pub(super) struct Updates {
    shard: Shard,
    counter: Counter,
    /// Keeps the handle valid.
    _scope: Scope,
}

impl Updates {
    pub(super) fn new(shard: &Shard, scope: &Scope, factory: &str) -> Self {
        Self {
            shard: shard.clone(),
            counter: scope.counter(&format!("{factory}.ssl_context_update_by_sds")),
            _scope: scope.clone(),
        }
    }
}

impl<S: ContextSettings> ContextUser<S> {
    pub(super) fn new(
        rotation: Rotation<S>,
        certificates: Vec<SecretKey>,
        current: Current<S::Context>,
        updates: Updates,
    ) -> Self {
        Self {
            parts: RefCell::new(vec![None; certificates.len()]),
            rotation: RefCell::new(rotation),
            certificates,
            current,
            updates,
        }
    }
}

impl<S> User for ContextUser<S>
where
    S: ContextSettings + 'static,
    S::Context: 'static,
{
    fn is_in_use(&self) -> bool {
        self.current.is_shared()
    }

    fn attempt(
        self: Rc<Self>,
        key: &SecretKey,
        value: &SecretValue,
        now: SystemTime,
    ) -> Result<Commit, ContextError> {
        let rotation = self.rotation.borrow();
        let (step, parts) = match value {
            SecretValue::Validation(context) => (rotation.with_validation(context, now)?, None),
            SecretValue::Certificate { identity, .. } => {
                let mut parts = self.parts.borrow().clone();
                for (part, known) in parts.iter_mut().zip(&self.certificates) {
                    if known == key {
                        *part = Some(identity.clone());
                    }
                }
                (rotation.with_certificates(&parts, now)?, Some(parts))
            }
        };
        drop(rotation);
        Ok(Box::new(move || {
            if let Some(parts) = parts {
                self.parts.replace(parts);
            }
            if let Some(context) = self.rotation.borrow_mut().take(step) {
                self.current.replace(context);
            }
            // Counted for each secret, also while another one is missing, as in Envoy.
            self.updates.shard.inc(self.updates.counter);
        }))
    }
}
