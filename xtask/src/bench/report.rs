//! The table, the file, and the figures that must hold.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::load::Sample;

/// Our CPU per request at most this fraction of Envoy's.
const MAX_OF_ENVOY: f64 = 0.45;
/// Our CPU per request at most this fraction of nginx's.
const MAX_OF_NGINX: f64 = 1.0;
/// Our resident set when idle, at most, kibibytes.
const MAX_IDLE_KIB: f64 = 15.0 * 1024.0;

type Samples = [(&'static str, Vec<Sample>)];

fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    median_of(samples.iter().map(value).collect())
}

/// The median; of none it is no number.
pub(super) fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn of<'a>(samples: &'a Samples, name: &str) -> &'a [Sample] {
    samples.iter().find(|(n, _)| *n == name).map_or(&[], |(_, s)| s)
}

/// The median over the rounds of the ratio of two proxies' CPU per request in the same round.
fn ratio(samples: &Samples, name: &str, to: &str) -> f64 {
    let pairs = of(samples, name).iter().zip(of(samples, to));
    median_of(pairs.map(|(a, b)| a.cpu_us() / b.cpu_us()).collect())
}

/// Prints medians over the rounds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn print(samples: &Samples, instructions: &[(String, f64)], rounds: usize) {
    println!("\nHTTP/1.1 plaintext, 1 KB answers, one worker each; medians of {rounds} interleaved rounds\n");
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
    for (part, each) in instructions {
        println!("\n{part}: {each:.0} instructions per request (callgrind)");
    }
    println!();
    for (text, value, limit) in figures(samples) {
        let verdict = if value <= limit { "holds" } else { "DOES NOT HOLD" };
        println!("{verdict:<13} {text}: {value:.2}, at most {limit:.2}");
    }
}

#[allow(clippy::cast_precision_loss)]
fn figures(samples: &Samples) -> [(&'static str, f64, f64); 3] {
    [
        (
            "CPU per request of Envoy's",
            ratio(samples, "lateen", "envoy"),
            MAX_OF_ENVOY,
        ),
        (
            "CPU per request of nginx's",
            ratio(samples, "lateen", "nginx"),
            MAX_OF_NGINX,
        ),
        (
            "resident KiB when idle",
            median(of(samples, "lateen"), |s| s.idle_kib as f64),
            MAX_IDLE_KIB,
        ),
    ]
}

/// Whether every figure that must hold does.
pub(crate) fn holds(samples: &Samples) -> bool {
    figures(samples).iter().all(|(_, value, limit)| value <= limit)
}

/// Writes every sample as JSON.
pub(crate) fn write(file: &Path, samples: &Samples, instructions: &[(String, f64)]) -> Result<()> {
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
    let instructions: serde_json::Map<String, Value> = instructions
        .iter()
        .map(|(part, each)| (part.clone(), json!(each)))
        .collect();
    let document = json!({ "proxies": proxies, "instructions_per_request": instructions });
    Ok(std::fs::write(file, serde_json::to_string_pretty(&document)?)?)
}
