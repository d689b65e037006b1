//! The discovery server's metrics, under istiod's names, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Bounds of the convergence histogram, in seconds (istiod's, with finer ones below).
const CONVERGENCE_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 30.0];

/// Counts and durations since the process began.
#[derive(Debug, Default)]
pub struct Metrics {
    pushes: Mutex<BTreeMap<String, u64>>,
    triggers: Mutex<BTreeMap<&'static str, u64>>,
    rejects: Mutex<BTreeMap<String, u64>>,
    convergence: Histogram,
    snapshot_time: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; CONVERGENCE_BOUNDS.len()],
    count: AtomicU64,
    sum_micros: AtomicU64,
}

/// What is counted elsewhere, at the time of printing.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Open streams.
    pub streams: usize,
    /// Services in the world.
    pub services: usize,
    /// VirtualServices in the world.
    pub virtual_services: usize,
    /// Time since the process began.
    pub uptime: Duration,
    /// The version of this program.
    pub version: &'static str,
}

impl Metrics {
    /// A response was sent.
    pub fn pushed(&self, type_url: &str) {
        *self.pushes.lock().entry(short(type_url)).or_default() += 1;
    }

    /// The world was published because of this.
    pub fn triggered(&self, reason: &'static str) {
        *self.triggers.lock().entry(reason).or_default() += 1;
    }

    /// A client has refused a response.
    pub fn rejected(&self, type_url: &str) {
        *self.rejects.lock().entry(short(type_url)).or_default() += 1;
    }

    /// A proxy was brought up to date this long after the change.
    pub fn converged(&self, after: Duration) {
        self.convergence.record(after);
    }

    /// A snapshot took this long to build.
    pub fn snapshot_built(&self, took: Duration) {
        self.snapshot_time.record(took);
    }

    /// All of it in Prometheus' text format.
    #[must_use]
    pub fn print(&self, gauges: &Gauges) -> String {
        let mut out = String::new();
        let version = gauges.version;
        scalar(
            &mut out,
            "pilot_info",
            "gauge",
            &format!("{{version=\"{version}\"}}"),
            1,
        );
        scalar(
            &mut out,
            "istio_build",
            "gauge",
            &format!("{{component=\"pilot\",tag=\"{version}\"}}"),
            1,
        );
        scalar(
            &mut out,
            "istiod_uptime_seconds",
            "gauge",
            "",
            gauges.uptime.as_secs(),
        );
        scalar(
            &mut out,
            "pilot_xds",
            "gauge",
            &format!("{{version=\"{version}\"}}"),
            gauges.streams as u64,
        );
        scalar(&mut out, "pilot_services", "gauge", "", gauges.services as u64);
        scalar(
            &mut out,
            "pilot_virt_services",
            "gauge",
            "",
            gauges.virtual_services as u64,
        );
        labelled(&mut out, "pilot_xds_pushes", "type", self.pushes.lock().iter());
        labelled(
            &mut out,
            "pilot_push_triggers",
            "type",
            self.triggers.lock().iter(),
        );
        let rejects = self.rejects.lock();
        scalar(
            &mut out,
            "pilot_total_xds_rejects",
            "counter",
            "",
            rejects.values().sum(),
        );
        for (kind, count) in rejects.iter() {
            scalar(
                &mut out,
                &format!("pilot_xds_{kind}_reject"),
                "counter",
                "",
                *count,
            );
        }
        self.convergence.print(&mut out, "pilot_proxy_convergence_time");
        self.snapshot_time
            .print(&mut out, "pilot_pushcontext_init_seconds");
        out
    }
}

impl Histogram {
    fn record(&self, value: Duration) {
        for (bucket, bound) in self.buckets.iter().zip(CONVERGENCE_BOUNDS) {
            if value.as_secs_f64() <= bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn print(&self, out: &mut String, name: &str) {
        let count = self.count.load(Ordering::Relaxed);
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (bucket, bound) in self.buckets.iter().zip(CONVERGENCE_BOUNDS) {
            let _ = writeln!(
                out,
                "{name}_bucket{{le=\"{bound}\"}} {}",
                bucket.load(Ordering::Relaxed)
            );
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let seconds = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(out, "{name}_sum {seconds}");
        let _ = writeln!(out, "{name}_count {count}");
    }
}

fn scalar(out: &mut String, name: &str, kind: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "# TYPE {name} {kind}");
    let _ = writeln!(out, "{name}{labels} {value}");
}

fn labelled<'a, K: AsRef<str> + 'a>(
    out: &mut String,
    name: &str,
    label: &str,
    values: impl Iterator<Item = (K, &'a u64)>,
) {
    let _ = writeln!(out, "# TYPE {name} counter");
    for (key, value) in values {
        let _ = writeln!(out, "{name}{{{label}=\"{}\"}} {value}", key.as_ref());
    }
}

/// `cds`, `eds` and so on; Istio's names for the resource types.
#[must_use]
pub fn short(type_url: &str) -> String {
    use api_envoy::type_url as t;
    let known = [
        (t::CLUSTER, "cds"),
        (t::ENDPOINT, "eds"),
        (t::LISTENER, "lds"),
        (t::ROUTE, "rds"),
        (t::SECRET, "sds"),
        (t::EXTENSION_CONFIG, "ecds"),
        (t::NAME_TABLE, "nds"),
    ];
    let found = known
        .iter()
        .find(|(url, _)| *url == type_url)
        .map(|(_, short)| *short);
    found.unwrap_or_else(|| t::message_name(type_url)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::type_url;

    #[test]
    fn metrics_print_in_prometheus_text_format() {
        let metrics = Metrics::default();
        metrics.pushed(type_url::CLUSTER);
        metrics.pushed(type_url::CLUSTER);
        metrics.rejected(type_url::ROUTE);
        metrics.converged(Duration::from_millis(20));
        let text = metrics.print(&Gauges {
            streams: 2,
            version: "1",
            ..Gauges::default()
        });
        for line in [
            "pilot_xds{version=\"1\"} 2",
            "pilot_xds_pushes{type=\"cds\"} 2",
            "pilot_xds_rds_reject 1",
            "pilot_total_xds_rejects 1",
            "pilot_proxy_convergence_time_bucket{le=\"0.01\"} 0",
            "pilot_proxy_convergence_time_bucket{le=\"0.025\"} 1",
            "pilot_proxy_convergence_time_sum 0.02",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
