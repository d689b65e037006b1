//! `listener.<address>.ssl.certificate.<name>.` and `cluster.<name>.ssl.certificate.<name>.`: until when the
//! certificates of TLS contexts are valid (Envoy: "TLS statistics").

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use telemetry::stats::{Gauge, Scope, Shard};

/// The gauges of the certificates that are in use. Between [`begin`](Self::begin) and [`end`](Self::end) all of them are
/// noted; those that are not are forgotten.
#[derive(Debug, Default)]
pub(crate) struct CertificateStats {
    /// By the scope of their holder and their name.
    known: HashMap<String, Expiry>,
    /// Where a key is put together.
    key: String,
}

/// When the certificates of one name expire.
#[derive(Debug)]
struct Expiry {
    /// Keeps the handle valid.
    _scope: Scope,
    gauge: Gauge,
    /// Seconds since 1970; that of the certificate that expires first. None has been noted yet without it.
    at: Option<u64>,
}

impl CertificateStats {
    /// Begins to look at all certificates.
    pub(crate) fn begin(&mut self) {
        self.known.values_mut().for_each(|expiry| expiry.at = None);
    }

    /// Notes a certificate of `holder` that came under this name.
    pub(crate) fn note(&mut self, holder: &Scope, name: &str, not_after: SystemTime) {
        let at = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.key.clear();
        self.key.push_str(holder.prefix());
        self.key.push_str(name);
        let known = match self.known.get_mut(&self.key) {
            Some(known) => known,
            None => {
                let scope = holder.tagged("ssl.certificate.", "envoy.tls_certificate", name);
                let expiry = Expiry {
                    gauge: scope.gauge("expiration_unix_time_seconds"),
                    _scope: scope,
                    at: None,
                };
                self.known.entry(self.key.clone()).or_insert(expiry)
            }
        };
        known.at = Some(known.at.map_or(at, |first| first.min(at)));
    }

    /// Sets the gauges, and forgets those of certificates that are gone.
    pub(crate) fn end(&mut self, shard: &Shard) {
        self.known.retain(|_, expiry| {
            if let Some(at) = expiry.at {
                shard.set_gauge(expiry.gauge, at);
            }
            expiry.at.is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use telemetry::stats::{Registry, Value};

    #[test]
    fn each_name_of_a_holder_has_the_time_of_the_first_that_expires_as_long_as_there_is_one() {
        let registry = Registry::new();
        let (shard, holder, other) = (
            registry.shard(),
            registry.scope("cluster.a."),
            registry.scope("cluster.b."),
        );
        let mut stats = CertificateStats::default();
        let mut follow = |seen: &[(&Scope, &str, u64)]| {
            stats.begin();
            for (holder, name, at) in seen {
                stats.note(holder, name, UNIX_EPOCH + Duration::from_secs(*at));
            }
            stats.end(&shard);
            let all = registry.snapshot().into_iter();
            let value = |value| match value {
                Value::Gauge(at) => at,
                other => panic!("{other:?}"),
            };
            let mut all: Vec<_> = all.map(|stat| (stat.name, value(stat.value))).collect();
            all.sort();
            all
        };
        let gauge = |holder: &str, name: &str, at| {
            let name = format!("cluster.{holder}.ssl.certificate.{name}.expiration_unix_time_seconds");
            (name, at)
        };
        let all = follow(&[
            (&holder, "x", 9),
            (&holder, "x", 5),
            (&other, "x", 7),
            (&other, "y", 8),
        ]);
        assert_eq!(all, [gauge("a", "x", 5), gauge("b", "x", 7), gauge("b", "y", 8)]);
        assert_eq!(follow(&[(&other, "x", 11)]), [gauge("b", "x", 11)]);
    }
}
