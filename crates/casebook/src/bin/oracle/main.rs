//! Runs one set of test data by other projects and prints a line per case and a sum: `cargo xtask oracle SET`.
//!
//! A case that differs must have an entry in docs/differences.md, under the heading of its set; see [`differences`].

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool prints"
)]

mod differences;
mod istio_config;
mod sets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

use differences::Differences;

/// Most differences shown of one case.
const MAX_SHOWN: usize = 12;

/// One verdict.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    passed: bool,
    differences: Vec<String>,
}

/// Runs one set of test data by other projects.
#[derive(Debug, Parser)]
#[command(name = "oracle")]
struct Arguments {
    /// istiod-xds, llhttp, istio-crds, istio-crd-validation or istio-config
    set: String,
    /// Another folder of the same shape
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Parts left out of the comparison, by name: mtls, telemetry (istiod-xds)
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Only these scenarios (istiod-xds)
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Plays one proxy on one data plane inside a namespace of its own and prints a report (for istio-config itself)
    #[arg(long, hide = true)]
    on_stage: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("oracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let oracle =
        std::env::var_os("LATEEN_ORACLE").map_or_else(|| root.join("../shared/oracle"), PathBuf::from);
    let dir = arguments
        .dir
        .clone()
        .unwrap_or_else(|| oracle.join(&arguments.set));
    ensure!(dir.is_dir(), "{} is not a folder", dir.display());
    if let Some(part) = &arguments.on_stage {
        println!("{}", serde_json::to_string(&istio_config::on_stage(part, &dir)?)?);
        return Ok(true);
    }
    let known = Differences::read(&root.join("docs/differences.md"), &arguments.set)?;
    if !arguments.without.is_empty() {
        println!("left out of the comparison: {}", arguments.without.join(", "));
    }
    let cases = sets::run(arguments, &dir)?;
    ensure!(!cases.is_empty(), "{} holds no case", dir.display());
    let (mut passed, mut explained, mut failed) = (0, 0, 0);
    for case in &cases {
        if case.passed {
            passed += 1;
            println!("ok        {}", case.name);
        } else if let Some(reason) = known.explain(&case.name, &case.differences) {
            explained += 1;
            println!("explained {}: {reason}", case.name);
        } else {
            failed += 1;
            println!("DIFFERS   {}", case.name);
            let open = case.differences.iter().filter(|d| !known.covers(&case.name, d));
            open.clone()
                .take(MAX_SHOWN)
                .for_each(|d| println!("            {d}"));
            let rest = open.count().saturating_sub(MAX_SHOWN);
            if rest > 0 {
                println!("            … and {rest} more");
            }
        }
    }
    // Of a part, or of another folder, no entry need be used.
    if arguments.dir.is_none() && arguments.scenario.is_empty() && arguments.without.is_empty() {
        let differing = cases.iter().filter(|case| !case.passed);
        let differing: Vec<_> = differing
            .map(|case| (case.name.as_str(), case.differences.as_slice()))
            .collect();
        for entry in known.stale(&differing) {
            failed += 1;
            println!("STALE     docs/differences.md: {entry} explains nothing any more");
        }
    }
    if explained > 0 {
        println!("\n{explained} of the passed are differences that docs/differences.md explains");
    }
    println!("\n{} passed, {failed} failed, 0 skipped", passed + explained);
    Ok(failed == 0)
}
