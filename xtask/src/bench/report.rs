//! The table and the file.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::load::Sample;

pub(super) type Samples = [(&'static str, Vec<Sample>)];

pub(super) fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    median_of(samples.iter().map(value).collect())
}

/// The median; of none it is no number.
pub(super) fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(super) fn of<'a>(samples: &'a Samples, name: &str) -> &'a [Sample] {
    samples.iter().find(|(n, _)| *n == name).map_or(&[], |(_, s)| s)
}

/// The median over the rounds of the ratio of two proxies' CPU per request in the same round.
pub(super) fn ratio(samples: &Samples, name: &str, to: &str) -> f64 {
    let pairs = of(samples, name).iter().zip(of(samples, to));
    median_of(pairs.map(|(a, b)| a.cpu_us() / b.cpu_us()).collect())
}

/// Prints medians over the rounds.
#[allow(clippy::cast_precision_loss)]
pub(super) fn print(samples: &Samples, title: &str) {
    println!("\n{title}\n");
    println!(
        "| proxy | CPU µs/request | user | system | of Envoy | p50 ms | p99 ms | RSS idle MB | RSS after load MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, rows) in samples {
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} |",
            median(rows, Sample::cpu_us),
            median(rows, |s| s.user_us),
            median(rows, |s| s.system_us),
            ratio(samples, name, "envoy"),
            median(rows, |s| s.p50_ms),
            median(rows, |s| s.p99_ms),
            median(rows, |s| s.idle_kib as f64) / 1024.0,
            median(rows, |s| s.loaded_kib as f64) / 1024.0,
        );
    }
}

/// Writes every sample as JSON.
pub(super) fn write(file: &Path, samples: &Samples) -> Result<()> {
    let proxies: serde_json::Map<String, Value> = samples
        .iter()
        .map(|(name, rows)| {
            let rows: Vec<Value> = rows
                .iter()
                .map(|s| {
                    json!({
                        "requests": s.requests, "user_us": s.user_us, "system_us": s.system_us, "p50_ms": s.p50_ms,
                        "p99_ms": s.p99_ms, "rss_idle_kib": s.idle_kib, "rss_loaded_kib": s.loaded_kib,
                    })
                })
                .collect();
            ((*name).to_owned(), Value::Array(rows))
        })
        .collect();
    let document = json!({ "proxies": proxies });
    Ok(std::fs::write(file, serde_json::to_string_pretty(&document)?)?)
}
