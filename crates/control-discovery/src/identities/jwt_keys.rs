//! Keeps the keys that sign JWT-SVIDs: reads them from their Secret or makes them, takes over what changes there, renews
//! them. What is broken is refused whole: the keys in force stay, and a diagnostic on the Secret says why.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use control_ca::{JWT_KEYS_SECRET, JWT_KEYS_SECRET_TYPE, JwtKeys, JwtKeysError};
use control_snapshot::Kind;
use control_sources::secrets::{self, ReadError};
use control_sources::watch::{Scope, watch_some};
use control_sources::write::WriteError;
use diagnostics::{Code, Diagnostic, ResourceRef};
use identity::KeyError;
use telemetry::logging::chain;

use super::Identities;
use crate::limits::{AUTHORITY_RETRY, JWT_KEYS_CHECK_INTERVAL};

/// Why there are no keys, or no new ones.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("the Secret cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the Secret cannot be written: {0}")]
    Write(#[from] WriteError),
    #[error("{}", chain(.0))]
    Broken(#[from] JwtKeysError),
    #[error("the keys cannot be written: {0}")]
    Key(#[from] KeyError),
}

/// Keeps the keys, for ever.
pub(super) async fn keep(identities: Identities) {
    let namespace = identities.0.settings.root_namespace.clone();
    let wanted = [(Kind::Secret, Scope::one(&namespace, JWT_KEYS_SECRET))];
    let (mut changes, _watches) = watch_some(&identities.0.client, wanted);
    loop {
        let taken = take(&identities, &namespace).await;
        note(&identities, &namespace, taken.as_ref().err());
        let wait = match taken {
            Ok(due) => {
                let now = (identities.0.settings.clock)();
                let left = due.duration_since(now).unwrap_or_default();
                // Clocks are set, and machines sleep.
                left.clamp(AUTHORITY_RETRY, JWT_KEYS_CHECK_INTERVAL)
            }
            Err(_) => AUTHORITY_RETRY,
        };
        if !changed_within(&mut changes, wait).await {
            return;
        }
    }
}

/// Waits for a change of the Secret, or until it is time to look anyway; false when there will be no more changes.
async fn changed_within<T>(changes: &mut tokio::sync::mpsc::Receiver<T>, wait: Duration) -> bool {
    match tokio::time::timeout(wait, changes.recv()).await {
        Ok(change) => change.is_some(),
        Err(_elapsed) => true,
    }
}

/// Puts in force what the Secret holds, with a new key where it is time for one. The moment for the next.
async fn take(identities: &Identities, namespace: &str) -> Result<SystemTime, KeeperError> {
    let client = &identities.0.client;
    let now = (identities.0.settings.clock)();
    // What is not kept must not be used: after a restart nobody would know of it. Another replica that has been first
    // makes the writing fail, and its keys are read the next time.
    let keys = match secrets::read(client, namespace, JWT_KEYS_SECRET).await? {
        None => {
            let keys = JwtKeys::generate(now)?;
            let data = keys.to_secret()?;
            secrets::create(client, namespace, JWT_KEYS_SECRET, JWT_KEYS_SECRET_TYPE, &data).await?;
            tracing::info!("a first key for JWT-SVIDs was made");
            keys
        }
        Some(secret) => {
            let keys = JwtKeys::from_secret(&secret.data)?;
            match now < keys.due(now) {
                true => keys,
                false => {
                    let renewed = keys.renewed(now)?;
                    let data = renewed.to_secret()?;
                    secrets::replace(client, namespace, JWT_KEYS_SECRET, &data, &secret.version).await?;
                    tracing::info!("a new key for JWT-SVIDs was made");
                    renewed
                }
            }
        }
    };
    let due = keys.due(now);
    identities.0.jwt_keys.store(Arc::new(Some(keys)));
    Ok(due)
}

/// Says what is wrong with the Secret, or that nothing is any more.
fn note(identities: &Identities, namespace: &str, problem: Option<&KeeperError>) {
    let diagnostic = problem.map(|problem| {
        let resource = ResourceRef::new(Kind::Secret.name(), namespace, JWT_KEYS_SECRET);
        let hint = match identities.0.jwt_keys.load().is_some() {
            true => "the keys that were in force stay in force",
            false => "nobody gets a JWT-SVID until this is mended; a Secret that is deleted is made anew",
        };
        Diagnostic::new(Code::SchemaValidationError, resource, problem.to_string()).hint(hint)
    });
    let news = identities.0.world.note(JWT_KEYS_SECRET, diagnostic.clone());
    if let Some(diagnostic) = diagnostic.filter(|_| news) {
        tracing::error!(resource = %diagnostic.resource, "{} ({})", diagnostic.message, diagnostic.hint);
    }
}
