//! Statistics as Envoy's admin interface prints them: `/stats` in text and JSON, and `/stats/prometheus`.
//!
//! Source: Envoy's admin documentation ("Administration interface", `/stats`), and what Envoy 1.40 prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::histogram::Merged;
use crate::stats::{Stat, Tag, Value};

/// The quantiles that text and JSON show.
const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];
/// Envoy's default upper bounds of Prometheus buckets.
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Which kinds of statistics to print (`/stats?type=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kinds {
    /// All kinds.
    #[default]
    All,
    /// Counters only.
    Counters,
    /// Gauges only.
    Gauges,
    /// Histograms only.
    Histograms,
}

/// Whether a statistic is of one of the kinds.
#[must_use]
pub fn is_of(stat: &Stat, kinds: Kinds) -> bool {
    matches!(
        (kinds, &stat.value),
        (Kinds::All, _)
            | (Kinds::Counters, Value::Counter(_))
            | (Kinds::Gauges, Value::Gauge(_))
            | (Kinds::Histograms, Value::Histogram(_))
    )
}

/// Whether a statistic was written since the start (`usedonly`). One that returned to zero counts as unused.
#[must_use]
pub fn is_used(stat: &Stat) -> bool {
    match &stat.value {
        Value::Counter(n) | Value::Gauge(n) => *n > 0,
        Value::Histogram(merged) => !merged.buckets.is_empty(),
    }
}

/// `name: value` lines; counters and gauges first, then histograms.
#[must_use]
pub fn text(stats: &[Stat]) -> String {
    let mut out = String::new();
    for stat in stats {
        if let Value::Counter(n) | Value::Gauge(n) = &stat.value {
            let _ = writeln!(out, "{}: {n}", stat.name);
        }
    }
    for stat in stats {
        if let Value::Histogram(merged) = &stat.value {
            let _ = writeln!(out, "{}: {}", stat.name, summary(merged));
        }
    }
    out
}

fn summary(merged: &Merged) -> String {
    if merged.buckets.is_empty() {
        return "No recorded values".to_owned();
    }
    // This proxy keeps no interval apart from the total, so both figures of a pair are the total's.
    let pairs = QUANTILES.iter().map(|q| {
        let value = number(merged.quantile(*q));
        format!("P{}({value},{value})", number(q * 100.0))
    });
    pairs.collect::<Vec<_>>().join(" ")
}

/// Rounded to three decimals, without trailing zeros.
fn number(value: f64) -> String {
    format!("{}", (value * 1000.0).round() / 1000.0)
}

/// The document of `/stats?format=json`.
#[must_use]
pub fn json(stats: &[Stat]) -> String {
    let mut items: Vec<String> = Vec::new();
    let mut histograms: Vec<String> = Vec::new();
    for stat in stats {
        let name = quoted(&stat.name);
        match &stat.value {
            Value::Counter(n) | Value::Gauge(n) => items.push(format!("{{\"name\":{name},\"value\":{n}}}")),
            Value::Histogram(merged) => {
                let values = QUANTILES.iter().map(|q| {
                    let value = merged.quantile(*q);
                    let shown = if value.is_nan() {
                        "null".to_owned()
                    } else {
                        number(value)
                    };
                    format!("{{\"cumulative\":{shown},\"interval\":{shown}}}")
                });
                let values = values.collect::<Vec<_>>().join(",");
                histograms.push(format!("{{\"name\":{name},\"values\":[{values}]}}"));
            }
        }
    }
    if !histograms.is_empty() {
        let quantiles = QUANTILES.map(|q| number(q * 100.0)).join(",");
        items.push(format!(
            "{{\"histograms\":{{\"supported_quantiles\":[{quantiles}],\"computed_quantiles\":[{}]}}}}",
            histograms.join(",")
        ));
    }
    format!("{{\"stats\":[{}]}}", items.join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Prometheus text format: `envoy_` names without tags, tags as labels.
#[must_use]
pub fn prometheus(stats: &[Stat]) -> String {
    let mut families: BTreeMap<(u8, String), Vec<(String, &Value)>> = BTreeMap::new();
    for stat in stats {
        let (name, tags) = extract(stat);
        let rank = match stat.value {
            Value::Counter(_) => 0,
            Value::Gauge(_) => 1,
            Value::Histogram(_) => 2,
        };
        families
            .entry((rank, format!("envoy_{}", sanitised(&name))))
            .or_default()
            .push((labels(&tags), &stat.value));
    }
    let mut out = String::new();
    for ((rank, name), samples) in &families {
        let kind = ["counter", "gauge", "histogram"][usize::from(*rank)];
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for (labels, value) in samples {
            match value {
                Value::Counter(n) | Value::Gauge(n) => {
                    let _ = writeln!(out, "{name}{{{labels}}} {n}");
                }
                Value::Histogram(merged) => buckets(&mut out, name, labels, merged),
            }
        }
    }
    out
}

fn buckets(out: &mut String, name: &str, labels: &str, merged: &Merged) {
    let comma = if labels.is_empty() { "" } else { "," };
    for bound in BOUNDS {
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {}",
            merged.at_most(bound)
        );
    }
    let count = merged.count();
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", merged.sum);
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}

/// Envoy's default tag extraction for response codes, on top of the scope's tags: `…_rq_2xx` and `…_rq_404`.
fn extract(stat: &Stat) -> (String, Vec<Tag>) {
    let mut tags = stat.tags.clone();
    if let Some((head, tail)) = stat.tag_free.rsplit_once("_rq_") {
        let digits = tail.trim_end_matches("xx");
        let is_class = tail.len() == 3 && tail.ends_with("xx") && digits.len() == 1;
        let is_code = tail.len() == 3 && digits.len() == 3;
        if (is_class || is_code) && digits.bytes().all(|b| b.is_ascii_digit()) {
            let name = if is_class {
                "envoy.response_code_class"
            } else {
                "envoy.response_code"
            };
            tags.insert(
                0,
                Tag {
                    name,
                    value: digits.into(),
                },
            );
            return (format!("{head}{}", if is_class { "_rq_xx" } else { "_rq" }), tags);
        }
    }
    (stat.tag_free.clone(), tags)
}

fn sanitised(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

fn labels(tags: &[Tag]) -> String {
    let escaped = |value: &str| {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    let pairs = tags
        .iter()
        .map(|t| format!("{}=\"{}\"", sanitised(t.name), escaped(&t.value)));
    pairs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Registry;

    fn sample() -> Vec<Stat> {
        let registry = Registry::new();
        let shard = registry.shard();
        let scope = registry.cluster_scope("app");
        shard.add(scope.counter("upstream_rq_2xx"), 5);
        shard.add(scope.counter("upstream_rq_503"), 1);
        shard.move_gauge(scope.gauge("upstream_cx_active"), 2);
        let time = scope.histogram("upstream_rq_time");
        [0, 3, 70].iter().for_each(|v| shard.record(time, *v));
        let _unused = scope.histogram("upstream_cx_length_ms");
        registry.snapshot()
    }

    #[test]
    fn text_puts_histograms_last_and_says_when_they_are_empty() {
        let text = text(&sample());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "cluster.app.upstream_cx_active: 2");
        assert_eq!(lines[3], "cluster.app.upstream_cx_length_ms: No recorded values");
        assert!(
            lines[4].starts_with("cluster.app.upstream_rq_time: P0("),
            "{}",
            lines[4]
        );
    }

    #[test]
    fn prometheus_extracts_response_codes_and_cluster_names() {
        let text = prometheus(&sample());
        assert!(text.contains(
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"app\"} 5"
        ));
        assert!(
            text.contains(
                "envoy_cluster_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"app\"} 1"
            )
        );
        assert!(text.contains("# TYPE envoy_cluster_upstream_cx_active gauge"));
        assert!(
            text.contains("envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"app\",le=\"5\"} 2")
        );
        assert!(text.contains("envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"app\"} 3"));
    }

    #[test]
    fn json_keeps_histograms_apart() {
        let text = json(&sample());
        assert!(
            text.starts_with("{\"stats\":[{\"name\":\"cluster.app.upstream_cx_active\",\"value\":2}"),
            "{text}"
        );
        assert!(text.contains("\"computed_quantiles\":[{\"name\":\"cluster.app.upstream_cx_length_ms\",\"values\":[{\"cumulative\":null"));
    }
}
