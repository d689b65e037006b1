//! Developer commands. `cargo xtask help` lists them.
//!
//! This crate only arranges other programs: cargo, the case book, kubectl, Envoy, nginx, HAProxy, wrk. It depends on
//! none of the project's crates, so that it builds in seconds.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool prints"
)]

mod bench;
mod codegen;
mod find;
mod fuzz;
mod limits;
mod process;
mod suite;
mod tidy;
mod tools;

use std::process::ExitCode;

/// Runs a command with its arguments; false when it found something wrong.
type Action = fn(&[String]) -> anyhow::Result<bool>;

/// Every command: its name, what it does, and the function behind it.
const COMMANDS: &[(&str, &str, Action)] = &[
    (
        "test",
        "install what tests need, then run everything: unit tests, feature pages, kubectl, oracles",
        suite::run,
    ),
    (
        "tidy",
        "check the wing and layer rule, module cycles, file sizes, required documents",
        tidy::run,
    ),
    (
        "bench",
        "speed and size beside Envoy and others: bench [SCENARIO...|all] [--rounds N] [--seconds N] [--quick]",
        bench::run,
    ),
    (
        "oracle",
        "run one set of test data by other projects: oracle SET [--dir DIR] [--without a,b]",
        suite::oracle,
    ),
    (
        "pages",
        "run feature pages: pages [--data-plane lateen|envoy] [SLUG...]",
        suite::pages,
    ),
    (
        "scenes",
        "hostile callers, changes of mode, rotations under load: scenes [--data-plane lateen|envoy] [--seconds N] [NAME...]",
        suite::scenes,
    ),
    (
        "fuzz",
        "run the fuzz targets, half an hour each: fuzz [--minutes N] [TARGET...]",
        fuzz::run,
    ),
    ("where", "where something lives: where WORD", find::run),
    (
        "tools",
        "install Envoy, kubectl and SPIFFE's client under target/ and print their paths",
        tools::run,
    ),
    (
        "limits",
        "write docs/limits.md from the limits modules",
        limits::run,
    ),
    (
        "codegen",
        "generate the types of crates/api-envoy and crates/api-spiffe, and the CRDs again",
        codegen::run,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(command) = arguments
        .first()
        .and_then(|name| COMMANDS.iter().find(|c| c.0 == name))
    else {
        let wanted = arguments.first().map_or("help", String::as_str);
        println!("cargo xtask COMMAND\n");
        for (name, summary, _) in COMMANDS {
            println!("  {name:<8} {summary}");
        }
        return if ["help", "--help", "-h"].contains(&wanted) {
            ExitCode::SUCCESS
        } else {
            eprintln!("\nxtask: no command called {wanted:?}");
            ExitCode::from(2)
        };
    };
    match command.2(&arguments[1..]) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask {}: {error:#}", command.0);
            ExitCode::FAILURE
        }
    }
}
