//! Secrets (SDS): from a discovery service, a file or the bootstrap to the TLS contexts that use them.

use std::sync::Arc;
use std::time::SystemTime;

use api_envoy::envoy::extensions::transport_sockets::tls::v3::Secret;
use api_envoy::{Any, any, type_url};
use proxy_core::{ConfigError, ConfigResult};
use proxy_upstream::secrets::{Request, SecretFiles, SecretKey, SecretSource, SecretValue, Sources};
use proxy_upstream::tls_context;

use super::{Action, ConfigState, Refused, Source, Waiting};

/// One secret that configuration names.
#[derive(Debug, Default)]
pub struct SecretEntry {
    /// As it came; nothing until then.
    pub source: Option<Source>,
    /// The last update, if it was refused.
    pub refused: Option<Refused>,
    /// When configuration first named it.
    pub wanted_since: Option<SystemTime>,
    /// The files that it names, which are read again when they change.
    pub files: SecretFiles,
    /// Nobody waits for it any more: it did not come in time.
    pub given_up: bool,
}

impl<H> ConfigState<H> {
    /// Says where secrets can come from, besides files and the bootstrap.
    pub fn set_secret_sources(&mut self, sources: Sources) {
        self.store.set_sources(sources);
    }

    /// Takes a secret of the bootstrap.
    ///
    /// # Errors
    /// The secret is refused.
    pub fn add_static_secret(&mut self, source: Source) -> ConfigResult<()> {
        let proto = unpack(&source)?;
        let value = tls_context::secret(&proto, SystemTime::now())?;
        let key = SecretKey {
            kind: value.kind(),
            source: SecretSource::Static,
            name: proto.name.as_str().into(),
        };
        self.store.add_static(&proto.name, value)?;
        let entry = SecretEntry {
            source: Some(source),
            files: tls_context::secret_files(&proto),
            ..SecretEntry::default()
        };
        self.secrets.insert(key, entry);
        Ok(())
    }

    /// Takes a secret from ADS. One that no context names is kept out.
    ///
    /// # Errors
    /// The secret is refused, for all who use it.
    pub fn update_ads_secret(&mut self, source: &Source) -> ConfigResult<()> {
        let name = unpack(source)?.name;
        for key in self.store.keys_of(&SecretSource::Ads, &name) {
            self.update_secret(&key, source.clone())?;
        }
        Ok(())
    }

    /// Takes a secret from where its key says. Says whether it is another one than before.
    ///
    /// # Errors
    /// The secret is refused, for all who use it.
    pub fn update_secret(&mut self, key: &SecretKey, source: Source) -> ConfigResult<bool> {
        if !self.store.knows(key) {
            return Ok(false);
        }
        let tried = self.put_secret(key, &source);
        if let Some(entry) = self.secrets.get_mut(key) {
            entry.refused = match &tried {
                Ok(_) => None,
                Err(error) => Some(Refused {
                    source,
                    error: error.clone(),
                }),
            };
        }
        tried
    }

    fn put_secret(&mut self, key: &SecretKey, source: &Source) -> ConfigResult<bool> {
        let proto = unpack(source)?;
        if *proto.name != *key.name {
            return Err(ConfigError::at(
                "name",
                format!("is {}, and {} is needed", proto.name, key.name),
            ));
        }
        let value = tls_context::secret(&proto, SystemTime::now())?;
        let is_new = self.store.update(key, value, SystemTime::now())?;
        if let Some(entry) = self.secrets.get_mut(key) {
            entry.source = Some(source.clone());
            entry.files = tls_context::secret_files(&proto);
        }
        self.warm_with_secrets();
        Ok(is_new)
    }

    /// Reads the files of a secret again. Says whether it is another one than before.
    ///
    /// # Errors
    /// What the files hold is refused; what they held before stays in use.
    pub fn reread_secret(&mut self, key: &SecretKey) -> ConfigResult<bool> {
        // The bootstrap is read once.
        let entry = self
            .secrets
            .get(key)
            .filter(|_| key.source != SecretSource::Static);
        let Some(source) = entry.and_then(|entry| entry.source.clone()) else {
            return Ok(false);
        };
        let value: SecretValue = tls_context::secret(&unpack(&source)?, SystemTime::now())?;
        self.store.update(key, value, SystemTime::now())
    }

    /// A secret as Envoy shows it, where that differs from how it came: with the content of the files that it names.
    #[must_use]
    pub fn shown_secret(&self, key: &SecretKey) -> Option<Any> {
        let entry = self
            .secrets
            .get(key)
            .filter(|entry| !entry.files.files.is_empty())?;
        let proto = unpack(entry.source.as_ref()?).ok()?;
        Some(any::pack(&tls_context::shown_secret(
            &proto,
            self.store.value(key)?,
        )))
    }

    /// Lets go of the secrets that no context uses any more. Says whether there are any.
    pub fn collect_secrets(&mut self) -> bool {
        self.store.collect();
        self.carry_out_secret_requests()
    }

    /// Turns what the contexts ask for into actions, if they ask for anything. To be called after each context that was
    /// compiled.
    pub(super) fn carry_out_secret_requests(&mut self) -> bool {
        let requests = self.store.take_requests();
        let any = !requests.is_empty();
        for request in requests {
            match request {
                Request::Fetch { key, timeout } => {
                    let entry = self.secrets.entry(key.clone()).or_default();
                    entry.wanted_since = Some(SystemTime::now());
                    self.push(match &key.source {
                        SecretSource::Ads => Action::Subscribe {
                            type_url: type_url::SECRET,
                            name: Arc::clone(&key.name),
                        },
                        _ => Action::FetchSecret { key: key.clone() },
                    });
                    self.wait(Waiting::Secret(key), timeout);
                }
                Request::Drop { key } => {
                    self.secrets.shift_remove(&key);
                    if key.source != SecretSource::Ads {
                        self.push(Action::DropSecret { key });
                    } else if self.store.keys_of(&key.source, &key.name).is_empty() {
                        self.push(Action::Unsubscribe {
                            type_url: type_url::SECRET,
                            name: key.name,
                        });
                    }
                }
            }
        }
        any
    }

    /// Whether nobody need wait for these secrets (any more).
    pub(super) fn secrets_are_ready(&self, keys: &[SecretKey]) -> bool {
        keys.iter().all(|key| self.store.is_ready(key))
    }

    pub(super) fn secret_timed_out(&mut self, key: &SecretKey) {
        if self.store.time_out(key) {
            tracing::warn!(name = %key.name, "no secret within initial_fetch_timeout");
            if let Some(entry) = self.secrets.get_mut(key) {
                entry.given_up = true;
            }
            self.warm_with_secrets();
        }
    }

    /// Goes on with what waited for secrets.
    fn warm_with_secrets(&mut self) {
        self.warm_clusters();
        self.warm_listeners();
    }
}

/// # Errors
/// The bytes are no secret.
fn unpack(source: &Source) -> ConfigResult<Secret> {
    any::unpack(&source.resource).map_err(|error| ConfigError::new(error.to_string()))
}
