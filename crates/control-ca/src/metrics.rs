//! What the authority counts, under Citadel's names, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use identity::Certificate;
use parking_lot::Mutex;

use crate::authority::Authority;
use crate::sign::SignError;

/// Counts since the process began.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: AtomicU64,
    issued: AtomicU64,
    not_authenticated: AtomicU64,
    no_identity: AtomicU64,
    damaged_requests: AtomicU64,
    not_signed: Mutex<BTreeMap<&'static str, u64>>,
}

impl Metrics {
    pub(crate) fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn succeeded(&self) {
        self.issued.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn authentication_failed(&self) {
        self.not_authenticated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn identity_denied(&self) {
        self.no_identity.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn signing_failed(&self, error: &SignError) {
        if matches!(error, SignError::Request(_)) {
            self.damaged_requests.fetch_add(1, Ordering::Relaxed);
        }
        *self.not_signed.lock().entry(error.label()).or_default() += 1;
    }

    /// All of it, with the ages of the present authority's certificates at `now`.
    pub fn print(&self, authority: &Authority, now: SystemTime) -> String {
        let mut out = String::new();
        for (name, count) in [
            ("citadel_server_csr_count", &self.requests),
            ("citadel_server_success_cert_issuance_count", &self.issued),
            (
                "citadel_server_authentication_failure_count",
                &self.not_authenticated,
            ),
            ("citadel_server_id_extraction_err_count", &self.no_identity),
            ("citadel_server_csr_parsing_err_count", &self.damaged_requests),
        ] {
            let _ = writeln!(
                out,
                "# TYPE {name} counter\n{name} {}",
                count.load(Ordering::Relaxed)
            );
        }
        let name = "citadel_server_csr_sign_err_count";
        let _ = writeln!(out, "# TYPE {name} counter");
        for (label, count) in self.not_signed.lock().iter() {
            let _ = writeln!(out, "{name}{{error=\"{label}\"}} {count}");
        }
        let first_root = authority.roots().first().map(Certificate::not_after);
        let first_intermediate = authority.intermediates().first().map(Certificate::not_after);
        for (what, expiry) in [("root_cert", first_root), ("cert_chain", first_intermediate)] {
            if let Some(expiry) = expiry {
                expiry_gauges(&mut out, what, expiry, now);
            }
        }
        out
    }
}

fn expiry_gauges(out: &mut String, what: &str, expiry: SystemTime, now: SystemTime) {
    let stamp = seconds_between(SystemTime::UNIX_EPOCH, expiry);
    let left = seconds_between(now, expiry);
    for (unit, value) in [("timestamp", stamp), ("seconds", left)] {
        let name = format!("citadel_server_{what}_expiry_{unit}");
        let _ = writeln!(out, "# TYPE {name} gauge\n{name} {value}");
    }
}

/// Whole seconds from `from` to `to`, negative when `to` is earlier.
fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let whole = |d: std::time::Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(after) => whole(after),
        Err(before) => -whole(before.duration()),
    }
}
