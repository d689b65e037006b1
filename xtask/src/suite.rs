//! `cargo xtask test`: everything, with a line per stage and a sum; and its parts as commands of their own.
//!
//! Each stage is a program that ends with `N passed, N failed, N skipped`; its exit code must agree. A stage that
//! cannot run is reported as not run, and that fails in CI. A stage that does not end is stopped and has failed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process::{cargo, end_family, in_ci, oracle_dir, succeeds};
use crate::tools;

/// The sets of test data that `cargo xtask test` runs, and whether they start proxies: ours and a real Envoy.
const ORACLES: &[(&str, bool)] = &[
    ("istiod-xds", false),
    ("llhttp", false),
    ("istio-crds", false),
    ("istio-crd-validation", false),
    ("istio-config", true),
];

/// How long one stage may run, without what it builds first: several times what the longest needs on two busy cores,
/// and a fraction of what CI allows, so that a test that hangs is named instead of timing everything out.
const STAGE_LIMIT: Duration = Duration::from_mins(15);

/// Programs that unit tests hold ours against, with their Debian packages.
const PEERS: &[(&str, &str)] = &[("openssl", "openssl"), ("curl", "curl")];

/// What one stage found.
#[derive(Clone, Debug, Default)]
struct Outcome {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Why it did not run, or what went wrong beside single failures.
    note: Option<String>,
}

/// Runs every stage and prints the sum.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let only = arguments
        .iter()
        .position(|a| a == "--only")
        .and_then(|at| arguments.get(at + 1));
    let wanted = |stage: &str| only.is_none_or(|o| stage.contains(o.as_str()));
    let envoy = tools::envoy();
    let kubectl = tools::kubectl();
    let python = tools::python();
    if let Err(error) = tools::debian(PEERS) {
        // The tests that want them fail, or say that they were not run.
        println!("{error:#}");
    }
    build_binaries()?;
    let mut build = cargo(["test", "--workspace", "--no-run", "--quiet"]);
    anyhow::ensure!(succeeds(&mut build)?, "the tests do not build");
    let mut stages: Vec<(String, f64, Outcome)> = Vec::new();
    let mut stage = |name: &str, run: &mut dyn FnMut() -> Result<Outcome>| {
        if wanted(name) {
            println!("\n== {name}");
            let start = Instant::now();
            let outcome = run().unwrap_or_else(|e| Outcome {
                failed: 1,
                note: Some(format!("{e:#}")),
                ..Outcome::default()
            });
            stages.push((name.to_owned(), start.elapsed().as_secs_f64(), outcome));
        }
    };
    stage("unit tests", &mut || {
        let mut tests = cargo(["test", "--workspace", "--no-fail-fast", "--quiet"]);
        // Those that want a real Envoy fail without it in CI, and say so elsewhere.
        if let Ok(path) = &envoy {
            tests.env("LATEEN_ENVOY", path);
        }
        if let Ok(path) = &python {
            tests.env("LATEEN_PYTHON", path);
        }
        counted(&mut tests)
    });
    stage("feature pages on lateen", &mut || {
        counted(&mut pages_command("lateen"))
    });
    stage("feature pages on envoy", &mut || match &envoy {
        Ok(path) => counted(pages_command("envoy").env("LATEEN_ENVOY", path)),
        Err(error) => Ok(not_run(format!("{error:#}"))),
    });
    stage("scenes on lateen", &mut || counted(&mut scenes_command("lateen")));
    stage("scenes on envoy", &mut || match &envoy {
        Ok(path) => counted(scenes_command("envoy").env("LATEEN_ENVOY", path)),
        Err(error) => Ok(not_run(format!("{error:#}"))),
    });
    stage("kubectl against the demo", &mut || match &kubectl {
        Ok(path) => counted(
            cargo(["test", "--quiet", "--package", "lateen", "--no-fail-fast"])
                .args([
                    "--test",
                    "kubectl",
                    "--test",
                    "capture_by_ports",
                    "--test",
                    "elsewhere",
                ])
                .env("LATEEN_KUBECTL", path),
        ),
        Err(error) => Ok(not_run(format!("{error:#}"))),
    });
    stage(
        "identities for programs of the host",
        &mut || match (&kubectl, &python) {
            (Ok(kubectl), Ok(python)) => counted(
                cargo(["test", "--quiet", "--package", "lateen", "--no-fail-fast"])
                    .args(["--test", "node_agent"])
                    .env("LATEEN_KUBECTL", kubectl)
                    .env("LATEEN_PYTHON", python),
            ),
            (Err(error), _) | (_, Err(error)) => Ok(not_run(format!("{error:#}"))),
        },
    );
    for (set, _) in ORACLES {
        let name = format!("oracle {set}");
        stage(&name, &mut || {
            if !oracle_dir().join(set).is_dir() {
                return Ok(not_run(format!("{} is absent", oracle_dir().join(set).display())));
            }
            match oracle_command(set, &[]) {
                Ok(mut command) => counted(&mut command),
                Err(error) => Ok(not_run(format!("{error:#}"))),
            }
        });
    }
    Ok(summarise(&stages))
}

/// `cargo xtask oracle SET ...`.
pub(crate) fn oracle(arguments: &[String]) -> Result<bool> {
    let set = arguments
        .first()
        .context("name a set, such as istiod-xds or llhttp")?;
    if ORACLES.contains(&(set, true)) {
        build_binaries()?;
    }
    succeeds(&mut oracle_command(set, &arguments[1..])?)
}

/// `cargo xtask pages ...`.
pub(crate) fn pages(arguments: &[String]) -> Result<bool> {
    let mut command = casebook(&[]);
    if arguments.iter().any(|a| a == "envoy") {
        command.env("LATEEN_ENVOY", tools::envoy()?);
    }
    build_binaries()?;
    succeeds(command.args(arguments))
}

/// `cargo xtask scenes ...`.
pub(crate) fn scenes(arguments: &[String]) -> Result<bool> {
    let mut command = casebook(&["scenes"]);
    if arguments.iter().any(|a| a == "envoy") {
        command.env("LATEEN_ENVOY", tools::envoy()?);
    }
    build_binaries()?;
    succeeds(command.args(arguments))
}

/// The programs that pages and end-to-end tests start must exist before those do.
fn build_binaries() -> Result<()> {
    let mut build = cargo([
        "build",
        "--quiet",
        "--package",
        "lateen-proxy",
        "--package",
        "lateen",
    ]);
    anyhow::ensure!(succeeds(&mut build)?, "the binaries do not build");
    Ok(())
}

fn pages_command(data_plane: &str) -> Command {
    casebook(&["--data-plane", data_plane])
}

fn scenes_command(data_plane: &str) -> Command {
    casebook(&["scenes", "--data-plane", data_plane])
}

/// The case book's runner, with arguments.
fn casebook(arguments: &[&str]) -> Command {
    let mut command = cargo([
        "run",
        "--quiet",
        "--package",
        "casebook",
        "--bin",
        "casebook",
        "--",
    ]);
    command.args(arguments);
    command
}

fn oracle_command(set: &str, extra: &[String]) -> Result<Command> {
    let mut command = cargo([
        "run",
        "--quiet",
        "--package",
        "casebook",
        "--bin",
        "oracle",
        "--",
        set,
    ]);
    command.args(extra).env("LATEEN_ORACLE", oracle_dir());
    if ORACLES.contains(&(set, true)) {
        command.env("LATEEN_ENVOY", tools::envoy()?);
    }
    Ok(command)
}

fn not_run(reason: String) -> Outcome {
    Outcome {
        failed: u64::from(in_ci()),
        skipped: u64::from(!in_ci()),
        note: Some(format!("not run: {reason}")),
        ..Outcome::default()
    }
}

/// Runs a command, shows its output and adds up the counts that it prints.
fn counted(command: &mut Command) -> Result<Outcome> {
    counted_within(command, STAGE_LIMIT)
}

fn counted_within(command: &mut Command, limit: Duration) -> Result<Outcome> {
    let end = Instant::now() + limit;
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let (sender, lines) = mpsc::sync_channel(1);
    // Ends with the output, that is, with the last process that holds it.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut outcome = Outcome::default();
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => add_counts(&mut outcome, &line?),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => return Ok(hung(&mut child, outcome, limit)),
        }
    }
    let status = child.wait()?;
    if !status.success() && outcome.failed == 0 {
        outcome.failed = 1;
        outcome.note = Some(format!("ended with {status}"));
    } else if status.success() && outcome.passed == 0 {
        outcome.failed += 1;
        outcome.note = Some("ran no test".to_owned());
    }
    Ok(outcome)
}

fn add_counts(outcome: &mut Outcome, line: &str) {
    println!("{line}");
    if let Some((passed, failed, skipped)) = counts(line) {
        outcome.passed += passed;
        outcome.failed += failed;
        outcome.skipped += skipped;
    }
}

/// Stops a stage that does not end, and says what it was running.
fn hung(child: &mut Child, outcome: Outcome, limit: Duration) -> Outcome {
    let running = end_family(child.id());
    // Reaps it; how it ended says nothing, it was killed.
    let _ = child.wait();
    Outcome {
        failed: outcome.failed + 1,
        note: Some(format!(
            "stopped after {} s; it was running {}",
            limit.as_secs(),
            running.join(" · ")
        )),
        ..outcome
    }
}

/// Reads `test result: ok. 4 passed; 0 failed; 1 ignored` and `4 passed, 0 failed, 1 skipped`.
fn counts(line: &str) -> Option<(u64, u64, u64)> {
    let line = line.trim();
    if !(line.starts_with("test result:") || line.starts_with(|c: char| c.is_ascii_digit())) {
        return None;
    }
    let words: Vec<&str> = line
        .split([' ', ',', ';', '.'])
        .filter(|w| !w.is_empty())
        .collect();
    let before = |label: &str| {
        let at = words.iter().position(|w| *w == label)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    Some((
        before("passed")?,
        before("failed")?,
        before("ignored").or_else(|| before("skipped")).unwrap_or(0),
    ))
}

fn summarise(stages: &[(String, f64, Outcome)]) -> bool {
    println!(
        "\n{:<28} {:>7} {:>7} {:>8} {:>9}",
        "stage", "passed", "failed", "skipped", "seconds"
    );
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, seconds, outcome) in stages {
        let Outcome {
            passed: p,
            failed: f,
            skipped: s,
            note,
        } = outcome;
        let note = note.as_deref().map(|n| format!("  {n}")).unwrap_or_default();
        println!("{name:<28} {p:>7} {f:>7} {s:>8} {seconds:>9.1}{note}");
        passed += p;
        failed += f;
        skipped += s;
    }
    if stages.is_empty() {
        println!("no stage has such a name");
        return false;
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    failed == 0
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::{counted_within, counts};

    #[test]
    fn a_stage_that_hangs_is_stopped_and_says_what_it_ran() {
        let start = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo '3 passed, 0 failed'; sleep 3600 & wait"]);
        let outcome = counted_within(&mut command, Duration::from_millis(300)).unwrap();
        assert!(start.elapsed() < Duration::from_mins(1));
        assert_eq!((outcome.passed, outcome.failed), (3, 1));
        let note = outcome.note.unwrap();
        assert!(note.contains("sleep 3600"), "{note}");
    }

    #[test]
    fn a_stage_that_counts_nothing_has_failed() {
        let outcome = counted_within(&mut Command::new("true"), Duration::from_mins(1)).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (0, 1));
    }

    #[test]
    fn both_kinds_of_closing_lines_are_read() {
        assert_eq!(
            counts("test result: ok. 4 passed; 1 failed; 2 ignored; 0 measured"),
            Some((4, 1, 2))
        );
        assert_eq!(counts("12 passed, 0 failed, 3 skipped"), Some((12, 0, 3)));
        assert_eq!(counts("12 passed, 0 failed"), Some((12, 0, 0)));
        assert_eq!(counts("running 12 tests"), None);
    }
}
