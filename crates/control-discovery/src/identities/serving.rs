//! The certificate that the control plane itself shows on the secure port, signed by its own authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use control_ca::{Authority, SignError};
use identity::{Certificate, CertificateError, KeyError, KeyKind, PrivateKey, SubjectName};
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate,
};
use tls::{ContextError, ServerContext};
use tokio::sync::watch;

use super::Clock;
use crate::limits;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error("the key")]
    Key(#[from] KeyError),
    #[error("the signature")]
    Sign(#[from] SignError),
    #[error("the certificate")]
    Certificate(#[from] CertificateError),
    #[error("the TLS context")]
    Context(#[from] ContextError),
}

/// Keeps a certificate in `served`, for ever: a new one for each new authority, and at half its life.
pub(super) async fn keep(
    mut authorities: watch::Receiver<Option<Arc<Authority>>>,
    names: Vec<SubjectName>,
    clock: Clock,
    served: watch::Sender<Option<Arc<ServerContext>>>,
) {
    loop {
        let authority = authorities.borrow_and_update().clone();
        let wait = match authority {
            None => limits::SERVING_RETRY,
            Some(authority) => match certify(&authority, &names, clock()) {
                Ok((context, renew_in)) => {
                    served.send_replace(Some(Arc::new(context)));
                    let hours = renew_in.as_secs() * 2 / 3600;
                    tracing::info!(hours, "the control plane has a new certificate");
                    renew_in
                }
                Err(error) => {
                    tracing::error!(%error, source = ?std::error::Error::source(&error), "the control plane has no new certificate");
                    limits::SERVING_RETRY
                }
            },
        };
        let due = clock() + wait;
        tokio::select! {
            changed = authorities.changed() => if changed.is_err() { return },
            () = reached(&clock, due) => {}
        }
    }
}

/// Waits for a moment of the clock, and looks at it again and again: a machine that sleeps stops timers, not time.
async fn reached(clock: &Clock, due: SystemTime) {
    while let Ok(left) = due.duration_since(clock())
        && left > Duration::ZERO
    {
        tokio::time::sleep(left.min(limits::CLOCK_LOOK_INTERVAL)).await;
    }
}

/// A context with a new certificate, and when to make the next one. Clients may show a certificate; one that does not
/// lead to the authority's roots ends the handshake.
fn certify(
    authority: &Authority,
    names: &[SubjectName],
    now: SystemTime,
) -> Result<(ServerContext, Duration), ServingError> {
    let key = PrivateKey::generate(KeyKind::default())?;
    let issued = authority.certify(key.public_key(), names, limits::SERVING_LIFETIME, now)?;
    let above = authority.intermediates().iter().map(Certificate::pem);
    let chain: String = std::iter::once(issued.leaf()?.pem()).chain(above).collect();
    let settings = DownstreamTlsContext {
        common: CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: chain.into_bytes(),
                private_key: Secret::new(key.to_pem()?.as_bytes()),
            }],
            alpn_protocols: vec!["h2".to_owned()],
            validation_context: Some(CertificateValidationContext {
                trusted_ca: Some(authority.roots_pem().into_bytes()),
                ..CertificateValidationContext::default()
            }),
            ..CommonTlsContext::default()
        },
        ..DownstreamTlsContext::default()
    };
    let life = issued.not_after().duration_since(now).unwrap_or_default();
    Ok((ServerContext::new(&settings, now)?, life / 2))
}

#[cfg(test)]
mod tests {
    use control_ca::SelfSigned;
    use identity::TrustDomain;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_has_slept_renews_when_it_wakes() {
        let now = Arc::new(Mutex::new(SystemTime::now()));
        let (shown, domain) = (Arc::clone(&now), TrustDomain::new("cluster.local").unwrap());
        let clock: Clock = Arc::new(move || *shown.lock());
        let authority = Authority::self_signed(&SelfSigned::for_trust_domain(&domain), clock()).unwrap();
        let (_authorities, changes) = watch::channel(Some(Arc::new(authority)));
        let (sender, mut served) = watch::channel(None);
        let names = vec![SubjectName::Dns("istiod.istio-system.svc".to_owned())];
        let keeping = tokio::spawn(keep(changes, names, clock, sender));
        served.changed().await.unwrap();
        served.mark_unchanged();
        tokio::time::sleep(limits::CLOCK_LOOK_INTERVAL * 2).await;
        assert!(!served.has_changed().unwrap(), "it is young");
        *now.lock() += limits::SERVING_LIFETIME;
        tokio::time::sleep(limits::CLOCK_LOOK_INTERVAL * 2).await;
        assert!(served.has_changed().unwrap(), "it has ended meanwhile");
        keeping.abort();
    }
}
