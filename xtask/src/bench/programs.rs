//! Programs of the project's own that measure, or that help to: examples of its crates, built with profile `release`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::figure::{Figure, verdict};
use super::report::median_of;
use super::{Plan, limits};
use crate::process::{cargo, output, succeeds, target_dir};

/// The path of an example, built first where that is wanted.
pub(super) fn example(package: &str, name: &str, build: bool) -> Result<PathBuf> {
    let arguments = [
        "build",
        "--release",
        "--quiet",
        "--package",
        package,
        "--example",
        name,
    ];
    anyhow::ensure!(
        !build || succeeds(&mut cargo(arguments))?,
        "{package}: example {name} does not build"
    );
    Ok(target_dir().join("release/examples").join(name))
}

/// `cargo xtask bench signings`: how many certificates the authority signs in a second of CPU. The program knows what
/// it must be.
pub(super) fn signings(plan: &Plan, _: &Path) -> Result<bool> {
    succeeds(&mut Command::new(example("control-ca", "signings", plan.build)?))
}

/// `cargo xtask bench control-plane`: how long a change takes until the last of many proxies has it. Control plane and
/// proxies share the machine.
pub(super) fn control_plane(plan: &Plan, dir: &Path) -> Result<bool> {
    let program = example("control-discovery", "mesh", plan.build)?;
    let changes = plan.rounds * 2;
    let (mut figures, mut document) = (Vec::new(), serde_json::Map::new());
    println!(
        "{} services of {} endpoints, {} proxies, {changes} changes\n",
        limits::SERVICES,
        limits::ENDPOINTS,
        limits::PROXIES
    );
    println!(
        "| workloads of the proxies | first configuration ms | endpoints: median ms | max | VirtualService: median ms | max |"
    );
    println!("|---|---|---|---|---|---|");
    for workloads in [1, limits::WORKLOADS] {
        let mut command = Command::new(&program);
        command.arg("push").args(
            [
                limits::SERVICES,
                limits::ENDPOINTS,
                limits::PROXIES,
                workloads,
                changes,
            ]
            .map(|n| n.to_string()),
        );
        let text = output(&mut command)?;
        let times: Value = serde_json::from_str(&text).with_context(|| format!("mesh printed {text}"))?;
        let list = |name: &str| -> Vec<f64> {
            times[name]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_f64)
                .collect()
        };
        let (endpoint, route) = (list("endpoint_ms"), list("virtual_service_ms"));
        let most = |values: &[f64]| values.iter().copied().fold(f64::NAN, f64::max);
        println!(
            "| {workloads} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            times["first_ms"].as_f64().unwrap_or(f64::NAN),
            median_of(endpoint.clone()),
            most(&endpoint),
            median_of(route.clone()),
            most(&route),
        );
        let of = |what: &str| {
            format!(
                "{what} until {} proxies of {workloads} workloads have it",
                limits::PROXIES
            )
        };
        figures.push(Figure::at_most(
            of("ms from a change of endpoints"),
            median_of(endpoint),
            limits::ENDPOINT_CHANGE_MS,
        ));
        figures.push(Figure::at_most(
            of("ms from a change of a VirtualService"),
            median_of(route),
            limits::ROUTE_CHANGE_MS,
        ));
        document.insert(workloads.to_string(), times);
    }
    std::fs::write(
        dir.join("control-plane.json"),
        serde_json::to_string_pretty(&document)?,
    )?;
    Ok(verdict(&figures))
}
