//! What an agent counts about its workload's certificate, under the names of Istio's agent
//! (`security/pkg/nodeagent/cache`), in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The kind of request that is counted: one for a signature.
const REQUEST_TYPE: &str = "csr";

/// Counts since the workload began.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: AtomicU64,
    failed_requests: AtomicU64,
    latency_milliseconds: AtomicU64,
    file_failures: AtomicU64,
}

impl Metrics {
    pub(crate) fn requested(&self, took: Duration, failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failed_requests.fetch_add(failed.into(), Ordering::Relaxed);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.latency_milliseconds
            .fetch_add(milliseconds, Ordering::Relaxed);
    }

    pub(crate) fn file_failed(&self) {
        self.file_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// All of it, with what is left at `now` of secrets that end at these moments. A negative time says how long ago
    /// one expired.
    #[must_use]
    pub fn print(&self, expiries: &[(&str, SystemTime)], now: SystemTime) -> String {
        let mut out = String::new();
        for (name, count) in [
            ("num_outgoing_requests", &self.requests),
            ("num_failed_outgoing_requests", &self.failed_requests),
            ("outgoing_latency", &self.latency_milliseconds),
        ] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "# TYPE {name} counter\n{name}{{request_type=\"{REQUEST_TYPE}\"}} {count}"
            );
        }
        let name = "num_file_secret_failures_total";
        let count = self.file_failures.load(Ordering::Relaxed);
        let _ = writeln!(out, "# TYPE {name} counter\n{name} {count}");
        if !expiries.is_empty() {
            out.push_str("# TYPE cert_expiry_seconds gauge\n");
        }
        for (secret, expires) in expiries {
            let left = seconds_until(*expires, now);
            let _ = writeln!(out, "cert_expiry_seconds{{resource_name=\"{secret}\"}} {left}");
        }
        out
    }
}

fn seconds_until(then: SystemTime, now: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match then.duration_since(now) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
}
