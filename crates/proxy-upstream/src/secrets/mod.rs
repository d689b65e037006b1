//! Secrets: certificates with their keys, and what peers are verified by, that come and change while the proxy runs
//! (Envoy's "Secret discovery service").
//!
//! Everything here is on the main thread and does no I/O. Compiling a transport socket asks the [`SecretStore`] for a
//! context; when a secret comes, the store tries it on every context that uses it, and takes it whole or not at all.
//! What must be fetched, and what is of no use any more, comes out of [`SecretStore::take_requests`].

mod context;
mod store;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tls::Identity;
use tls::settings::{CertificateValidationContext, TlsCertificate};

pub use context::SecuredContext;
pub use store::{Request, SecretStore, Sources};

/// Where Envoy's `/certs` says that a certificate is from which is in no file.
pub const INLINE: &str = "<inline>";

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// The bootstrap's `static_resources.secrets`.
    Static,
    /// The aggregated discovery service.
    Ads,
    /// A discovery service of its own (`api_config_source`).
    Service {
        /// The static cluster that it is reached through.
        cluster: Arc<str>,
        /// Whether it speaks the incremental variant.
        delta: bool,
    },
    /// A file with a discovery response (`path_config_source`).
    File {
        /// The file.
        path: Arc<Path>,
        /// The directory whose changes say that the file has changed, if not the file itself.
        directory: Option<Arc<Path>>,
    },
}

/// The kinds of secrets that something here uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// `tls_certificate`.
    Certificate,
    /// `validation_context`.
    Validation,
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "tls_certificate",
            Self::Validation => "validation_context",
        })
    }
}

/// What stands for a secret: whoever names the same one from the same source shares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretKey {
    /// What it must be.
    pub kind: SecretKind,
    /// Where it comes from.
    pub source: SecretSource,
    /// Its name.
    pub name: Arc<str>,
}

/// A reference to a secret (`SdsSecretConfig`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    /// Its name.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: SecretSource,
    /// How long whoever refers to it waits for it; zero waits for ever.
    pub initial_fetch_timeout: Duration,
}

impl SecretRef {
    /// What it stands for where a secret of `kind` is needed.
    #[must_use]
    pub fn key(&self, kind: SecretKind) -> SecretKey {
        SecretKey {
            kind,
            source: self.source.clone(),
            name: Arc::clone(&self.name),
        }
    }
}

/// The secrets of one TLS context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretRefs {
    /// `tls_certificate_sds_secret_configs`.
    pub certificates: Vec<SecretRef>,
    /// `validation_context_sds_secret_config`, alone or combined with defaults.
    pub validation: Option<SecretRef>,
}

impl SecretRefs {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.validation.is_none()
    }

    /// Every reference with what it stands for.
    pub fn keys(&self) -> impl Iterator<Item = (SecretKey, &SecretRef)> {
        let certificates = self.certificates.iter();
        certificates
            .map(|reference| (reference.key(SecretKind::Certificate), reference))
            .chain(
                (self.validation.iter()).map(|reference| (reference.key(SecretKind::Validation), reference)),
            )
    }
}

/// A secret that has come; those who use it share it.
#[derive(Clone, Debug)]
pub enum SecretValue {
    /// `tls_certificate`.
    Certificate {
        /// As it came.
        source: Arc<TlsCertificate>,
        /// What contexts present.
        identity: Identity,
    },
    /// `validation_context`.
    Validation(Arc<CertificateValidationContext>),
}

impl PartialEq for SecretValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Certificate { source, .. }, Self::Certificate { source: other, .. }) => source == other,
            (Self::Validation(context), Self::Validation(other)) => context == other,
            _ => false,
        }
    }
}

impl SecretValue {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> SecretKind {
        match self {
            Self::Certificate { .. } => SecretKind::Certificate,
            Self::Validation(_) => SecretKind::Validation,
        }
    }
}

/// Where the certificates of a context came from, as Envoy's `/certs` and statistics name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// One for each of `tls_certificates`: a path, or [`INLINE`].
    pub certificates: Vec<String>,
    /// That of `trusted_ca`, a path or [`INLINE`]; empty without one.
    pub trusted_ca: String,
    /// The names of the secrets that the certificates came as, in the context's order; empty where they are in its
    /// settings.
    pub certificate_secrets: Vec<Arc<str>>,
    /// The name of the secret that the authorities came as.
    pub validation_secret: Option<Arc<str>>,
}

/// The files that a secret names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFiles {
    /// Every `filename`.
    pub files: Vec<PathBuf>,
    /// `watched_directory`.
    pub directory: Option<PathBuf>,
}
