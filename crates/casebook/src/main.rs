//! The runner of the feature pages: `casebook [--data-plane lateen|envoy] [SLUG...]`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool prints"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use casebook::limits::SCENE_TIME;
use casebook::play::{Report, play};
use casebook::scenes::{self, Scene};
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
    command: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Plays scenes, for which a page has no words: hostile callers, changes of mode, rotations under load, an authority
    /// that is away
    Scenes {
        /// The proxy to play them with
        #[arg(long, default_value = "lateen")]
        data_plane: DataPlane,
        /// How long a load runs, where it can be chosen; seconds that suit a test without
        #[arg(long)]
        seconds: Option<u64>,
        /// Scenes by name; all when none is named
        names: Vec<String>,
    },
    /// Plays one scene inside a namespace of its own and prints a report (for the runner itself)
    #[command(hide = true)]
    Scene {
        name: String,
        #[arg(long)]
        data_plane: DataPlane,
        #[arg(long)]
        program: PathBuf,
        #[arg(long)]
        seconds: Option<u64>,
    },
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
        Some(Action::Play {
            page,
            data_plane,
            program,
        }) => inside(page, *data_plane, program),
        Some(Action::Scenes {
            data_plane,
            seconds,
            names,
        }) => every_scene(*data_plane, *seconds, names),
        Some(Action::Scene {
            name,
            data_plane,
            program,
            seconds,
        }) => scene(name, *data_plane, program, *seconds),
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

fn scene(name: &str, data_plane: DataPlane, program: &Path, seconds: Option<u64>) -> anyhow::Result<bool> {
    let scene = Scene {
        data_plane,
        program,
        lasting: seconds.map(Duration::from_secs),
    };
    let report = scenes::play(name, &scene)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.problems.is_empty())
}

/// Plays scenes one after the other, each in a process of its own, and prints what was seen.
fn every_scene(data_plane: DataPlane, seconds: Option<u64>, names: &[String]) -> anyhow::Result<bool> {
    let program = data_plane::program(data_plane)?;
    let every = scenes::SCENES.map(str::to_owned);
    let (mut passed, mut failed) = (0, 0);
    for name in if names.is_empty() { &every[..] } else { names } {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["scene", name, "--data-plane", &data_plane.to_string()]);
        command.arg("--program").arg(&program);
        if let Some(seconds) = seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        let limit = SCENE_TIME + Duration::from_secs(seconds.unwrap_or_default());
        let report = casebook::run::apart_within::<scenes::Report>(command, limit).unwrap_or_else(|error| {
            scenes::Report {
                problems: vec![format!("{error:#}")],
                ..scenes::Report::default()
            }
        });
        let verdict = if report.problems.is_empty() {
            "ok  "
        } else {
            "FAIL"
        };
        println!("{verdict} {data_plane:6} {name}");
        for line in report.seen.iter().chain(&report.problems) {
            println!("       {}", line.replace('\n', "\n         "));
        }
        match report.problems.is_empty() {
            true => passed += 1,
            false => failed += 1,
        }
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(failed == 0)
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
