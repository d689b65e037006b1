//! The runner of the feature pages: `casebook [--data-plane lateen|envoy] [SLUG...]`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool prints"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use casebook::play::{Report, play};
use casebook::{DataPlane, Page, data_plane};
use clap::{Parser, Subcommand};

/// Runs feature pages: specification, documentation and test in one file.
#[derive(Debug, Parser)]
#[command(name = "casebook", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The proxy to run them on
    #[arg(long, default_value = "lateen")]
    data_plane: DataPlane,
    /// The folder of the pages
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../features"))]
    pages: PathBuf,
    /// Pages by name; all when none is named
    slugs: Vec<String>,
    #[command(subcommand)]
    command: Option<Play>,
}

#[derive(Debug, Subcommand)]
enum Play {
    /// Plays one page inside a namespace of its own and prints a report (for the runner itself)
    #[command(hide = true)]
    Play {
        page: PathBuf,
        #[arg(long)]
        data_plane: DataPlane,
        #[arg(long)]
        program: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Some(Play::Play {
            page,
            data_plane,
            program,
        }) => inside(page, *data_plane, program),
        None => all(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("casebook: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn inside(page: &Path, data_plane: DataPlane, program: &Path) -> anyhow::Result<bool> {
    let report = play(&Page::read(page)?, data_plane, program)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.problems.is_empty())
}

fn all(arguments: &Arguments) -> anyhow::Result<bool> {
    let program = data_plane::program(arguments.data_plane)?;
    let itself = std::env::current_exe()?;
    let data_plane = arguments.data_plane;
    let done = |slug: &str, report: &Report, time: Duration| line(data_plane, slug, report, time);
    let summary = casebook::run(
        &arguments.pages,
        data_plane,
        &arguments.slugs,
        &program,
        &itself,
        &done,
    )?;
    println!(
        "{} passed, {} failed, 0 skipped",
        summary.passed(),
        summary.failed()
    );
    Ok(summary.failed() == 0)
}

/// One line per page, and one per problem.
fn line(data_plane: DataPlane, slug: &str, report: &Report, time: Duration) {
    let verdict = if report.problems.is_empty() {
        "ok  "
    } else {
        "FAIL"
    };
    let Report {
        exchanges,
        requests,
        problems,
    } = report;
    let mut text = format!(
        "{verdict} {data_plane:6} {slug:36} {exchanges:3} exchanges {requests:5} requests {time:6.1?}"
    );
    for problem in problems {
        text.push_str(&format!("\n       {}", problem.replace('\n', "\n         ")));
    }
    println!("{text}");
}
