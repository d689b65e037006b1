//! Our own keys as rustls uses them: one fixed certificate for a configuration, and signature schemes that settings may
//! narrow.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::pem::Identity;

/// Always this certificate, or never one.
pub(crate) struct Fixed(pub(crate) Option<Arc<CertifiedKey>>);

impl std::fmt::Debug for Fixed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Fixed").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

impl ResolvesClientCert for Fixed {
    /// Envoy sends its certificate whatever authorities the server hints at.
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// A key that signs with some of its schemes only.
struct Narrowed {
    key: Arc<dyn SigningKey>,
    allowed: Vec<SignatureScheme>,
}

impl std::fmt::Debug for Narrowed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Narrowed")
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

impl SigningKey for Narrowed {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let both: Vec<SignatureScheme> = offered
            .iter()
            .filter(|scheme| self.allowed.contains(scheme))
            .copied()
            .collect();
        self.key.choose_scheme(&both)
    }

    fn public_key(&self) -> Option<rustls::pki_types::SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

/// `identity` with its key narrowed to `allowed`, where that says anything.
pub(crate) fn narrow(identity: Identity, allowed: Option<&[SignatureScheme]>) -> Identity {
    let Some(allowed) = allowed else {
        return identity;
    };
    let key = Narrowed {
        key: Arc::clone(&identity.key.key),
        allowed: allowed.to_vec(),
    };
    Identity {
        key: Arc::new(CertifiedKey::new(identity.key.cert.clone(), Arc::new(key))),
        leaf: identity.leaf,
    }
}
