//! The discovery server's metrics, under istiod's names, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use control_snapshot::Kind;
use parking_lot::Mutex;

/// Bounds of the convergence histogram, in seconds (istiod's, with finer ones below).
const CONVERGENCE_BOUNDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0,
];
/// Bounds of the time that a change waits, and of the time that a push takes (istiod's, with a finer one below).
const PUSH_BOUNDS: &[f64] = &[0.001, 0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Bounds of the time that a snapshot takes (istiod's, with a finer one below).
const SNAPSHOT_BOUNDS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0];

/// Counts and durations since the process began.
#[derive(Debug)]
pub struct Metrics {
    pushes: Mutex<BTreeMap<String, Histogram>>,
    triggers: Mutex<BTreeMap<&'static str, u64>>,
    rejects: Mutex<BTreeMap<String, u64>>,
    convergence: Mutex<Histogram>,
    debounce: Mutex<Histogram>,
    snapshot_time: Mutex<Histogram>,
}

#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// How many values are at most each bound.
    buckets: Vec<u64>,
    count: u64,
    sum: Duration,
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

impl Default for Metrics {
    fn default() -> Self {
        Self {
            pushes: Mutex::default(),
            triggers: Mutex::default(),
            rejects: Mutex::default(),
            convergence: Mutex::new(Histogram::new(CONVERGENCE_BOUNDS)),
            debounce: Mutex::new(Histogram::new(PUSH_BOUNDS)),
            snapshot_time: Mutex::new(Histogram::new(SNAPSHOT_BOUNDS)),
        }
    }
}

impl Metrics {
    /// A response was sent, this long after the request or push that it is part of began to be worked out.
    pub fn pushed(&self, type_url: &str, took: Duration) {
        let mut pushes = self.pushes.lock();
        let histogram = pushes.entry(short(type_url).to_owned());
        histogram
            .or_insert_with(|| Histogram::new(PUSH_BOUNDS))
            .record(took);
    }

    /// The world is published, among others because of this many changes of objects of a kind.
    pub fn triggered(&self, kind: Kind, changes: u64) {
        *self.triggers.lock().entry(reason(kind)).or_default() += changes;
    }

    /// A client has refused a response.
    pub fn rejected(&self, type_url: &str) {
        *self.rejects.lock().entry(short(type_url).to_owned()).or_default() += 1;
    }

    /// A proxy was brought up to date this long after the change.
    pub fn converged(&self, after: Duration) {
        self.convergence.lock().record(after);
    }

    /// The first of the changes that are published now has waited this long.
    pub fn debounced(&self, waited: Duration) {
        self.debounce.lock().record(waited);
    }

    /// A snapshot took this long to build.
    pub fn snapshot_built(&self, took: Duration) {
        self.snapshot_time.lock().record(took);
    }

    /// All of it in Prometheus' text format.
    #[must_use]
    pub fn print(&self, gauges: &Gauges) -> String {
        let mut out = String::new();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let version = format!("version=\"{}\"", gauges.version);
        let build = format!("component=\"pilot\",tag=\"{}\"", gauges.version);
        for (name, labels, value) in [
            ("pilot_info", version.as_str(), 1),
            ("istio_build", &build, 1),
            ("istiod_uptime_seconds", "", gauges.uptime.as_secs()),
            ("pilot_xds", &version, count(gauges.streams)),
            ("pilot_services", "", count(gauges.services)),
            ("pilot_virt_services", "", count(gauges.virtual_services)),
        ] {
            describe(&mut out, name, "gauge");
            sample(&mut out, name, labels, value);
        }
        self.print_pushes(&mut out);
        self.print_rejects(&mut out);
        for (name, histogram) in [
            ("pilot_proxy_convergence_time", &self.convergence),
            ("pilot_debounce_time", &self.debounce),
            ("pilot_pushcontext_init_seconds", &self.snapshot_time),
        ] {
            describe(&mut out, name, "histogram");
            histogram.lock().print(&mut out, name, "");
        }
        out
    }

    fn print_pushes(&self, out: &mut String) {
        let label = |kind: &str| format!("type=\"{kind}\"");
        describe(out, "pilot_push_triggers", "counter");
        for (reason, changes) in self.triggers.lock().iter() {
            sample(out, "pilot_push_triggers", &label(reason), *changes);
        }
        let pushes = self.pushes.lock();
        describe(out, "pilot_xds_pushes", "counter");
        for (kind, histogram) in pushes.iter() {
            sample(out, "pilot_xds_pushes", &label(kind), histogram.count);
        }
        describe(out, "pilot_xds_push_time", "histogram");
        for (kind, histogram) in pushes.iter() {
            histogram.print(out, "pilot_xds_push_time", &label(kind));
        }
    }

    fn print_rejects(&self, out: &mut String) {
        let rejects = self.rejects.lock();
        describe(out, "pilot_total_xds_rejects", "counter");
        sample(out, "pilot_total_xds_rejects", "", rejects.values().sum::<u64>());
        for (kind, count) in rejects.iter() {
            let name = format!("pilot_xds_{kind}_reject");
            describe(out, &name, "counter");
            sample(out, &name, "", *count);
        }
    }
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            buckets: vec![0; bounds.len()],
            count: 0,
            sum: Duration::ZERO,
        }
    }

    fn record(&mut self, value: Duration) {
        for (bucket, bound) in self.buckets.iter_mut().zip(self.bounds) {
            *bucket += u64::from(value.as_secs_f64() <= *bound);
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// The samples, each with these labels.
    fn print(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut bucket = |bound: &str, value: u64| {
            let labels = format!("{labels}{comma}le=\"{bound}\"");
            sample(out, &format!("{name}_bucket"), &labels, value);
        };
        for (value, bound) in self.buckets.iter().zip(self.bounds) {
            bucket(&bound.to_string(), *value);
        }
        bucket("+Inf", self.count);
        sample(out, &format!("{name}_sum"), labels, self.sum.as_secs_f64());
        sample(out, &format!("{name}_count"), labels, self.count);
    }
}

fn describe(out: &mut String, name: &str, kind: &str) {
    let _ = writeln!(out, "# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// Why a change of an object is pushed, in istiod's words.
fn reason(kind: Kind) -> &'static str {
    match kind {
        Kind::Service | Kind::ServiceEntry => "service",
        Kind::EndpointSlice | Kind::Pod | Kind::WorkloadEntry => "endpoint",
        Kind::Namespace => "namespace",
        Kind::ConfigMap | Kind::Node => "global",
        Kind::Secret => "secret",
        Kind::ReferenceGrant => "referencegrant",
        Kind::VirtualService
        | Kind::DestinationRule
        | Kind::Gateway
        | Kind::WorkloadGroup
        | Kind::Sidecar
        | Kind::EnvoyFilter
        | Kind::ProxyConfig
        | Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::Telemetry
        | Kind::WasmPlugin
        | Kind::TrafficExtension => "config",
    }
}

/// `cds`, `eds` and so on; Istio's names for the resource types.
#[must_use]
pub fn short(type_url: &str) -> &str {
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
    found.unwrap_or_else(|| t::message_name(type_url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::type_url;

    #[test]
    fn metrics_print_in_prometheus_text_format() {
        let metrics = Metrics::default();
        metrics.pushed(type_url::CLUSTER, Duration::from_millis(5));
        metrics.pushed(type_url::CLUSTER, Duration::from_millis(2));
        metrics.triggered(Kind::VirtualService, 2);
        metrics.triggered(Kind::Gateway, 1);
        metrics.debounced(Duration::from_millis(10));
        metrics.snapshot_built(Duration::from_secs(6));
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
            "pilot_xds_push_time_bucket{type=\"cds\",le=\"0.001\"} 0",
            "pilot_xds_push_time_bucket{type=\"cds\",le=\"0.01\"} 2",
            "pilot_xds_push_time_sum{type=\"cds\"} 0.007",
            "pilot_push_triggers{type=\"config\"} 3",
            "pilot_debounce_time_bucket{le=\"0.01\"} 1",
            "pilot_pushcontext_init_seconds_bucket{le=\"5\"} 0",
            "pilot_pushcontext_init_seconds_bucket{le=\"+Inf\"} 1",
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
