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
use crate::pem;
use crate::refusal::ContextError;
use crate::server::{self, ServerContext};
use crate::settings::{
    Awaited, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate,
    UpstreamTlsContext,
};
use crate::verification::PeerRules;

/// Settings that make a context: [`DownstreamTlsContext`] and [`UpstreamTlsContext`].
pub trait ContextSettings: Clone {
    /// What they make.
    type Context;

    /// Makes it.
    ///
    /// # Errors
    /// As [`ServerContext::new`] and [`ClientContext::new`].
    fn build(&self, now: SystemTime) -> Result<Self::Context, ContextError>;

    /// Refuses settings that could never make a context, whatever comes for what is `awaited`. Gives the names in them
    /// that nothing here offers, such as cipher suites without forward secrecy.
    ///
    /// # Errors
    /// As [`ContextSettings::build`].
    fn check(&self, awaited: Awaited, now: SystemTime) -> Result<Vec<String>, ContextError>;

    /// The part that secrets change.
    fn common(&mut self) -> &mut CommonTlsContext;

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

    fn build(&self, now: SystemTime) -> Result<ServerContext, ContextError> {
        ServerContext::new(self, now)
    }

    fn check(&self, awaited: Awaited, now: SystemTime) -> Result<Vec<String>, ContextError> {
        server::check(self, awaited, now)
    }

    fn common(&mut self) -> &mut CommonTlsContext {
        &mut self.common
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

    fn build(&self, now: SystemTime) -> Result<ClientContext, ContextError> {
        ClientContext::new(self, now)
    }

    fn check(&self, awaited: Awaited, now: SystemTime) -> Result<Vec<String>, ContextError> {
        client::check(self, awaited, now)
    }

    fn common(&mut self) -> &mut CommonTlsContext {
        &mut self.common
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

/// Settings with the secrets that have come, and the context that they make.
pub struct Rotation<S: ContextSettings> {
    settings: S,
    defaults: CertificateValidationContext,
    awaited: Awaited,
    current: Option<Arc<S::Context>>,
}

/// A change that was found good and is not made yet.
pub struct Step<S: ContextSettings> {
    settings: S,
    awaited: Awaited,
    context: Option<Arc<S::Context>>,
}

impl<S: ContextSettings> std::fmt::Debug for Step<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Step")
            .field("awaited", &self.awaited)
            .finish_non_exhaustive()
    }
}

impl<S: ContextSettings> std::fmt::Debug for Rotation<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Rotation")
            .field("awaited", &self.awaited)
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
        let mut settings = settings;
        let defaults = settings.common().validation_context.clone().unwrap_or_default();
        let mut rotation = Self {
            settings,
            defaults,
            awaited,
            current: None,
        };
        if awaited == Awaited::default() {
            rotation.current = Some(Arc::new(rotation.settings.build(now)?));
        }
        Ok(rotation)
    }

    /// The context for new handshakes; `None` as long as a secret is missing.
    pub fn current(&self) -> Option<&Arc<S::Context>> {
        self.current.as_ref()
    }

    /// What has not come yet.
    pub fn awaited(&self) -> Awaited {
        self.awaited
    }

    /// Tries new certificates, of which some may not have come yet.
    ///
    /// # Errors
    /// Why they are refused.
    pub fn with_certificates(
        &self,
        certificates: &[Option<TlsCertificate>],
        now: SystemTime,
    ) -> Result<Step<S>, ContextError> {
        for certificate in certificates.iter().flatten() {
            pem::identity(certificate, now)?;
        }
        let mut settings = self.settings.clone();
        settings.common().tls_certificates = certificates.iter().flatten().cloned().collect();
        let awaited = Awaited {
            certificates: certificates.iter().any(Option::is_none),
            ..self.awaited
        };
        Self::step(settings, awaited, now)
    }

    /// Tries a new validation context, merged into the defaults.
    ///
    /// # Errors
    /// Why it is refused. A secret by which no certificate would be judged is refused.
    pub fn with_validation(
        &self,
        secret: &CertificateValidationContext,
        now: SystemTime,
    ) -> Result<Step<S>, ContextError> {
        if secret.judges_nothing() {
            return Err(ContextError::Empty { what: "trusted_ca" });
        }
        let merged = self.defaults.merged_with(secret);
        self.settings.check_validation(&merged, now)?;
        let mut settings = self.settings.clone();
        settings.common().validation_context = Some(merged);
        let awaited = Awaited {
            validation: false,
            ..self.awaited
        };
        Self::step(settings, awaited, now)
    }

    fn step(mut settings: S, awaited: Awaited, now: SystemTime) -> Result<Step<S>, ContextError> {
        // While certificates are awaited, those that have come are kept by whoever awaits the rest.
        if awaited.certificates {
            settings.common().tls_certificates.clear();
        }
        let context = match awaited == Awaited::default() {
            true => Some(Arc::new(settings.build(now)?)),
            false => None,
        };
        Ok(Step {
            settings,
            awaited,
            context,
        })
    }

    /// Makes the change. Gives the new context for the workers, or `None` as long as another secret is missing.
    pub fn take(&mut self, step: Step<S>) -> Option<Arc<S::Context>> {
        self.settings = step.settings;
        self.awaited = step.awaited;
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
        let certificates: Vec<_> = certificates.into_iter().map(Some).collect();
        let step = self.with_certificates(&certificates, now)?;
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
        let step = self.with_validation(secret, now)?;
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
