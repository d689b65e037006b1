//! Contexts whose material comes and changes as secrets (SDS), without dropping a connection.
//!
//! On the thread that receives secrets, a [`Rotation`] makes a new immutable context for each change, or refuses the
//! change whole and keeps the old context. What it makes is sent to the workers as an [`Arc`]; there a [`Current`]
//! holds it for new handshakes. A handshake takes no lock, and open connections keep what they began with.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use crate::client::ClientContext;
use crate::parameters::{Side, parameters};
use crate::pem;
use crate::refusal::ContextError;
use crate::server::ServerContext;
use crate::settings::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate, UpstreamTlsContext,
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

/// Which parts of a context come as secrets, later than its settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// The certificates with their keys (`tls_certificate_sds_secret_configs`).
    pub certificates: bool,
    /// The validation context (`validation_context_sds_secret_config`, alone or combined with defaults).
    pub validation: bool,
}

/// Settings with the secrets that have come, and the context that they make.
pub struct Rotation<S: ContextSettings> {
    settings: S,
    defaults: CertificateValidationContext,
    awaited: Awaited,
    current: Option<Arc<S::Context>>,
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

    /// Takes new certificates. Gives the new context for the workers, or `None` as long as another secret is missing.
    ///
    /// # Errors
    /// Why they are refused; then nothing has changed.
    pub fn set_certificates(
        &mut self,
        certificates: Vec<TlsCertificate>,
        now: SystemTime,
    ) -> Result<Option<Arc<S::Context>>, ContextError> {
        for certificate in &certificates {
            pem::identity(certificate, now)?;
        }
        let mut settings = self.settings.clone();
        settings.common().tls_certificates = certificates;
        let awaited = Awaited {
            certificates: false,
            ..self.awaited
        };
        self.take(settings, awaited, now)
    }

    /// Takes a new validation context, merged into the defaults. Gives the new context for the workers, or `None` as
    /// long as another secret is missing.
    ///
    /// # Errors
    /// Why it is refused; then nothing has changed. A secret without any authority is refused.
    pub fn set_validation(
        &mut self,
        secret: &CertificateValidationContext,
        now: SystemTime,
    ) -> Result<Option<Arc<S::Context>>, ContextError> {
        if secret.trusted_ca.is_none() && secret.spiffe.is_none() {
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
        self.take(settings, awaited, now)
    }

    fn take(
        &mut self,
        settings: S,
        awaited: Awaited,
        now: SystemTime,
    ) -> Result<Option<Arc<S::Context>>, ContextError> {
        let context = match awaited == Awaited::default() {
            true => Some(Arc::new(settings.build(now)?)),
            false => None,
        };
        self.settings = settings;
        self.awaited = awaited;
        self.current.clone_from(&context);
        Ok(context)
    }
}

/// A worker's context for new handshakes. Clones share it; it does not leave its thread.
#[derive(Debug)]
pub struct Current<C>(Rc<RefCell<Option<Arc<C>>>>);

impl<C> Clone for Current<C> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<C> Default for Current<C> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<C> Current<C> {
    /// Begins with `context`, or with none while its secrets have not come.
    pub fn new(context: Option<Arc<C>>) -> Self {
        Self(Rc::new(RefCell::new(context)))
    }

    /// The context for a handshake that begins now. Without one, the connection is to be closed.
    pub fn get(&self) -> Option<Arc<C>> {
        self.0.borrow().clone()
    }

    /// Puts a new one in its place, for handshakes from now on.
    pub fn replace(&self, context: Arc<C>) {
        *self.0.borrow_mut() = Some(context);
    }
}
