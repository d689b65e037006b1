//! Runs the fuzz targets of `fuzz/` one after the other, with cargo-fuzz and the nightly toolchain that it wants.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{oracle_dir, output, root, succeeds, target_dir};

const CARGO_FUZZ: &str = "cargo-fuzz@0.13.2";
/// How long each target runs unless told, in minutes.
const MINUTES: u64 = 30;
/// The longest input, bytes: more than any head, certificate or resource of the recordings.
const MAX_INPUT_BYTES: usize = 64 * 1024;
/// An input that takes longer is a finding, seconds.
const SLOW_SECONDS: u32 = 10;
/// A target that takes more memory is a finding, megabytes.
const MEMORY_MB: u32 = 2048;

/// `cargo xtask fuzz [--minutes N] [TARGET...]`: false when a target found something.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let all = targets()?;
    let (minutes, wanted) = plan(arguments, &all)?;
    let folder = root().join("fuzz");
    let nightly = output(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]));
    let nightly = nightly.context("fuzzing wants the nightly toolchain: rustup toolchain install nightly")?;
    let host = nightly.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it builds for")?;
    let tools = cargo_fuzz()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools.join("bin")).chain(std::env::split_paths(&path)))?;
    let fuzz = |arguments: &[&str]| {
        let mut command = cargo(&[&["+nightly", "fuzz"], arguments].concat());
        command.env("PATH", &path);
        command
    };
    anyhow::ensure!(succeeds(&mut fuzz(&["build"]))?, "the targets do not build");
    let mut seeds = Command::new(target_dir().join("fuzz").join(host).join("release/seeds"));
    if !succeeds(seeds.arg(folder.join("corpus")).arg(oracle_dir()))? {
        bail!("what the targets begin with could not be written");
    }
    for target in wanted {
        println!("fuzzing {target} for {minutes} min");
        let mut command = fuzz(&["run", &target, "--"]);
        command.args([
            format!("-max_total_time={}", minutes * 60),
            format!("-max_len={MAX_INPUT_BYTES}"),
            format!("-timeout={SLOW_SECONDS}"),
            format!("-rss_limit_mb={MEMORY_MB}"),
            "-print_final_stats=1".to_owned(),
        ]);
        if !succeeds(&mut command)? {
            println!(
                "{target} found something: the input is under {}",
                folder.join("artifacts").display()
            );
            return Ok(false);
        }
    }
    Ok(true)
}

/// Cargo by its name, so that `+nightly` is understood, in the folder of the targets.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    // What `cargo run` has set for this process would bind the other cargo to this one's toolchain.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    command
        .current_dir(root().join("fuzz"))
        .env("CARGO_TARGET_DIR", target_dir().join("fuzz"))
        .args(arguments);
    command
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn plan(arguments: &[String], all: &[String]) -> Result<(u64, Vec<String>)> {
    let mut minutes = MINUTES;
    let mut wanted = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--minutes" {
            let text = rest.next().context("--minutes needs a number")?;
            minutes = text
                .parse()
                .with_context(|| format!("--minutes {text}: not a number"))?;
        } else if all.contains(argument) {
            wanted.push(argument.clone());
        } else {
            bail!("no target called {argument:?}; there are {}", all.join(", "));
        }
    }
    if wanted.is_empty() {
        wanted = all.to_vec();
    }
    Ok((minutes, wanted))
}

/// Where cargo-fuzz is, installed when missing.
fn cargo_fuzz() -> Result<PathBuf> {
    let folder = target_dir().join("tools/cargo-fuzz");
    if !folder.join("bin/cargo-fuzz").is_file() {
        let mut install = cargo(&["install", CARGO_FUZZ, "--locked", "--quiet", "--root"]);
        if !succeeds(install.arg(&folder))? {
            bail!("cargo-fuzz could not be installed");
        }
    }
    Ok(folder)
}
