//! Contexts whose material comes and changes as secrets (SDS), without dropping a connection.
//!
//! On the thread that receives secrets, a [`Rotation`] makes a new immutable context for each change, or refuses the
//! change whole and keeps the old context. A secret that several contexts use is first tried on all of them: each gives
//! a [`Step`], and when none has refused, the steps are taken. New contexts go into a [`Current`], which the workers
//! share. A handshake takes no lock, and open connections keep what they began with.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;

use crate::client::{self, ClientContext};
use crate::parameters::{Side, parameters};
use crate::pem::Identity;
use crate::refusal::ContextError;
use crate::server::{self, ServerContext};
use crate::settings::{
    Awaited, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate,
    UpstreamTlsContext,
};
use crate::verification::PeerRules;

/// Settings that make a context: [`DownstreamTlsContext`] and [`UpstreamTlsContext`].
pub trait ContextSettings {
    /// What they make.
    type Context;

    /// Makes it, with these certificates and this validation in place of those in the settings.
    ///
    /// # Errors
    /// As [`ServerContext::new`] and [`ClientContext::new`].
    fn build(
        &self,
        identities: &[Identity],
        validation: Option<&CertificateValidationContext>,
        now: SystemTime,
    ) -> Result<Self::Context, ContextError>;

    /// Refuses settings that could never make a context, whatever comes for what is `awaited`. Gives the names in them
    /// that nothing here offers, such as cipher suites without forward secrecy.
    ///
    /// # Errors
    /// As [`ContextSettings::build`].
    fn check(&self, awaited: Awaited, now: SystemTime) -> Result<Vec<String>, ContextError>;

    /// The part that secrets change.
    fn common(&self) -> &CommonTlsContext;

    /// Refuses a bundle that could not be part of any context, before the rest is there.
    ///
    /// # Errors
    /// As [`ContextSettings::build`].
    fn check_validation(
        &self,
        validation: &CertificateValidationContext,
        now: SystemTime,
    ) -> Result<(), ContextError>;
}

impl ContextSettings for DownstreamTlsContext {
    type Context = ServerContext;

    fn build(
        &self,
        identities: &[Identity],
        validation: Option<&CertificateValidationContext>,
        now: SystemTime,
    ) -> Result<ServerContext, ContextError> {
        ServerContext::assemble(self, identities, validation, now)
    }

    fn check(&self, awaited: Awaited, now: SystemTime) -> Result<Vec<String>, ContextError> {
        server::check(self, awaited, now)
    }

    fn common(&self) -> &CommonTlsContext {
        &self.common
    }

    fn check_validation(
        &self,
        validation: &CertificateValidationContext,
        now: SystemTime,
    ) -> Result<(), ContextError> {
        check_rules(&self.common, validation, Side::Server, now)
    }
}

impl ContextSettings for UpstreamTlsContext {
    type Context = ClientContext;

    fn build(
        &self,
        identities: &[Identity],
        validation: Option<&CertificateValidationContext>,
        now: SystemTime,
    ) -> Result<ClientContext, ContextError> {
        ClientContext::assemble(self, identities, validation, now)
    }

    fn check(&self, awaited: Awaited, now: SystemTime) -> Result<Vec<String>, ContextError> {
        client::check(self, awaited, now)
    }

    fn common(&self) -> &CommonTlsContext {
        &self.common
    }

    fn check_validation(
        &self,
        validation: &CertificateValidationContext,
        now: SystemTime,
    ) -> Result<(), ContextError> {
        check_rules(&self.common, validation, Side::Client, now)
    }
}

fn check_rules(
    common: &CommonTlsContext,
    validation: &CertificateValidationContext,
    side: Side,
    now: SystemTime,
) -> Result<(), ContextError> {
    let provider = parameters(&common.tls_params, side)?.provider;
    let algorithms = provider.signature_verification_algorithms;
    PeerRules::load(validation, side, algorithms, now).map(|_| ())
}

/// Settings with the secrets that have come, and the context that they make. What contexts have in common they share.
pub struct Rotation<S: ContextSettings> {
    settings: Arc<S>,
    material: Material,
    current: Option<Arc<S::Context>>,
}

/// What a context is made of besides its settings.
#[derive(Clone, Debug)]
struct Material {
    awaited: Awaited,
    identities: Vec<Identity>,
    /// The secret that the settings' own validation context is the default for.
    validation: Option<Arc<CertificateValidationContext>>,
}

/// A change that was found good and is not made yet.
pub struct Step<S: ContextSettings> {
    material: Material,
    context: Option<Arc<S::Context>>,
}

impl<S: ContextSettings> std::fmt::Debug for Step<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Step")
            .field("material", &self.material)
            .finish_non_exhaustive()
    }
}

impl<S: ContextSettings> std::fmt::Debug for Rotation<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Rotation")
            .field("material", &self.material)
            .field("ready", &self.current.is_some())
            .finish_non_exhaustive()
    }
}

impl<S: ContextSettings> Rotation<S> {
    /// Begins with `settings`. What is `awaited` may be missing from them; a validation context that is there is the
    /// default that the secret is merged into.
    ///
    /// # Errors
    /// When nothing is awaited and the settings make no context, or when they could never make one.
    pub fn new(settings: S, awaited: Awaited, now: SystemTime) -> Result<Self, ContextError> {
        settings.check(awaited, now)?;
        let identities = match awaited.certificates {
            true => Vec::new(),
            false => Identity::load_all(&settings.common().tls_certificates, now)?,
        };
        let mut rotation = Self {
            settings: Arc::new(settings),
            material: Material {
                awaited,
                identities,
                validation: None,
            },
            current: None,
        };
        rotation.current = rotation.step(rotation.material.clone(), now)?.context;
        Ok(rotation)
    }

    /// The context for new handshakes; `None` as long as a secret is missing.
    pub fn current(&self) -> Option<&Arc<S::Context>> {
        self.current.as_ref()
    }

    /// What has not come yet.
    pub fn awaited(&self) -> Awaited {
        self.material.awaited
    }

    /// Tries new certificates, of which some may not have come yet.
    ///
    /// # Errors
    /// Why they are refused.
    pub fn with_certificates(
        &self,
        identities: &[Option<Identity>],
        now: SystemTime,
    ) -> Result<Step<S>, ContextError> {
        let material = Material {
            awaited: Awaited {
                certificates: identities.iter().any(Option::is_none),
                ..self.material.awaited
            },
            identities: identities.iter().flatten().cloned().collect(),
            validation: self.material.validation.clone(),
        };
        self.step(material, now)
    }

    /// Tries a new validation context, merged into the defaults.
    ///
    /// # Errors
    /// Why it is refused. A secret by which no certificate would be judged is refused.
    pub fn with_validation(
        &self,
        secret: &Arc<CertificateValidationContext>,
        now: SystemTime,
    ) -> Result<Step<S>, ContextError> {
        if secret.judges_nothing() {
            return Err(ContextError::Empty { what: "trusted_ca" });
        }
        let material = Material {
            awaited: Awaited {
                validation: false,
                ..self.material.awaited
            },
            validation: Some(Arc::clone(secret)),
            ..self.material.clone()
        };
        self.step(material, now)
    }

    fn step(&self, material: Material, now: SystemTime) -> Result<Step<S>, ContextError> {
        let defaults = &self.settings.common().validation_context;
        let merged = material
            .validation
            .as_ref()
            .map(|secret| defaults.clone().unwrap_or_default().merged_with(secret));
        let context = match material.awaited == Awaited::default() {
            true => {
                let validation = merged.as_ref().or(defaults.as_ref());
                Some(Arc::new(self.settings.build(
                    &material.identities,
                    validation,
                    now,
                )?))
            }
            false => {
                if let Some(merged) = &merged {
                    self.settings.check_validation(merged, now)?;
                }
                None
            }
        };
        Ok(Step { material, context })
    }

    /// Makes the change. Gives the new context for the workers, or `None` as long as another secret is missing.
    pub fn take(&mut self, step: Step<S>) -> Option<Arc<S::Context>> {
        self.material = step.material;
        self.current.clone_from(&step.context);
        step.context
    }

    /// Takes new certificates, all at once: [`Rotation::with_certificates`] and [`Rotation::take`].
    ///
    /// # Errors
    /// Why they are refused; then nothing has changed.
    pub fn set_certificates(
        &mut self,
        certificates: Vec<TlsCertificate>,
        now: SystemTime,
    ) -> Result<Option<Arc<S::Context>>, ContextError> {
        let identities = Identity::load_all(&certificates, now)?;
        let identities: Vec<_> = identities.into_iter().map(Some).collect();
        let step = self.with_certificates(&identities, now)?;
        Ok(self.take(step))
    }

    /// Takes a new validation context: [`Rotation::with_validation`] and [`Rotation::take`].
    ///
    /// # Errors
    /// Why it is refused; then nothing has changed.
    pub fn set_validation(
        &mut self,
        secret: &CertificateValidationContext,
        now: SystemTime,
    ) -> Result<Option<Arc<S::Context>>, ContextError> {
        let step = self.with_validation(&Arc::new(secret.clone()), now)?;
        Ok(self.take(step))
    }
}

/// The context for new handshakes, shared between the thread that renews it and the workers that use it. Reading it
/// takes no lock.
pub struct Current<C>(Arc<ArcSwapOption<C>>);

impl<C> std::fmt::Debug for Current<C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Current")
            .field("ready", &self.0.load().is_some())
            .finish()
    }
}

impl<C> Clone for Current<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Default for Current<C> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<C> Current<C> {
    /// Begins with `context`, or with none while its secrets have not come.
    pub fn new(context: Option<Arc<C>>) -> Self {
        Self(Arc::new(ArcSwapOption::new(context)))
    }

    /// The context for a handshake that begins now. Without one, the connection is to be closed.
    pub fn get(&self) -> Option<Arc<C>> {
        self.0.load_full()
    }

    /// Puts a new one in its place, for handshakes from now on.
    pub fn replace(&self, context: Arc<C>) {
        self.0.store(Some(context));
    }

    /// Whether somebody else holds it too; when nobody does, nobody will do a handshake with it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}
