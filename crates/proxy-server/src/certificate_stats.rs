//! `listener.<address>.ssl.certificate.<name>.` and `cluster.<name>.ssl.certificate.<name>.`: until when the
//! certificates of TLS contexts are valid (Envoy: "TLS statistics").

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use telemetry::stats::{Gauge, Scope, Shard};

use crate::admin::source::{ContextCertificates, ShownCertificate};

/// What Envoy calls a certificate that came in a context's settings. The digits begin the SHA-256 of no name.
pub(crate) const UNNAMED_CERTIFICATE: &str = "unnamed_cert_e3b0c442";
/// What Envoy calls authorities that came so.
pub(crate) const UNNAMED_AUTHORITY: &str = "unnamed_ca_cert_e3b0c442";

/// The gauges of the certificates that are in use, by prefix.
#[derive(Debug, Default)]
pub(crate) struct CertificateStats {
    known: HashMap<String, Expiry>,
}

/// When the certificates of one name expire.
#[derive(Debug)]
struct Expiry {
    /// Keeps the handle valid.
    _scope: Scope,
    gauge: Gauge,
    /// Seconds since 1970; that of the certificate that expires first.
    at: u64,
}

impl CertificateStats {
    /// Sets a gauge for each certificate of `contexts`, and forgets those of certificates that are gone.
    pub(crate) fn follow(&mut self, shard: &Shard, contexts: &[(Scope, ContextCertificates)]) {
        let mut found: HashMap<String, Expiry> = HashMap::new();
        for (holder, context) in contexts {
            for shown in context.authority.iter().chain(&context.chain) {
                let at = expires(shown);
                let scope = holder.tagged("ssl.certificate.", "envoy.tls_certificate", &shown.name);
                let gauge = scope.gauge("expiration_unix_time_seconds");
                let known = found.entry(scope.prefix().to_owned()).or_insert(Expiry {
                    _scope: scope,
                    gauge,
                    at,
                });
                known.at = known.at.min(at);
            }
        }
        for expiry in found.values() {
            shard.set_gauge(expiry.gauge, expiry.at);
        }
        self.known = found;
    }
}

fn expires(shown: &ShownCertificate) -> u64 {
    let since = shown.certificate.not_after.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
