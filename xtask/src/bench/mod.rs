//! `cargo xtask bench`: what our proxy costs, beside Envoy and others in the same place; and our control plane.
//!
//! Every proxy runs with one worker and the same configuration, before the same upstream, under the same load, one after
//! the other, interleaved and repeated. Quoted is the proxy's own CPU, from the operating system's accounting, as a ratio
//! to the others' in the same run: machines differ, ratios less so. What must hold is in [`limits`].

mod certificates;
mod configuration;
mod contest;
mod figure;
mod handshakes;
mod http1;
mod http2;
mod idle;
mod limits;
mod load;
mod programs;
mod proxies;
mod report;
mod sidecars;
mod size;
mod tcp;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{cargo, output, succeeds, target_dir};
use crate::tools;

/// Programs that the bench needs and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("openssl", "openssl"),
    ("valgrind", "valgrind"),
];

/// How long a proxy may take to listen.
const START: Duration = Duration::from_secs(20);

/// Measures, prints, and writes below the folder; false when a figure that must hold does not.
type Scenario = fn(&Plan, &Path) -> Result<bool>;

/// Every scenario.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("http1", http1::run),
    ("http2", http2::http2),
    ("grpc", http2::grpc),
    ("client-sidecar", sidecars::client),
    ("server-sidecar", sidecars::server),
    ("handshakes", handshakes::run),
    ("tcp", tcp::run),
    ("size", size::run),
    ("idle", idle::run),
    ("signings", programs::signings),
    ("control-plane", programs::control_plane),
];

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    seconds: u64,
    /// Clients' connections; absent is the scenario's own number.
    connections: Option<u32>,
    /// Whether programs are built first, or taken as they are.
    build: bool,
}

/// Runs scenarios, prints their tables and writes them to files below `target/bench`. False when a figure that must hold
/// does not.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let (scenarios, plan) = plan(arguments)?;
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
    let mut all_hold = true;
    for (name, scenario) in scenarios {
        println!("\n## {name}\n");
        all_hold &= scenario(&plan, &dir).with_context(|| name)?;
    }
    Ok(all_hold)
}

/// The scenarios that are named, or that of HTTP/1, or with `all` every one.
fn plan(arguments: &[String]) -> Result<(Vec<(&'static str, Scenario)>, Plan)> {
    let mut plan = Plan {
        rounds: 5,
        seconds: 5,
        connections: None,
        build: true,
    };
    let mut chosen = Vec::new();
    let mut rest = arguments.iter();
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
            "--connections" => plan.connections = Some(u32::try_from(number()?)?.clamp(1, 1000)),
            "--quick" => {
                plan = Plan {
                    rounds: 2,
                    seconds: 2,
                    ..plan
                }
            }
            "--no-build" => plan.build = false,
            "all" => chosen = SCENARIOS.to_vec(),
            name => {
                let found = SCENARIOS.iter().find(|(known, _)| *known == name);
                chosen.push(*found.with_context(|| unknown(name))?);
            }
        }
    }
    if chosen.is_empty() {
        chosen.push(SCENARIOS[0]);
    }
    Ok((chosen, plan))
}

fn unknown(name: &str) -> String {
    let scenarios: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
    format!(
        "{name} is neither a scenario ({}, all) nor one of --rounds, --seconds, --connections, --quick and --no-build",
        scenarios.join(", ")
    )
}

/// The kernel's clock ticks per second.
fn ticks_per_second() -> Result<f64> {
    Ok(output(std::process::Command::new("getconf").arg("CLK_TCK"))?
        .trim()
        .parse()?)
}
