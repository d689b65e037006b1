//! What the trust domain is verified against: roots for certificates, keys for tokens. The control plane is asked for
//! both again and again, as SPIRE's agents ask theirs; what it answers is taken whole or not at all.

use std::sync::Arc;

use api_spiffe::spire::api::types;
use bytes::Bytes;
use identity::{Certificate, CertificateError, PublicKey, RevocationList, TrustDomain, TrustDomainError};
use telemetry::logging::chain;
use tokio::sync::watch;

use super::Settings;
use super::spire::{self, SpireError};
use super::token::{self, VerifyingKey};
use crate::certificates::revocations::Revocations;
use crate::limits::{BUNDLE_POLL_INTERVAL, FIRST_BUNDLE_POLL_INTERVAL, MAX_BUNDLE_KEYS, MAX_BUNDLE_ROOTS};

/// The bundle of the trust domain.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) domain: TrustDomain,
    pub(super) roots: Vec<Certificate>,
    pub(super) keys: Vec<VerifyingKey>,
    /// The keys as a JSON Web Key Set.
    pub(super) key_set: Vec<u8>,
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.domain == other.domain && self.roots == other.roots && self.key_set == other.key_set
    }
}

/// Why there is no new bundle.
#[derive(Debug, thiserror::Error)]
enum BundleError {
    #[error("the control plane")]
    Asked(#[from] SpireError),
    #[error("the trust domain in its answer")]
    Domain(#[from] TrustDomainError),
    #[error("a root in its answer")]
    Root(#[from] CertificateError),
    #[error("{0} roots in its answer: 1 to {MAX_BUNDLE_ROOTS} are expected")]
    Roots(usize),
    #[error("{0} keys in its answer: at most {MAX_BUNDLE_KEYS} are expected")]
    Keys(usize),
    #[error("the key {0:?} in its answer is of an unknown kind")]
    Key(String),
}

impl Bundle {
    fn of(answer: types::Bundle) -> Result<Self, BundleError> {
        let domain = TrustDomain::new(&answer.trust_domain)?;
        let roots = answer.x509_authorities.iter().filter(|root| !root.tainted);
        let roots: Vec<Certificate> = roots
            .map(|root| Certificate::from_der(&root.asn1))
            .collect::<Result<_, _>>()?;
        if roots.is_empty() || roots.len() > MAX_BUNDLE_ROOTS {
            return Err(BundleError::Roots(roots.len()));
        }
        if answer.jwt_authorities.len() > MAX_BUNDLE_KEYS {
            return Err(BundleError::Keys(answer.jwt_authorities.len()));
        }
        let keys = answer.jwt_authorities.into_iter().filter(|key| !key.tainted);
        let keys: Vec<VerifyingKey> = keys
            .map(|key| {
                let read = PublicKey::from_der(&key.public_key);
                let read = read.and_then(|public| VerifyingKey::new(&key.key_id, &public));
                read.ok_or(BundleError::Key(key.key_id))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            domain,
            roots,
            key_set: token::key_set(&keys),
            keys,
        })
    }
}

/// Follows the bundle, for ever, and tells of each new one: first whoever renews certificates by the roots, then
/// everybody. What is not taken leaves the old one.
pub(super) async fn follow(
    settings: Settings,
    bundle: watch::Sender<Option<Arc<Bundle>>>,
    roots: watch::Sender<Option<Vec<Certificate>>>,
    changed: impl Fn() + Send,
) {
    let mut told = String::new();
    loop {
        let asked = spire::bundle(&settings).await.map_err(BundleError::from);
        match asked.and_then(Bundle::of) {
            Ok(new) => {
                told.clear();
                let same = bundle.borrow().as_deref() == Some(&new);
                if !same {
                    tracing::info!(domain = %new.domain, roots = new.roots.len(), keys = new.keys.len(), "a new bundle");
                    roots.send_if_modified(|known| {
                        let other = known.as_ref() != Some(&new.roots);
                        *known = Some(new.roots.clone());
                        other
                    });
                    bundle.send_replace(Some(Arc::new(new)));
                    changed();
                }
            }
            Err(error) => {
                let error = chain(&error);
                if told != error {
                    tracing::warn!(%error, "there is no new bundle; the old one stays");
                    told = error;
                }
            }
        }
        let complete = bundle
            .borrow()
            .as_ref()
            .is_some_and(|bundle| !bundle.keys.is_empty());
        let wait = if complete {
            BUNDLE_POLL_INTERVAL
        } else {
            FIRST_BUNDLE_POLL_INTERVAL
        };
        tokio::time::sleep(wait).await;
    }
}

/// Follows what was revoked, for ever. Nothing is told before that is known.
pub(super) async fn follow_revocations(
    mut lists: Revocations,
    revoked: watch::Sender<Option<Vec<Bytes>>>,
    generation: watch::Sender<u64>,
) {
    loop {
        let ders = match lists.see_known().as_deref() {
            None => Ok(None),
            Some("") => Ok(Some(Vec::new())),
            Some(text) => RevocationList::ders_of_pem(text.as_bytes()).map(Some),
        };
        match ders {
            Ok(None) => {}
            Ok(Some(ders)) => {
                revoked.send_replace(Some(ders.into_iter().map(Bytes::from).collect()));
                generation.send_modify(|generation| *generation += 1);
            }
            Err(error) => tracing::warn!(%error, "revocation lists are not taken; the old ones stay"),
        }
        lists.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use identity::{KeyKind, PrivateKey};

    use super::*;

    fn key(id: &str) -> types::JwtKey {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        types::JwtKey {
            public_key: key.public_key().der().to_vec().into(),
            key_id: id.to_owned(),
            expires_at: 0,
            tainted: false,
        }
    }

    fn answer(keys: Vec<types::JwtKey>) -> types::Bundle {
        let root =
            Certificate::from_pem(include_bytes!("../../../lateen/tests/data/certificate.pem")).unwrap();
        types::Bundle {
            trust_domain: "cluster.local".to_owned(),
            x509_authorities: vec![types::X509Certificate {
                asn1: root.der().to_vec().into(),
                tainted: false,
            }],
            jwt_authorities: keys,
            refresh_hint: 5,
            sequence_number: 0,
        }
    }

    #[test]
    fn a_bundle_is_taken_whole_or_not_at_all() {
        let good = Bundle::of(answer(vec![key("one"), key("two")])).unwrap();
        assert_eq!((good.roots.len(), good.keys.len()), (1, 2));
        let refused = |answer| Bundle::of(answer).unwrap_err().to_string();
        let mut no_roots = answer(Vec::new());
        no_roots.x509_authorities[0].tainted = true;
        assert!(refused(no_roots).starts_with("0 roots"));
        let mut damaged = answer(Vec::new());
        damaged.x509_authorities[0].asn1 = vec![1, 2, 3].into();
        assert!(refused(damaged).contains("root"));
        let mut unknown = key("odd");
        unknown.public_key = vec![1, 2, 3].into();
        assert!(refused(answer(vec![key("one"), unknown])).contains("\"odd\""));
        let many = (0..=MAX_BUNDLE_KEYS).map(|_| key("many")).collect();
        assert!(refused(answer(many)).contains("keys"));
        let mut domain = answer(Vec::new());
        domain.trust_domain = "Not One".to_owned();
        assert!(refused(domain).contains("trust domain"));
    }

    #[test]
    fn a_tainted_key_verifies_nothing() {
        let mut tainted = key("bad");
        tainted.tainted = true;
        let bundle = Bundle::of(answer(vec![key("good"), tainted])).unwrap();
        assert_eq!(bundle.keys.len(), 1);
    }
}
