//! The secrets of one workload, by the names under which Istio's configuration asks for them over SDS:
//!
//! | name | what it is |
//! |---|---|
//! | `default` | the workload's certificate chain and key |
//! | `ROOTCA` | what its peers are verified against |
//! | `file-cert:CHAIN~KEY` | a chain and its key from files |
//! | `file-root:PATH` | roots from a file |
//!
//! Files are read when somebody first asks for them, and watched until no stream wants them any more. What is damaged is
//! refused whole: the old secret stays. Keys are in memory only; no output shows them.

mod files;
mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use api_envoy::any::pack;
use api_envoy::envoy::config::core::v3::{DataSource, data_source};
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as tls;
use identity::{Certificate, KeyError, Svid};
use parking_lot::Mutex;
use tokio::sync::watch;
use xds::server::Outgoing;

use crate::metrics::Metrics;
use files::{FileSecret, Followed};

pub use server::{bind, serve};

/// The name of the workload's own certificate.
pub const CERTIFICATE: &str = "default";

/// The name of the roots that it trusts.
pub const ROOTS: &str = "ROOTCA";

/// The secrets of one workload. Clones are the same.
#[derive(Clone)]
pub struct Secrets(Arc<Inner>);

struct Inner {
    held: Mutex<BTreeMap<String, Outgoing>>,
    /// How often anything has changed.
    generation: watch::Sender<u64>,
    /// Files that are watched, by the name of their secret.
    followed: Mutex<BTreeMap<String, Weak<Followed>>>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = self.0.held.lock();
        formatter.debug_set().entries(held.keys()).finish()
    }
}

/// The files that one stream wants, by the names of their secrets.
type Wanted = BTreeMap<String, Arc<Followed>>;

/// What becomes of a name that somebody asks for.
enum Found {
    /// It is here.
    Here(Outgoing),
    /// It may come later.
    Awaited,
    /// It never will.
    Unknown,
}

impl Secrets {
    /// None yet. Failures of files are counted in `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            held: Mutex::default(),
            generation: watch::Sender::new(0),
            followed: Mutex::default(),
            metrics,
        }))
    }

    /// Serves `svid` as [`CERTIFICATE`] from now on.
    ///
    /// # Errors
    /// When its key cannot be written.
    pub fn set_certificate(&self, svid: &Svid) -> Result<(), KeyError> {
        let key = svid.key().to_pem()?;
        let certificate = certificate(svid.chain_pem().as_bytes(), key.as_bytes());
        self.set(CERTIFICATE, certificate);
        Ok(())
    }

    /// Serves `roots` as [`ROOTS`] from now on, with the revocation lists of their authorities in PEM; empty for none.
    pub fn set_roots(&self, roots: &[Certificate], revocations: &str) {
        let pem: String = roots.iter().map(Certificate::pem).collect();
        self.set(ROOTS, authorities(pem.as_bytes(), revocations.as_bytes()));
    }

    /// Puts a secret in the place of what has its name, and tells whoever serves it, unless it is the same.
    fn set(&self, name: &str, content: tls::secret::Type) {
        let secret = tls::Secret {
            name: name.to_owned(),
            r#type: Some(content),
        };
        let secret = Outgoing::new(name, pack(&secret));
        let before = self.0.held.lock().insert(name.to_owned(), secret.clone());
        if before.as_ref() != Some(&secret) {
            self.0.generation.send_modify(|generation| *generation += 1);
        }
    }

    fn get(&self, name: &str) -> Option<Outgoing> {
        self.0.held.lock().get(name).cloned()
    }

    /// A secret that a stream asks for. A file's is read, and watched for as long as it is in `wanted`, which is the
    /// stream's own.
    fn find(&self, name: &str, wanted: &mut Wanted) -> Found {
        if ![CERTIFICATE, ROOTS].contains(&name) && !wanted.contains_key(name) {
            let file = FileSecret::parse(name);
            let Some(followed) = file.and_then(|file| files::follow(self, name, file)) else {
                return Found::Unknown;
            };
            wanted.insert(name.to_owned(), followed);
        }
        self.get(name).map_or(Found::Awaited, Found::Here)
    }
}

fn certificate(chain: &[u8], key: &[u8]) -> tls::secret::Type {
    tls::secret::Type::TlsCertificate(tls::TlsCertificate {
        certificate_chain: inline(chain),
        private_key: inline(key),
        ..tls::TlsCertificate::default()
    })
}

fn authorities(roots: &[u8], revocations: &[u8]) -> tls::secret::Type {
    tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
        trusted_ca: inline(roots),
        crl: (!revocations.is_empty()).then(|| inline(revocations)).flatten(),
        ..tls::CertificateValidationContext::default()
    })
}

fn inline(bytes: &[u8]) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec().into())),
        ..DataSource::default()
    })
}
