//! Replays recorded conversations with istiod: `conversations DIR`. A line per step, its differences, and a sum; exits
//! with 1 when a step differs.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let directory: PathBuf = std::env::args_os()
        .nth(1)
        .ok_or("usage: conversations DIR")?
        .into();
    let results = control_discovery::conformance::run_scripts(&directory)?;
    for result in &results {
        println!("{} {}", if result.passed { "ok  " } else { "DIFF" }, result.name);
        for difference in &result.differences {
            println!("       {difference}");
        }
    }
    let passed = results.iter().filter(|r| r.passed).count();
    println!("{passed} of {} steps as recorded", results.len());
    Ok(if passed == results.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
