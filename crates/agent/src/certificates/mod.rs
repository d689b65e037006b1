//! The workload's identity: a key that is made here and stays here, a certificate for it, and the roots to trust.
//!
//! [`Keeper`] asks an [`Authority`] for a certificate, checks what comes back, and asks again with a new key when half
//! of its life is over (Istio's `SECRET_GRACE_PERIOD_RATIO`), a little earlier or later so that workloads that started
//! together do not renew together. What is refused, or does not come, leaves the old one in force, and is tried again
//! with growing waits for as long as it takes: proxies work until it expires, and [`State`] tells how that stands.
//!
//! - [`authority`]: Istio's certificate service, over TLS or over a Unix socket.
//! - [`roots`]: roots from a file, such as a mounted ConfigMap `istio-ca-root-cert`.
//! - [`revocations`]: what was revoked, from a file such as a mounted ConfigMap `istio-ca-crl`.
//! - [`mounted`]: certificates that somebody else keeps in files.
//! - [`renewal`]: when to ask again; pure.

pub mod authority;
mod check;
mod followed;
mod keeper;
pub mod mounted;
pub mod renewal;
pub mod revocations;
pub mod roots;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Certificate, ChainError, KeyKind, ServiceAccount, SpiffeId, Svid, TrustDomain, path_to_root};

pub use authority::{Authority, AuthorityError, SigningRequest};
pub use keeper::{Keeper, serve};

use crate::limits::{CERTIFICATE_LIFETIME, RENEWAL_GRACE, RENEWAL_JITTER};
use crate::secrets::{CERTIFICATE, ROOTS};

/// Now.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A random number from 0 to 1.
pub type Random = Box<dyn Fn() -> f64 + Send + Sync>;

/// Which certificate a workload wants, and when the next one.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whose identity it is to have. A certificate for somebody else is refused.
    pub account: ServiceAccount,
    /// The trust domain of the mesh (`TRUST_DOMAIN`), for authorities that want to read the identity in the request.
    /// Those that know their callers decide by themselves.
    pub trust_domain: Option<TrustDomain>,
    /// The kind of its keys (`ECC_SIGNATURE_ALGORITHM`, `ECC_CURVE`, `WORKLOAD_RSA_KEY_SIZE`).
    pub key: KeyKind,
    /// How long certificates are to be valid (`SECRET_TTL`). The authority may give less.
    pub lifetime: Duration,
    /// Which part of the life is left when the next one is asked for (`SECRET_GRACE_PERIOD_RATIO`).
    pub grace: f64,
    /// How much earlier or later at random, as a part of the life (`SECRET_GRACE_PERIOD_RATIO_JITTER`).
    pub jitter: f64,
}

impl Settings {
    /// Istio's defaults, with an elliptic key.
    #[must_use]
    pub fn new(account: ServiceAccount) -> Self {
        Self {
            account,
            trust_domain: None,
            key: KeyKind::default(),
            lifetime: CERTIFICATE_LIFETIME,
            grace: RENEWAL_GRACE,
            jitter: RENEWAL_JITTER,
        }
    }

    /// The identity to write into requests, where the trust domain is known.
    fn identity(&self) -> Option<SpiffeId> {
        SpiffeId::workload(self.trust_domain.clone()?, &self.account).ok()
    }
}

/// What a workload shows and trusts.
#[derive(Debug)]
pub struct Held {
    /// Its certificate chain and key.
    pub svid: Svid,
    /// The roots that came with it.
    pub roots: Vec<Certificate>,
    /// When it came.
    pub obtained: SystemTime,
}

/// Why a certificate that can be read is not one to hold.
#[derive(Debug, thiserror::Error)]
enum NotOurs {
    /// It is not trusted by the roots beside it, or not valid now.
    #[error("the certificate is not trusted by the roots beside it at this machine's time")]
    NotTrusted(#[from] ChainError),
    /// It is somebody else's.
    #[error("the certificate is for {got}, not for the service account {wanted}")]
    Other {
        /// Whose it is.
        got: SpiffeId,
        /// Who it was to be for.
        wanted: ServiceAccount,
    },
}

impl Held {
    /// What is held from `now` on, if it is the account's own and leads to its roots.
    fn new(
        svid: Svid,
        roots: Vec<Certificate>,
        account: &ServiceAccount,
        now: SystemTime,
    ) -> Result<Self, NotOurs> {
        if svid.id().service_account().as_ref() != Some(account) {
            return Err(NotOurs::Other {
                got: svid.id().clone(),
                wanted: account.clone(),
            });
        }
        let above: Vec<Certificate> = svid.chain().skip(1).cloned().collect();
        path_to_root(svid.leaf(), &above, &roots, now)?;
        Ok(Self {
            svid,
            roots,
            obtained: now,
        })
    }
}

/// How things stand.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What is in force; nothing before the first certificate.
    pub held: Option<Arc<Held>>,
    /// When the next one is asked for.
    pub next: Option<SystemTime>,
    /// Why the last attempt failed; nothing after a good one.
    pub failure: Option<Arc<str>>,
    /// Attempts that failed since the last good one.
    pub failures: u32,
}

impl State {
    /// When what is held ends, by the name of its secret; of the roots, the first that does.
    #[must_use]
    pub fn expiries(&self) -> Vec<(&'static str, SystemTime)> {
        let Some(held) = &self.held else {
            return Vec::new();
        };
        let roots = held.roots.iter().map(Certificate::not_after).min();
        let certificate = (CERTIFICATE, held.svid.expires());
        std::iter::once(certificate)
            .chain(roots.map(|expires| (ROOTS, expires)))
            .collect()
    }
}
