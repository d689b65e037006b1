//! `cargo xtask bench`: what a proxied request costs, beside Envoy, nginx and HAProxy.
//!
//! Every proxy runs with one worker, in front of the same upstream (nginx, 1 KB answers), under the same load (wrk),
//! one after the other, interleaved and repeated. Quoted is the proxy's own CPU per request, from the operating
//! system's accounting, as a ratio to Envoy's in the same run: machines differ, ratios less so.
//!
//! `cargo xtask bench tcp` does the same for plain TCP ([`tcp`]).

mod load;
mod proxies;
mod report;
mod tcp;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{cargo, output, root, succeeds, target_dir, which};
use crate::tools;
use load::Sample;
use proxies::Proxy;

/// Programs that the bench needs and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("valgrind", "valgrind"),
];

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    seconds: u64,
    connections: u32,
    /// What is carried.
    scenario: Scenario,
    /// Whether `lateen-proxy` is built first, or taken as it is.
    build: bool,
}

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Http,
    Tcp,
}

/// Runs the bench, prints the table and writes it to a file below `target/bench`. False when a figure that must hold does not.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let plan = plan(arguments)?;
    tools::debian(PROGRAMS)?;
    let mut build = cargo([
        "build",
        "--profile",
        "dist",
        "--quiet",
        "--package",
        "lateen-proxy",
    ]);
    anyhow::ensure!(
        !plan.build || succeeds(&mut build)?,
        "lateen-proxy does not build"
    );
    let dir = target_dir().join("bench");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    match plan.scenario {
        Scenario::Http => http(plan, &dir),
        Scenario::Tcp => tcp::run(plan.rounds, plan.seconds, plan.connections as usize, &dir),
    }
}

fn http(plan: Plan, dir: &Path) -> Result<bool> {
    let upstream = proxies::upstream(dir)?;
    let contenders = proxies::all(dir, upstream.port, &tools::envoy()?)?;
    let mut samples: Vec<(&'static str, Vec<Sample>)> =
        contenders.iter().map(|p| (p.name, Vec::new())).collect();
    for round in 1..=plan.rounds {
        for (proxy, (_, collected)) in contenders.iter().zip(&mut samples) {
            let sample = measure(proxy, plan).with_context(|| format!("{} in round {round}", proxy.name))?;
            println!(
                "round {round}  {:<8} {:>6.2} µs/request  {:>8} requests  p99 {:>6.2} ms",
                proxy.name,
                sample.cpu_us(),
                sample.requests,
                sample.p99_ms
            );
            collected.push(sample);
        }
    }
    drop(upstream);
    let instructions = instructions()?;
    report::print(&samples, &instructions, plan.rounds);
    let file = dir.join("http1.json");
    report::write(&file, &samples, &instructions)?;
    println!("\nwritten to {}", file.display());
    Ok(report::holds(&samples))
}

fn plan(arguments: &[String]) -> Result<Plan> {
    let mut plan = Plan {
        rounds: 5,
        seconds: 5,
        connections: 64,
        scenario: Scenario::Http,
        build: true,
    };
    let mut rest = arguments.iter().peekable();
    if rest.next_if(|word| *word == "tcp").is_some() {
        plan.scenario = Scenario::Tcp;
        plan.connections = 4;
    }
    while let Some(argument) = rest.next() {
        let mut number = || -> Result<u64> {
            let text = rest
                .next()
                .with_context(|| format!("{argument} needs a number"))?;
            text.parse()
                .with_context(|| format!("{argument} {text}: not a number"))
        };
        match argument.as_str() {
            "--rounds" => plan.rounds = usize::try_from(number()?)?.clamp(1, 50),
            "--seconds" => plan.seconds = number()?.clamp(1, 60),
            "--connections" => plan.connections = u32::try_from(number()?)?.clamp(1, 1000),
            "--quick" => {
                plan = Plan {
                    rounds: 2,
                    seconds: 2,
                    ..plan
                }
            }
            "--no-build" => plan.build = false,
            other => anyhow::bail!(
                "no option called {other}; there are --rounds, --seconds, --connections, --quick and --no-build, \
                 and `tcp` before them"
            ),
        }
    }
    Ok(plan)
}

/// Starts a proxy, reads its idle memory, loads it, and stops it.
fn measure(proxy: &Proxy, plan: Plan) -> Result<Sample> {
    let running = proxy.start()?;
    load::wait_for(proxy.port, Duration::from_secs(20))?;
    // A short warm-up opens the connections, so that the counted part is steady.
    load::wrk(proxy.port, plan.connections, 1)?;
    std::thread::sleep(Duration::from_millis(500));
    let idle_kib = proxy.idle_rss_kib;
    let before = load::usage(running.pid())?;
    let result = load::wrk(proxy.port, plan.connections, plan.seconds)?;
    let after = load::usage(running.pid())?;
    Ok(Sample::new(&result, before, after, idle_kib))
}

/// Instructions per request of the codec and the router, by callgrind: repeatable, whatever else the machine does.
fn instructions() -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    for (package, example) in [("proxy-http", "instructions"), ("proxy-router", "instructions")] {
        let source = root()
            .join("crates")
            .join(package)
            .join("examples")
            .join(format!("{example}.rs"));
        if !source.is_file() || which("valgrind").is_none() {
            continue;
        }
        let mut build = cargo([
            "build",
            "--release",
            "--quiet",
            "--package",
            package,
            "--example",
            example,
        ]);
        anyhow::ensure!(
            succeeds(&mut build)?,
            "{package} example {example} does not build"
        );
        let binary = target_dir().join("release/examples").join(example);
        let (few, many) = (1_000_u64, 11_000_u64);
        #[allow(clippy::cast_precision_loss)]
        let each = (callgrind(&binary, many)? - callgrind(&binary, few)?) as f64 / (many - few) as f64;
        found.push((package.to_owned(), each));
    }
    Ok(found)
}

fn callgrind(binary: &PathBuf, requests: u64) -> Result<u64> {
    let mut command = std::process::Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(binary)
        .arg(requests.to_string());
    let out = command.output().context("cannot start valgrind")?;
    let text = String::from_utf8_lossy(&out.stderr);
    let line = text
        .lines()
        .find_map(|l| l.split("Collected :").nth(1))
        .context("valgrind printed no count")?;
    line.trim()
        .parse()
        .with_context(|| format!("valgrind printed {line:?}"))
}

/// The kernel's clock ticks per second.
fn ticks_per_second() -> Result<f64> {
    Ok(output(std::process::Command::new("getconf").arg("CLK_TCK"))?
        .trim()
        .parse()?)
}
