//! The harness of tests whose cases share one demo and run in order.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use super::Mesh;

/// What holds, and the check of it.
pub(crate) type Case = (&'static str, fn(&mut Mesh) -> Result<()>);

/// Runs the cases on a demo, those whose name contains the program's first argument if there is one. The exit code says
/// whether all passed and there were any.
pub(crate) fn run(start: impl FnOnce() -> Result<Mesh>, cases: &[Case]) -> ExitCode {
    let mut mesh = match start() {
        Ok(mesh) => mesh,
        Err(error) => {
            println!("test the demo starts ... FAILED\n  {error:#}\n\n0 passed, 1 failed, 0 skipped");
            return ExitCode::FAILURE;
        }
    };
    let only = std::env::args().nth(1).filter(|a| !a.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases {
        if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
        let start = Instant::now();
        match case(&mut mesh) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({:.1} s)", start.elapsed().as_secs_f64());
            }
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED\n  {error:#}");
            }
        }
    }
    if failed > 0 {
        mesh.print_logs();
    }
    drop(mesh);
    println!("\n{passed} passed, {failed} failed, 0 skipped");
    if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
